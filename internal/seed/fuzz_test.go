package seed

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/incusos/incusos/api"
)

// fuzzDecode asserts that any text is refused or understood, and that what was
// understood is the same when written as JSON and read again.
func fuzzDecode[T any](f *testing.F, texts ...string) {
	for _, s := range texts {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		doc, err := decode[T](data)
		if err != nil {
			return
		}
		text, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		again, err := decode[T](text)
		if err != nil {
			t.Fatalf("%q was read as %s, which is refused: %v", data, text, err)
		}
		if second, _ := json.Marshal(again); !bytes.Equal(text, second) {
			t.Errorf("%q was read as %s, then as %s", data, text, second)
		}
	})
}

func FuzzInstall(f *testing.F) {
	fuzzDecode[api.SeedInstall](f, "", "force_install: true\ntarget: {bus: nvme, min_size: 1GiB}\n", `{"target": {"id": "x"}}`)
}

func FuzzApplications(f *testing.F) {
	fuzzDecode[api.SeedApplications](f, "applications:\n- name: incus\n- {name: debug}\n")
}

func FuzzIncus(f *testing.F) {
	fuzzDecode[api.SeedIncus](f, "apply_defaults: true\npreseed:\n  config: {a: 1, b: 1.5, c: ~, d: |\n x\n}\n", "preseed: {a: &x [*x]}")
}

func FuzzNetwork(f *testing.F) {
	fuzzDecode[api.SeedNetwork](f, "dns: {hostname: a}\ninterfaces:\n- name: a\n  hwaddr: 52:54:00:00:00:01\n  mtu: 1500\n")
}

func FuzzUpdate(f *testing.F) {
	fuzzDecode[api.SeedUpdate](f, "channel: stable\nauto_reboot: true\nmaintenance_windows: [{start_hour: 1, end_hour: 4}]\n", "check_frequency: never")
}

func FuzzProvider(f *testing.F) {
	fuzzDecode[api.SeedProvider](f, "name: images\nconfig: {server_url: \"https://updates.example.net\", token: abc, root: \"{}\"}\n")
}

func FuzzKernel(f *testing.F) {
	fuzzDecode[api.SeedKernel](f, "console:\n- {device: /dev/ttyS0, baud_rate: 115200}\nmemory: {zram_swap_size: 1GiB}\n", "pci: {passthrough: [{vendor_id: \"10de\", product_id: \"1eb8\"}]}")
}

func FuzzLogging(f *testing.F) {
	fuzzDecode[api.SeedLogging](f, "syslog: {address: \"192.0.2.14:514\"}\njournal: {max_age: 2h}\n")
}

func FuzzSecurity(f *testing.F) {
	fuzzDecode[api.SeedSecurity](f, "show_recovery_key: true\n", "encryption_recovery_keys: [\"correct-horse battery 9 staple\"]\n")
}

func FuzzArchive(f *testing.F) {
	var b bytes.Buffer
	s := &Seed{sections: map[string]section{"incus": {builtIn, "incus.yaml", []byte("version: \"1\"\n")}}}
	if err := s.Forward(&b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add(make([]byte, 1024))
	s.end = int64(b.Len()) - 2*block
	a, err := s.addition()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append(b.Bytes()[:s.end:s.end], a.data...))
	f.Fuzz(func(t *testing.T, data []byte) {
		got := &Seed{sections: make(map[string]section)}
		if err := got.readArchive("", bytes.NewReader(data)); err != nil {
			return
		}
		for name, sec := range got.sections {
			if strings.Contains(sec.file, "/") || len(sec.data) > maxSection {
				t.Errorf("section %s from %q, %d bytes", name, sec.file, len(sec.data))
			}
		}
		for _, a := range got.images {
			if !api.ApplicationName(a.Name) || strings.ContainsAny(a.Version, "/_") {
				t.Errorf("image %+v", a)
			}
		}
	})
}

func TestEveryFieldOfASectionHasAName(t *testing.T) {
	for _, typ := range []reflect.Type{reflect.TypeFor[api.SeedInstall](), reflect.TypeFor[api.SeedNetwork](), reflect.TypeFor[api.NetworkInterface](), reflect.TypeFor[api.SeedKernel](), reflect.TypeFor[api.SeedLogging](), reflect.TypeFor[api.SeedSecurity](), reflect.TypeFor[api.SeedUpdate](), reflect.TypeFor[api.SeedProvider]()} {
		for _, name := range fields(typ, make(map[string]reflect.Type)) {
			if name == "" || strings.ToLower(name) != name {
				t.Errorf("%s has a field named %q", typ, name)
			}
		}
	}
}
