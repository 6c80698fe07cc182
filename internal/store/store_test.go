package store_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/incusos/incusos/internal/store"
	"github.com/incusos/incusos/internal/sys"
)

const file = "/var/lib/incus-os/net.json"

type config struct {
	Comment string  `json:"comment,omitempty"`
	DNS     *dns    `json:"dns,omitempty"`
	Links   []link  `json:"links,omitempty"`
	Proxies proxies `json:"proxies,omitempty"`
}

type (
	dns     struct{ Domain string }
	proxies map[string]string
	link    struct {
		Name string `json:"name"`
		MTU  int    `json:"mtu,omitempty"`
	}
)

func TestDocumentOutlivesTheProcess(t *testing.T) {
	files := sys.NewDir(t.TempDir())
	d := open(t, files)
	if d.Saved() {
		t.Error("Saved() is true before anything was saved")
	}
	want := config{Comment: "lab", Links: []link{{"lan", 9000}}, Proxies: proxies{"a": "b"}}
	if err := d.Set(want); err != nil {
		t.Fatal(err)
	}
	again := open(t, files)
	if diff := cmp.Diff(want, again.Get()); diff != "" || !again.Saved() {
		t.Errorf("after opening it again (saved: %v; -want +got):\n%s", again.Saved(), diff)
	}
	if fi, err := files.Stat(file); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode of the file: %v, %v; want 0600", fi.Mode(), err)
	}
}

func TestCallersOwnWhatTheyGetAndGive(t *testing.T) {
	d := open(t, sys.NewDir(t.TempDir()))
	given := config{Links: []link{{"lan", 1500}}}
	if err := d.Set(given); err != nil {
		t.Fatal(err)
	}
	given.Links[0].Name = "changed"
	d.Get().Links[0].MTU = 1
	if diff := cmp.Diff(config{Links: []link{{"lan", 1500}}}, d.Get()); diff != "" {
		t.Errorf("the document changed behind its back (-want +got):\n%s", diff)
	}
}

func TestFieldsOfANewerReleaseSurvive(t *testing.T) {
	const newer = `{"schema": 7, "note": "kept", "config": {
		"comment": "old", "colour": 12345678901234567890,
		"dns": {"Domain": "a.test", "over_tls": true},
		"links": [{"name": "lan", "mtu": 1500, "speed": 10}, {"name": "san", "speed": 25}, {"name": "gone", "speed": 1}],
		"proxies": {"x": "1", "y": "2"}}}`
	tests := map[string]struct {
		change func(*config)
		want   string // config afterwards
	}{
		"nothing changes": {func(*config) {}, `{
			"comment": "old", "colour": 12345678901234567890,
			"dns": {"Domain": "a.test", "over_tls": true},
			"links": [{"name": "lan", "mtu": 1500, "speed": 10}, {"name": "san", "speed": 25}, {"name": "gone", "speed": 1}],
			"proxies": {"x": "1", "y": "2"}}`},
		"elements move, change and go": {func(c *config) { c.Links = []link{{"san", 9000}, {"new", 0}, {"lan", 1500}} }, `{
			"comment": "old", "colour": 12345678901234567890,
			"dns": {"Domain": "a.test", "over_tls": true},
			"links": [{"name": "san", "mtu": 9000, "speed": 25}, {"name": "new"}, {"name": "lan", "mtu": 1500, "speed": 10}],
			"proxies": {"x": "1", "y": "2"}}`},
		"what was understood can be removed": {func(c *config) { *c = config{Proxies: proxies{"y": "3"}} }, `{
			"colour": 12345678901234567890, "proxies": {"y": "3"}}`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			files := sys.NewDir(t.TempDir())
			write(t, files, newer)
			d := open(t, files)
			c := d.Get()
			tt.change(&c)
			if err := d.Set(c); err != nil {
				t.Fatal(err)
			}
			want := `{"schema": 7, "note": "kept", "config": ` + tt.want + `}`
			if diff := cmp.Diff(generic(t, []byte(want)), generic(t, read(t, files))); diff != "" {
				t.Errorf("file (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c, open(t, files).Get()); diff != "" {
				t.Errorf("read again (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDamageIsReportedAndKept(t *testing.T) {
	tests := map[string]struct{ content, want string }{
		"empty":                {"", "net.json: is empty"},
		"cut short":            {"{\n \"schema\": 1,\n \"config\": {", "net.json: line 3, column 12: unexpected end"},
		"not JSON":             {"{\n  schema: 1}", "net.json: line 2, column 3: invalid character 's'"},
		"wrong type":           {`{"schema":1,"config":{"links":[{"name":"a","mtu":"big"}]}}`, "net.json: line 1, column 54: config.links.mtu is of type string; want int"},
		"no schema":            {`{"config":{}}`, "has no schema or no config"},
		"no configuration":     {`{"schema":1}`, "has no schema or no config"},
		"a list":               {`[]`, "the document is of type array"},
		"two documents in one": {`{"schema":1,"config":{}} {}`, "net.json: line 1, column 26: invalid character '{'"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			files := sys.NewDir(t.TempDir())
			write(t, files, tt.content)
			_, err := store.Open[config](files, "net")
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Open() = %v, want %q in it", err, tt.want)
			}
			if got := string(read(t, files)); got != tt.content {
				t.Errorf("the file is now %q, was %q", got, tt.content)
			}
		})
	}
}

// Whatever is written, and whichever write is cut: the file and the document
// hold the last configuration whose Set succeeded.
func TestCutAtAnyWrite(t *testing.T) {
	root := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		cut := false
		files := sys.NewDir(root).WithFault(func(string, string) error {
			if cut {
				return errors.New("power cut")
			}
			return nil
		})
		if err := files.RemoveAll("/var"); err != nil {
			rt.Fatal(err)
		}
		d, err := store.Open[config](files, "net")
		if err != nil {
			rt.Fatal(err)
		}
		var want config
		for range rapid.IntRange(1, 6).Draw(rt, "writes") {
			next := configs(rt)
			cut = rapid.Bool().Draw(rt, "cut")
			err := d.Set(next)
			if (err != nil) != cut {
				rt.Fatalf("Set() = %v with cut %v", err, cut)
			}
			if !cut {
				want = next
			}
			cut = false
			onDisk, err := store.Open[config](files, "net")
			if err != nil {
				rt.Fatal(err)
			}
			if diff := cmp.Diff([]config{want, want}, []config{d.Get(), onDisk.Get()}); diff != "" {
				rt.Fatalf("in memory and on disk (-want +got):\n%s", diff)
			}
		}
	})
}

func configs(rt *rapid.T) config {
	c := config{Comment: rapid.StringMatching(`[a-z"\\é]{0,9}`).Draw(rt, "comment")}
	for range rapid.IntRange(0, 3).Draw(rt, "links") {
		c.Links = append(c.Links, link{rapid.StringMatching(`[ab]`).Draw(rt, "name"), rapid.IntRange(0, 2).Draw(rt, "mtu")})
	}
	return c
}

func open(t *testing.T, files sys.Dir) *store.Document[config] {
	t.Helper()
	d, err := store.Open[config](files, "net")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func write(t *testing.T, files sys.Dir, content string) {
	t.Helper()
	if err := files.WriteFile(file, []byte(content), fs.FileMode(0o600)); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, files sys.Dir) []byte {
	t.Helper()
	b, err := files.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func generic(t *testing.T, b []byte) any {
	t.Helper()
	var v any
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}
