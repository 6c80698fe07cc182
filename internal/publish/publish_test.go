package publish_test

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	mathrand "math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/incusos/incusos/internal/fetch"
	"github.com/incusos/incusos/internal/publish"
	"github.com/incusos/incusos/internal/publish/publishtest"
	"github.com/incusos/incusos/internal/repo"
	"github.com/incusos/incusos/internal/verity"
)

// A house has keys, builds and a repository.
type house struct {
	t    *testing.T
	dir  string // the repository
	with publish.Signing
}

func newHouse(t *testing.T) *house {
	t.Helper()
	dir, with := publishtest.New(t)
	return &house{t, dir, with}
}

func (h *house) change(do func(*repo.Author) error) {
	h.t.Helper()
	if err := publish.Change(h.t.Context(), h.dir, h.with, do); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) publish(b publish.Build, channel string) {
	h.t.Helper()
	h.change(func(a *repo.Author) error {
		return publish.Publish(h.t.Context(), h.dir, a, b, publish.Terms{Channel: channel, Percent: 100, Severity: "low", Changelog: []byte("News\n")}, time.Now())
	})
}

func (h *house) root() []byte {
	h.t.Helper()
	c, err := publish.Show(h.t.Context(), h.dir)
	if err != nil {
		h.t.Fatal(err)
	}
	return c.Root
}

// image returns blocks of noise; seed decides which.
func image(seed byte, blocks int) []byte {
	b := make([]byte, blocks*verity.BlockSize)
	mathrand.NewChaCha8([32]byte{seed}).Read(b) //nolint:errcheck // never fails
	return b
}

// build writes what a build of an image leaves, with usr as its file system.
func build(t *testing.T, version string, usr []byte) publish.Build {
	t.Helper()
	dir := t.TempDir()
	tree, err := verity.Build(t.Context(), verity.Superblock{Blocks: verity.BlocksOf(int64(len(usr))), Salt: []byte(version)}, bytes.NewReader(usr))
	if err != nil {
		t.Fatal(err)
	}
	sig := fmt.Appendf(nil, `{"rootHash":"%v","certificateFingerprint":"aa","signature":"YQ=="}`, tree.Root)
	for name, b := range map[string][]byte{
		"version": []byte(version + "\n"),
		"IncusOS_" + version + ".usr-x86-64.0000.raw":            usr,
		"IncusOS_" + version + ".usr-x86-64-verity.0000.raw":     append(bytes.Clone(tree.Bytes()), make([]byte, 1<<20)...),
		"IncusOS_" + version + ".usr-x86-64-verity-sig.0000.raw": append(sig, make([]byte, 16384-len(sig))...),
		"IncusOS_" + version + ".efi":                            image(9, 20)[:70000],
		"incus.raw":                                              image(8, 30),
		"base.manifest":                                          []byte("{}"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b, err := publish.FindBuild(dir)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The whole way: two releases are published and served, and a machine that runs
// the first gets the second, fetching little more than what has changed.
func TestFromBuildToSlot(t *testing.T) {
	h := newHouse(t)
	first := image(1, 2000)
	second := bytes.Clone(first)
	copy(second[500*verity.BlockSize:], image(2, 80))
	h.publish(build(t, "202611271200", first), "stable")
	h.publish(build(t, "202611281200", second), "stable")

	from := serve(t, h.dir, "")
	trusted := repo.Trusted{Root: h.root()}
	_, catalog, err := repo.Refresh(t.Context(), trusted, repo.Clock{Now: time.Now(), Synchronized: true}, from.Metadata)
	if err != nil {
		t.Fatal(err)
	}
	choice := catalog.Choose(repo.Machine{ID: "m", Architecture: "x86_64", Channel: "stable", Running: "202611271200"})
	if choice.Release == nil || choice.Release.Version != "202611281200" {
		t.Fatalf("%+v", choice)
	}
	if b, err := from.File(t.Context(), choice.Release.Changelog, 100); err != nil || string(b) != "News\n" {
		t.Errorf("changelog is %q (%v)", b, err)
	}
	f, ok := choice.Release.File("202611281200/x86_64/os/usr.raw")
	if !ok {
		t.Fatal("there is no file system in the release")
	}
	slot := filepath.Join(t.TempDir(), "slot")
	if err := os.WriteFile(slot, make([]byte, len(second)+verity.BlockSize), 0o600); err != nil {
		t.Fatal(err)
	}
	device, err := os.OpenFile(slot, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close() //nolint:errcheck // a test
	indexFile, _ := choice.Release.File(f.Index)
	raw, err := from.File(t.Context(), indexFile, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	index, err := verity.ParseIndex(raw)
	if err != nil {
		t.Fatal(err)
	}
	target, old := verity.Target{ReaderAt: device, WriterAt: device, Size: f.Length}, []verity.Source{{ReaderAt: bytes.NewReader(first), Size: int64(len(first))}}
	plan, err := verity.MakePlan(t.Context(), index, target, old)
	if err != nil {
		t.Fatal(err)
	}
	if err := plan.Copy(t.Context(), index, target, old); err != nil {
		t.Fatal(err)
	}
	tally := new(fetch.Tally)
	if err := from.Blocks(t.Context(), f, index, target, plan.Missing, tally); err != nil {
		t.Fatal(err)
	}
	if tree, err := verity.Build(t.Context(), index.Superblock, device); err != nil || tree.Root.String() != f.RootHash {
		t.Errorf("the slot has the root hash %v (%v), want %s", tree.Root, err, f.RootHash)
	}
	if n := tally.Bytes.Load(); n != 80*verity.BlockSize {
		t.Errorf("%d bytes were fetched, want the 80 blocks that changed", n)
	}
}

func serve(t *testing.T, dir, token string) *fetch.Server {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() }) //nolint:errcheck // only read
	web := httptest.NewServer(publish.Handler(root, token))
	t.Cleanup(web.Close)
	s, err := fetch.Open(web.URL, fetch.Options{Token: token})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestPublishRefusesPartsThatDoNotBelongTogether(t *testing.T) {
	h := newHouse(t)
	good, other := build(t, "202611271200", image(1, 300)), build(t, "202611271200", image(2, 300))
	tests := map[string]struct {
		change func(*publish.Build)
		want   string
	}{
		"another tree":        {func(b *publish.Build) { b.Tree = other.Tree }, "the tree does not belong to the root hash"},
		"another file system": {func(b *publish.Build) { b.Usr = other.Usr }, "has the root hash"},
		"another signature":   {func(b *publish.Build) { b.Signature = other.Signature }, "the tree does not belong to the root hash"},
		"no signature":        {func(b *publish.Build) { b.Signature = b.UKI }, "more than 16384 bytes"},
		"no kernel":           {func(b *publish.Build) { b.UKI += "x" }, "no such file"},
		"a version":           {func(b *publish.Build) { b.Version = "1.0" }, "version \"1.0\": want twelve digits"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := good
			tt.change(&b)
			before := tree(t, filepath.Join(h.dir, "metadata"))
			err := publish.Change(t.Context(), h.dir, h.with, func(a *repo.Author) error {
				return publish.Publish(t.Context(), h.dir, a, b, publish.Terms{Channel: "stable", Percent: 100, Severity: "none"}, time.Now())
			})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("it said %v, want %q", err, tt.want)
			}
			if after := tree(t, filepath.Join(h.dir, "metadata")); after != before {
				t.Errorf("metadata is\n%s\nwant\n%s", after, before)
			}
		})
	}
}

// tree lists the files below dir.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var all []string
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			all = append(all, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, "\n")
}

func TestPruneAndSweep(t *testing.T) {
	h := newHouse(t)
	for i := range 6 {
		channel := "testing"
		if i == 0 || i == 2 {
			channel = "stable"
		}
		h.publish(build(t, fmt.Sprintf("20261127120%d", i), image(byte(i), 10)), channel)
	}
	var dropped []string
	h.change(func(a *repo.Author) (err error) {
		dropped, err = publish.Drop(a, 1)
		return err
	})
	if want := "[202611271204 202611271203 202611271201 202611271200]"; fmt.Sprint(dropped) != want {
		t.Errorf("dropped %v, want %s", dropped, want)
	}
	if err := os.WriteFile(filepath.Join(h.dir, "targets/left-over"), []byte("of a publishing that was cut short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if freed, err := publish.Sweep(t.Context(), h.dir); err != nil || freed < 4*10*verity.BlockSize {
		t.Errorf("freed %d bytes (%v)", freed, err)
	}
	files := tree(t, h.dir)
	for _, s := range []string{"left-over", "targets/202611271201", "/2.targets.json"} {
		if strings.Contains(files, s) {
			t.Errorf("%s is still there", s)
		}
	}
	if got := repository(t, h).Choose(repo.Machine{Architecture: "x86_64", Channel: "stable", Running: "202611270000"}); got.Release == nil || got.Release.Version != "202611271202" {
		t.Errorf("a machine chooses %+v", got)
	}
	if n, err := publish.Sweep(t.Context(), h.dir); n != 0 || err != nil {
		t.Errorf("a second time frees %d bytes (%v)", n, err)
	}
	if err := publish.Change(t.Context(), h.dir, h.with, func(a *repo.Author) error { _, err := publish.Drop(a, 0); return err }); err == nil {
		t.Error("nothing is kept")
	}
}

// Applications that were released alone are no versions of the system: they do not push
// the one out that they are for, and go with it.
func TestApplicationsAreNoVersionsOfTheSystem(t *testing.T) {
	h := newHouse(t)
	for i := range 6 {
		b := build(t, fmt.Sprintf("20261127120%d", i), image(byte(i), 10))
		if i%3 != 0 { // two after each system
			only, err := b.Only([]string{"incus"})
			if err != nil {
				t.Fatal(err)
			}
			b = only
		}
		h.publish(b, "stable")
	}
	copied := filepath.Join(t.TempDir(), "copy")
	m := publish.Mirroring{From: serve(t, h.dir, ""), Root: h.root(), Newest: 1, Now: time.Now()}
	if _, _, err := publish.Mirror(t.Context(), copied, m); err != nil {
		t.Fatal(err)
	}
	var dropped []string
	h.change(func(a *repo.Author) (err error) {
		dropped, err = publish.Drop(a, 1)
		return err
	})
	if want := "[202611271202 202611271201 202611271200]"; fmt.Sprint(dropped) != want {
		t.Errorf("dropped %v, want %s", dropped, want)
	}
	files := tree(t, copied)
	for i := range 6 {
		if has := strings.Contains(files, fmt.Sprintf("targets/20261127120%d", i)); has != (i >= 3) {
			t.Errorf("release %d is copied: %v", i, has)
		}
	}
}

// repository reads a repository as a machine does.
func repository(t *testing.T, h *house) *repo.Catalog {
	t.Helper()
	_, c, err := repo.Refresh(t.Context(), repo.Trusted{Root: h.root()}, repo.Clock{Now: time.Now(), Synchronized: true}, serve(t, h.dir, "").Metadata)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestMirror(t *testing.T) {
	h := newHouse(t)
	h.publish(build(t, "202611271200", image(1, 300)), "stable")
	h.publish(build(t, "202611281200", image(2, 300)), "stable")
	h.publish(build(t, "202611291200", image(3, 300)), "testing")
	h.change(func(a *repo.Author) error {
		return a.SetKeys(map[string]repo.RoleKeys{"timestamp": {Threshold: 1, Keys: []crypto.PublicKey{h.with.Keys[0].Public()}}})
	})
	copied := filepath.Join(t.TempDir(), "copy")
	m := publish.Mirroring{From: serve(t, h.dir, "secret"), Root: h.root(), Channels: []string{"stable"}, Newest: 1, Now: time.Now()}
	count, size, err := publish.Mirror(t.Context(), copied, m)
	if err != nil || count != 11 || size < 300*verity.BlockSize {
		t.Errorf("%d files with %d bytes copied (%v)", count, size, err)
	}
	if files := tree(t, copied); strings.Contains(files, "targets/202611271200") || strings.Contains(files, "targets/202611291200") {
		t.Errorf("too much is copied:\n%s", files)
	}
	first, err := os.ReadFile(filepath.Join(h.dir, "metadata/1.root.json"))
	if err != nil {
		t.Fatal(err)
	}
	_, c, err := repo.Refresh(t.Context(), repo.Trusted{Root: first}, repo.Clock{Now: time.Now(), Synchronized: true}, serve(t, copied, "").Metadata)
	if err != nil || len(c.Releases) != 3 {
		t.Errorf("a machine sees %+v (%v)", c, err)
	}
	if count, _, err := publish.Mirror(t.Context(), copied, m); count != 0 || err != nil {
		t.Errorf("a second time copies %d files (%v)", count, err)
	}
	m.From = serve(t, newHouse(t).dir, "")
	before := tree(t, copied)
	if _, _, err := publish.Mirror(t.Context(), copied, m); err == nil || tree(t, copied) != before {
		t.Errorf("another repository was copied over it (%v)", err)
	}
}

// A change of keys that was cut short after the root leaves a repository that can
// be opened with the rest signed by the old keys.
func TestChangeOfKeysThatWasCutShort(t *testing.T) {
	h := newHouse(t)
	h.publish(build(t, "202611271200", image(1, 10)), "stable")
	old, err := os.ReadFile(filepath.Join(h.dir, "metadata/timestamp.json"))
	if err != nil {
		t.Fatal(err)
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	h.with.Keys = append(h.with.Keys, key)
	roles := map[string]repo.RoleKeys{"timestamp": {Threshold: 1, Keys: []crypto.PublicKey{key.Public()}}, "snapshot": {Threshold: 1, Keys: []crypto.PublicKey{key.Public()}}}
	h.change(func(a *repo.Author) error { return a.SetKeys(roles) })
	if err := os.WriteFile(filepath.Join(h.dir, "metadata/timestamp.json"), old, 0o600); err != nil {
		t.Fatal(err)
	}
	h.change(func(*repo.Author) error { return nil })
	if c := repository(t, h); len(c.Releases) != 1 {
		t.Errorf("releases are %+v", c.Releases)
	}
}

func TestOnePublisherAtATime(t *testing.T) {
	h := newHouse(t)
	h.change(func(*repo.Author) error {
		err := publish.Change(t.Context(), h.dir, h.with, func(*repo.Author) error { return nil })
		if err == nil || !strings.Contains(err.Error(), "somebody else is changing the repository") {
			t.Errorf("it said %v", err)
		}
		return nil
	})
	if err := publish.Init(h.dir, nil, nil, h.with); err == nil || !strings.Contains(err.Error(), "is not empty; name a directory that is new") {
		t.Errorf("it said %v", err)
	}
	if err := publish.Change(t.Context(), t.TempDir(), h.with, nil); !errors.Is(err, repo.ErrNotFound) || !strings.Contains(err.Error(), "there is no repository in") {
		t.Errorf("it said %v", err)
	}
}

func TestHandler(t *testing.T) {
	h := newHouse(t)
	if err := os.WriteFile(filepath.Join(h.dir, "update.key"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(h.dir, "metadata/passwd")); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(h.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close() //nolint:errcheck // only read
	tests := map[string]struct {
		method, path, token, ranges string
		code                        int
		cache                       string
	}{
		"timestamp":   {"GET", "/metadata/timestamp.json", "Bearer t", "", 200, "no-cache"},
		"root":        {"GET", "/metadata/1.root.json", "Bearer t", "", 200, "max-age=31536000, immutable"},
		"part of it":  {"GET", "/metadata/1.root.json", "Bearer t", "bytes=3-9", 206, "max-age=31536000, immutable"},
		"behind it":   {"GET", "/metadata/1.root.json", "Bearer t", "bytes=99999-", 416, ""},
		"no token":    {"GET", "/metadata/timestamp.json", "", "", 401, ""},
		"other token": {"GET", "/metadata/timestamp.json", "Bearer x", "", 401, ""},
		"key":         {"GET", "/update.key", "Bearer t", "", 404, ""},
		"way out":     {"GET", "/metadata/../update.key", "Bearer t", "", 404, ""},
		"link out":    {"GET", "/metadata/passwd", "Bearer t", "", 404, ""},
		"lock":        {"GET", "/.lock", "Bearer t", "", 404, ""},
		"directory":   {"GET", "/metadata/", "Bearer t", "", 404, ""},
		"next root":   {"GET", "/metadata/2.root.json", "Bearer t", "", 404, ""},
		"writing":     {"PUT", "/metadata/timestamp.json", "Bearer t", "", 405, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(tt.method, tt.path, http.NoBody)
			r.Header.Set("Authorization", tt.token)
			if tt.ranges != "" {
				r.Header.Set("Range", tt.ranges)
			}
			w := httptest.NewRecorder()
			publish.Handler(root, "t").ServeHTTP(w, r)
			b, _ := io.ReadAll(w.Body)
			if cache := w.Header().Get("Cache-Control"); w.Code != tt.code || cache != tt.cache || bytes.Contains(b, []byte("secret")) {
				t.Errorf("%d %q %q, want %d %q", w.Code, cache, b, tt.code, tt.cache)
			}
		})
	}
}
