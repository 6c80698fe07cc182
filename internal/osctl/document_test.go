package osctl_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/incusos/incusos/internal/osctl"
)

func TestReadConfig(t *testing.T) {
	tests := map[string]struct {
		text string
		want string // the configuration, or what the error says
		ok   bool
	}{
		"YAML":                        {"config:\n  blacklist_modules: [floppy]\nstate: {}\n", `{"blacklist_modules":["floppy"]}`, true},
		"JSON":                        {`{"config": {"cpu": {"scaling_governor": "performance"}}}`, `{"cpu":{"scaling_governor":"performance"}}`, true},
		"numbers keep their digits":   {"config: {a: 18446744073709551615}", `{"a":18446744073709551615}`, true},
		"nothing set":                 {"config: {}", `{}`, true},
		"text that looks like a time": {"config: {a: 2026-01-01, b: 2m}", `{"a":"2026-01-01","b":"2m"}`, true},
		"no configuration":            {"interfaces: []", "has no `config`; want a document such as `show` prints", false},
		"an empty configuration":      {"config:\n", "config: is empty; want the whole configuration, {} for one with nothing set", false},
		"something else beside it":    {"config: {}\nconfg: {}\n", "confg: is unknown; want config, and state", false},
		"a key twice":                 {"config:\n  a: 1\n  a: 2\n", "line 3, column 3: ", false},
		"no YAML":                     {"config: {", "line 1", false},
		"two documents":               {"config: {}\n---\nconfig: {}\n", "has more than one document; want one", false},
		"no document":                 {"", "is empty", false},
		"a list":                      {"[]", "has no `config`", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := osctl.ReadConfig("-", strings.NewReader(tt.text))
			if tt.ok && (err != nil || string(got) != tt.want) {
				t.Errorf("ReadConfig() = %s, %v; want %s", got, err, tt.want)
			}
			if !tt.ok && (err == nil || !strings.Contains(err.Error(), tt.want) || osctl.Code(err) != osctl.Mistake) {
				t.Errorf("ReadConfig() = %s, %v with status %d; want %q", got, err, osctl.Code(err), tt.want)
			}
		})
	}
}

func TestReadConfigFromFiles(t *testing.T) {
	name := filepath.Join(t.TempDir(), "doc.yaml")
	if _, err := osctl.ReadConfig(name, nil); err == nil || osctl.Code(err) != osctl.Mistake {
		t.Errorf("a file that is not there: %v", err)
	}
	if err := os.WriteFile(name, []byte("config: {a: 1}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := osctl.ReadConfig(name, nil); err != nil || string(got) != `{"a":1}` {
		t.Errorf("ReadConfig() = %s, %v", got, err)
	}
	if err := os.WriteFile(name, make([]byte, 1<<20+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := osctl.ReadConfig(name, nil); err == nil || !strings.Contains(err.Error(), "longer than 1 MiB") {
		t.Errorf("a file that is too long: %v", err)
	}
}

func FuzzReadConfig(f *testing.F) {
	f.Add("config: {a: [1, x, {b: null}]}\nstate: {}\n")
	f.Add(`{"config":{"a":1e3}}`)
	f.Add("config: &a [*a]")
	f.Add("? config\n: {}\n")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := osctl.ReadConfig("-", strings.NewReader(text))
		if err == nil && !json.Valid(got) {
			t.Errorf("ReadConfig(%q) = %q, which is no JSON", text, got)
		}
	})
}
