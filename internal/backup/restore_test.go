package backup

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/store"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/sys/systest"
)

const (
	here      = "02:00:00:00:00:01" // the card enp1s0 of a sensible machine
	elsewhere = "02:00:00:00:00:99"
)

var (
	keyOne = strings.Repeat("1", keySize)
	keyTwo = strings.Repeat("2", keySize)
)

// options are those of a machine with four documents.
func options() Options {
	return Options{
		Documents: map[string]func([]byte) error{
			"network": func(content []byte) error {
				config, err := store.Parse[api.NetworkConfig](content)
				if err != nil {
					return err
				}
				return config.Validate()
			},
			"applications": plain, "security": plain, "storage": plain,
		},
		Local: map[string][]string{"security": {"recovery_keys_retrieved"}},
		Seed: func(map[string]json.RawMessage, bool) (func() error, error) {
			return func() error { return nil }, nil
		},
	}
}

func plain(content []byte) error {
	_, err := store.Parse[map[string]any](content)
	return err
}

func document(config string) string { return `{"schema":1,"config":` + config + `}` }

// machine returns a sensible machine with some files in its directory.
func machine(t testing.TB, files map[string]string) *systest.Rig {
	t.Helper()
	rig := systest.New(t, systest.Sensible())
	fill(t, rig.Host.Files, files)
	return rig
}

func fill(t testing.TB, d sys.Dir, files map[string]string) {
	t.Helper()
	for name, content := range files {
		if err := d.WriteFile(dir+"/"+name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// held returns the files in the directory of a machine.
func held(t testing.TB, d sys.Dir) map[string]string {
	t.Helper()
	entries, err := d.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	files := make(map[string]string)
	for _, e := range entries {
		content, err := d.ReadFile(dir + "/" + e.Name())
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = string(content)
	}
	return files
}

func packed(t testing.TB, files map[string]string) []byte {
	t.Helper()
	content := make(map[string][]byte)
	for name, text := range files {
		content[name] = []byte(text)
	}
	data, err := pack(manifest{Version: "202601010000"}, content)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// restart is what happens between a restore and its effect.
func restart(t testing.TB, rig *systest.Rig) {
	t.Helper()
	if err := Finish(rig.Host.Files); err != nil {
		t.Fatal(err)
	}
	for _, left := range []string{staged, half, triedKey} {
		if rig.Host.Files.Exists(left) {
			t.Errorf("%s is left", left)
		}
	}
}

func TestRestoreBringsBackWhatWasSaved(t *testing.T) {
	files := map[string]string{
		"network.json":         document(`{"dns":{"hostname":"one"}}`),
		"storage.json":         document(`{"scrub_schedule":"0 4 * * 0"}`),
		"zpool.local.key":      keyOne,
		"recovery.root.key":    "key of this disk\n",
		"zpool.local.creating": "",
		"audit.log":            "a line\n",
	}
	rig := machine(t, files)
	b := New(rig.Host, options())
	archive, err := b.Archive(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if again, err := b.Archive(t.Context()); err != nil || !bytes.Equal(archive, again) {
		t.Errorf("two backups of the same differ: %v", err)
	}
	_, got, err := unpack(archive)
	if want := []string{"network.json", "recovery.root.key", "storage.json", "zpool.local.key"}; err != nil || !slices.Equal(want, slices.Sorted(maps.Keys(got))) {
		t.Errorf("the archive holds %q, %v, want %q", slices.Sorted(maps.Keys(got)), err, want)
	}
	fill(t, rig.Host.Files, map[string]string{
		"network.json":  document(`{"dns":{"hostname":"two"}}`),
		"security.json": document(`{}`), // saved later: its area is back on defaults
		"audit.log":     "a line\nanother\n",
	})
	if err := rig.Host.Files.Remove(dir + "/storage.json"); err != nil {
		t.Fatal(err)
	}
	before := held(t, rig.Host.Files)
	if err := b.Restore(t.Context(), bytes.NewReader(archive), nil); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, held(t, rig.Host.Files)); diff != "" {
		t.Errorf("before the restart (-want +got):\n%s", diff)
	}
	restart(t, rig)
	files["audit.log"] = "a line\nanother\n"
	if diff := cmp.Diff(files, held(t, rig.Host.Files)); diff != "" {
		t.Errorf("after the restart (-want +got):\n%s", diff)
	}
	if fi, err := rig.Host.Files.Stat(dir + "/storage.json"); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode of a document: %v, %v", fi.Mode(), err)
	}
}

// What could not be restored is no backup.
func TestBackupOfADamagedMachineIsRefused(t *testing.T) {
	for file, content := range map[string]string{"network.json": `{"schema":1,`, "storage.json": "", "zpool.local.key": "stump"} {
		rig := machine(t, map[string]string{"applications.json": document(`{}`), file: content})
		_, err := New(rig.Host, options()).Archive(t.Context())
		if e, ok := errors.AsType[*api.Error](err); !ok || e.Kind != api.Conflict || !strings.Contains(e.Text, file+" of this machine is damaged") {
			t.Errorf("%s: Archive() = %v, want a conflict that names it", file, err)
		}
	}
}

// Any documents that a machine can have come back on any other.
func TestAnyBackupComesBack(t *testing.T) {
	one, two := machine(t, nil), machine(t, nil)
	rapid.Check(t, func(rt *rapid.T) {
		for _, rig := range []*systest.Rig{one, two} {
			if err := rig.Host.Files.RemoveAll(dir); err != nil {
				rt.Fatal(err)
			}
		}
		documents := func(label string) map[string]string {
			files := make(map[string]string)
			for _, name := range []string{"applications", "storage"} {
				if rapid.Bool().Draw(rt, label+name) {
					config, err := json.Marshal(rapid.MapOf(rapid.String(), rapid.Int64()).Draw(rt, label+name+" config"))
					if err != nil {
						rt.Fatal(err)
					}
					files[name+".json"] = document(string(config))
				}
			}
			return files
		}
		want := documents("one ")
		fill(t, one.Host.Files, want)
		fill(t, two.Host.Files, documents("two "))
		archive, err := New(one.Host, options()).Archive(t.Context())
		if err != nil {
			rt.Fatal(err)
		}
		if err := New(two.Host, options()).Restore(t.Context(), bytes.NewReader(archive), nil); err != nil {
			rt.Fatal(err)
		}
		restart(t, two)
		if diff := cmp.Diff(want, held(t, two.Host.Files)); diff != "" {
			rt.Errorf("on the other machine (-want +got):\n%s", diff)
		}
	})
}

func TestRestoreRefuses(t *testing.T) {
	good := map[string]string{"network.json": document(`{}`)}
	tests := map[string]struct {
		files map[string]string
		skip  []string
		want  string
	}{
		"an unknown word": {good, []string{"network-mac"}, `skip: "network-mac" is unknown; want some of encryption-recovery-keys, local-data-encryption-key, network-macs`},
		"an unknown document": {map[string]string{"weather.json": document(`{}`)}, nil,
			`the document "weather", which this release does not know`},
		"a document that does not load": {map[string]string{"network.json": document(`{"dns":7}`)}, nil,
			`the document "network" of the backup: line 1, column 29: config.dns is of type number`},
		"a document that is not valid": {map[string]string{"network.json": document(`{"interfaces":[{"name":"a","hwaddr":"` + here + `","mtu":5}]}`)}, nil,
			`interfaces[0].mtu`},
		"a document of a newer release": {map[string]string{"storage.json": `{"schema":2,"config":{}}`}, nil,
			`the document "storage" of the backup is of a newer release`},
		"a key of the wrong length": {map[string]string{"zpool.local.key": "short"}, nil, `zpool.local.key of the backup: the key of a pool has 5 bytes; want 32`},
		"cards of another machine": {map[string]string{"network.json": network(elsewhere)}, nil,
			"cards of another machine (lan " + elsewhere + "), and this one, which has enp1s0 " + here + ", could not be reached; restore it with skip=network-macs"},
		"cards that cannot be told": {map[string]string{"network.json": network(elsewhere)}, []string{skipMACs},
			"none is called as it calls them: lan " + elsewhere + "; this machine has enp1s0 " + here},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			rig := machine(t, map[string]string{"storage.json": document(`{}`)})
			err := New(rig.Host, options()).Restore(t.Context(), bytes.NewReader(packed(t, tt.files)), tt.skip)
			_, refusal := errors.AsType[*api.Error](err)
			_, field := errors.AsType[*api.FieldError](err)
			if !refusal && !field || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Restore() = %v, want %q for the operator", err, tt.want)
			}
			unchanged(t, rig)
		})
	}
}

// unchanged asserts that a machine has its one document and nothing is staged.
func unchanged(t *testing.T, rig *systest.Rig) {
	t.Helper()
	if rig.Host.Files.Exists(staged) {
		t.Error("something is staged")
	}
	restart(t, rig)
	if diff := cmp.Diff(map[string]string{"storage.json": document(`{}`)}, held(t, rig.Host.Files)); diff != "" {
		t.Errorf("the machine (-want +got):\n%s", diff)
	}
}

func TestRestoreOfWhatDidNotArrive(t *testing.T) {
	archive := packed(t, map[string]string{"storage.json": document(`{"a":1}`)})
	lost := errors.New("the request ended early")
	rig := machine(t, map[string]string{"storage.json": document(`{}`)})
	b := New(rig.Host, options())
	if err := b.Restore(t.Context(), iotest.TimeoutReader(iotest.OneByteReader(bytes.NewReader(archive))), nil); !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("a body that stops: %v", err)
	}
	body := iotest.DataErrReader(iotest.ErrReader(lost))
	if err := b.Restore(t.Context(), body, nil); !errors.Is(err, lost) {
		t.Errorf("a body that fails: %v, want its own error", err)
	}
	if err := b.Restore(t.Context(), bytes.NewReader(make([]byte, maxArchive+1)), nil); err == nil || !strings.Contains(err.Error(), "longer than 1048576 bytes") {
		t.Errorf("a body that is too long: %v", err)
	}
	unchanged(t, rig)
}

func network(hwaddr string) string {
	return document(`{"interfaces":[{"name":"lan","hwaddr":"` + hwaddr + `","addresses":["dhcp4"],"later":true}]}`)
}

func TestCardsAreMadeToFit(t *testing.T) {
	links := []sys.Link{
		{Name: "eno1", Hwaddr: "02:00:00:00:00:0a", Physical: true},
		{Name: "eno2", Hwaddr: "02:00:00:00:00:0b", Physical: true},
		{Name: "incusbr0", Hwaddr: elsewhere},
	}
	tests := map[string]struct{ config, want string }{
		"cards that are here": {`{"interfaces":[{"name":"a","hwaddr":"02:00:00:00:00:0A"},{"name":"b","hwaddr":"eno2"}]}`, ""},
		"a card by its name":  {`{"interfaces":[{"name":"eno2","hwaddr":"` + elsewhere + `","n":12345678901234567890}]}`, `{"interfaces":[{"name":"eno2","hwaddr":"eno2","n":12345678901234567890}]}`},
		"one of two":          {`{"interfaces":[{"name":"eno1","hwaddr":"02:00:00:00:00:0a"},{"name":"eno2","hwaddr":"` + elsewhere + `"}]}`, `{"interfaces":[{"name":"eno1","hwaddr":"02:00:00:00:00:0a"},{"name":"eno2","hwaddr":"eno2"}]}`},
		"a bond":              {`{"bonds":[{"name":"bond0","members":["02:00:00:00:00:0a","eno2"]}]}`, ""},
		"no cards":            {`{}`, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := fitCards([]byte(document(tt.config)), links, true)
			if err != nil {
				t.Fatal(err)
			}
			want := tt.config
			if tt.want != "" {
				want = tt.want
			}
			if diff := cmp.Diff(anyOf(t, document(want)), anyOf(t, string(got))); diff != "" {
				t.Errorf("the document (-want +got):\n%s", diff)
			}
		})
	}
}

func anyOf(t *testing.T, text string) any {
	t.Helper()
	doc, _, err := open([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// A key that opens something on this machine is never given up.
func TestKeysThatStay(t *testing.T) {
	tests := map[string]struct {
		have, backup, pool string // keys; "" is none
		skip               []string
		want               string
	}{
		"the same":                         {keyOne, keyOne, keyOne, nil, keyOne},
		"of a pool that is gone":           {keyOne, keyTwo, keyOne, nil, keyOne},
		"of the pool, here a wrong one":    {keyOne, keyTwo, keyTwo, nil, keyTwo},
		"neither fits":                     {keyOne, keyTwo, strings.Repeat("3", keySize), nil, keyOne},
		"no pool to try it on":             {keyOne, keyTwo, "", nil, keyOne},
		"there is none here":               {"", keyTwo, keyTwo, nil, keyTwo},
		"there is none here, and skipped":  {"", keyTwo, keyTwo, []string{skipLocalKey}, ""},
		"it would fit and is skipped":      {keyOne, keyTwo, keyTwo, []string{skipLocalKey, skipRecoveryKeys}, keyOne},
		"there is none in the backup":      {keyOne, "", keyOne, nil, keyOne},
		"recovery keys are not asked for":  {keyOne, keyOne, keyOne, []string{skipRecoveryKeys}, keyOne},
		"one of the wrong length was here": {"stump", keyTwo, keyTwo, nil, keyTwo},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			rig := machine(t, map[string]string{"recovery.root.key": "opens root\n", "luks.sdb.key": "opens sdb"})
			pools := systest.NewZFS(rig)
			if tt.pool != "" {
				withPool(t, rig, pools, tt.pool)
			}
			archive := map[string]string{"recovery.root.key": "opened another root\n", "luks.sdb.key": "opened another", "luks.sdc.key": "opens sdc", "wireguard.wg0.key": tunnelKey}
			for where, key := range map[string]string{"have": tt.have, "backup": tt.backup} {
				switch {
				case key == "":
				case where == "have":
					fill(t, rig.Host.Files, map[string]string{localKey: key})
				default:
					archive[localKey] = key
				}
			}
			if err := New(rig.Host, options()).Restore(t.Context(), bytes.NewReader(packed(t, archive)), tt.skip); err != nil {
				t.Fatal(err)
			}
			restart(t, rig)
			want := map[string]string{"recovery.root.key": "opens root\n", "luks.sdb.key": "opens sdb", "luks.sdc.key": "opens sdc", "wireguard.wg0.key": tunnelKey}
			if tt.want != "" {
				want[localKey] = tt.want
			}
			if diff := cmp.Diff(want, held(t, rig.Host.Files)); diff != "" {
				t.Errorf("keys (-want +got):\n%s", diff)
			}
		})
	}
}

// withPool makes the pool local with a key and imports it, locked.
func withPool(t *testing.T, rig *systest.Rig, pools *systest.ZFS, key string) {
	t.Helper()
	const file = "/run/pool.key"
	if err := rig.Host.Files.WriteFile(file, []byte(key), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []sys.Cmd{
		sys.Command("modprobe", "zfs"),
		sys.Command("zpool", "create", "-O", "keylocation=file://"+file, "local", "/dev/vda10"),
	} {
		if _, err := rig.Host.Exec.Run(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	if err := pools.Reboot(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []sys.Cmd{sys.Command("modprobe", "zfs"), sys.Command("zpool", "import", "-N", "-d", "/dev/vda10", "local")} {
		if _, err := rig.Host.Exec.Run(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWhatWasDoneHereStays(t *testing.T) {
	tests := map[string]struct{ have, backup, want string }{
		"said here":         {document(`{"recovery_keys_retrieved":true}`), document(`{"recovery_keys_retrieved":false,"certs":["a"]}`), `{"certs":["a"],"recovery_keys_retrieved":true}`},
		"not said here":     {document(`{}`), document(`{"recovery_keys_retrieved":true}`), `{}`},
		"nothing here":      {"", document(`{"recovery_keys_retrieved":true}`), `{}`},
		"damaged here":      {"{", document(`{"recovery_keys_retrieved":true}`), `{"recovery_keys_retrieved":true}`},
		"said in both ways": {document(`{"recovery_keys_retrieved":true}`), document(`{}`), `{"recovery_keys_retrieved":true}`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			rig := machine(t, nil)
			if tt.have != "" {
				fill(t, rig.Host.Files, map[string]string{"security.json": tt.have})
			}
			archive := packed(t, map[string]string{"security.json": tt.backup})
			if err := New(rig.Host, options()).Restore(t.Context(), bytes.NewReader(archive), nil); err != nil {
				t.Fatal(err)
			}
			restart(t, rig)
			if diff := cmp.Diff(anyOf(t, document(tt.want)), anyOf(t, held(t, rig.Host.Files)["security.json"])); diff != "" {
				t.Errorf("the document (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSecondRestoreBeforeTheRestartCounts(t *testing.T) {
	rig := machine(t, nil)
	b := New(rig.Host, options())
	for i := range 2 {
		archive := packed(t, map[string]string{"storage.json": document(fmt.Sprintf(`{"n":%d}`, i))})
		if err := b.Restore(t.Context(), bytes.NewReader(archive), nil); err != nil {
			t.Fatal(err)
		}
	}
	restart(t, rig)
	if got, want := held(t, rig.Host.Files)["storage.json"], document(`{"n":1}`); got != want {
		t.Errorf("the document is %s, want %s", got, want)
	}
}

func TestSecretsAreInNoError(t *testing.T) {
	rig := machine(t, nil)
	b := New(rig.Host, options())
	for _, files := range []map[string]string{
		{"zpool.local.key": "hush"},
		{"network.json": `{"schema":1,"config":{"hush":` + `}`},
	} {
		err := b.Restore(t.Context(), bytes.NewReader(packed(t, files)), nil)
		if err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("Restore() = %v, want an error without the content", err)
		}
	}
}

const tunnelKey = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="

func TestHalfAKeyOfATunnelIsRefused(t *testing.T) {
	b := New(machine(t, nil).Host, options())
	if err := b.sound("wireguard.wg0.key", []byte(tunnelKey[:20])); err == nil {
		t.Error("half a key is sound")
	}
	if err := b.sound("wireguard.wg0.key", []byte(tunnelKey)); err != nil {
		t.Error(err)
	}
}
