package doc_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/seed"
	"github.com/incusos/incusos/internal/sys/systest"
)

// decode reads files by their names the way an install medium does.
func decode(t *testing.T, files map[string]string) error {
	t.Helper()
	rig := systest.New(t, systest.Sensible())
	if err := systest.WriteSeed(rig.Host.Files, files); err != nil {
		t.Fatal(err)
	}
	s, err := seed.Open(rig.Host)
	if err != nil {
		return err
	}
	return s.Check()
}

// TestExamples decodes each directory of examples, which is a whole seed.
func TestExamples(t *testing.T) {
	dirs, err := os.ReadDir("examples")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		t.Run(d.Name(), func(t *testing.T) {
			names, err := filepath.Glob(filepath.Join("examples", d.Name(), "*"))
			if err != nil || len(names) == 0 {
				t.Fatalf("examples/%s is no seed: %d files, %v", d.Name(), len(names), err)
			}
			files := make(map[string]string)
			for _, name := range names {
				files[filepath.Base(name)] = read(t, name)
			}
			if err := decode(t, files); err != nil {
				t.Error(err)
			}
		})
	}
}

// shown is a seed in a page: a block of YAML with the name of its file first.
var shown = regexp.MustCompile("(?ms)^```yaml\n# ([a-z-]+\\.(?:yaml|json))\n(.*?)^```$")

func TestSeedsInPages(t *testing.T) {
	count := 0
	err := filepath.WalkDir(".", func(name string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(name, ".md") {
			return err
		}
		for _, block := range shown.FindAllStringSubmatch(read(t, name), -1) {
			count++
			if err := decode(t, map[string]string{block[1]: block[2]}); err != nil {
				t.Errorf("%s: the block that begins with %q: %v", name, "# "+block[1], err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if count == 0 {
		t.Error("no page shows a seed; has the form of the blocks changed?")
	}
}

// sent is a document of the API in a page: a block of YAML with its name first.
var sent = regexp.MustCompile("(?ms)^```yaml\n# (system/[a-z-]+)\\.yaml\n(.*?)^```$")

func TestDocumentsInPages(t *testing.T) {
	count := 0
	err := filepath.WalkDir(".", func(name string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(name, ".md") {
			return err
		}
		for _, block := range sent.FindAllStringSubmatch(read(t, name), -1) {
			count++
			if err := decodeDocument(block[1], block[2]); err != nil {
				t.Errorf("%s: the block that begins with %q: %v", name, "# "+block[1], err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if count == 0 {
		t.Error("no page shows a document; has the form of the blocks changed?")
	}
	for name, text := range map[string]string{
		"system/kernel":  "config: {cpus: {}}",
		"system/logging": "config: {syslog: {address: logs}}",
		"system/colour":  "config: {}",
	} {
		if err := decodeDocument(name, text); err == nil {
			t.Errorf("%s with %q was accepted", name, text)
		}
	}
}

// decodeDocument reads a document the way the API does, strictly, and checks its
// configuration.
func decodeDocument(name, text string) error {
	switch name {
	case "system/kernel":
		return decodeInto[api.SystemKernelConfig](text)
	case "system/logging":
		return decodeInto[api.SystemLoggingConfig](text)
	case "system/network":
		return decodeInto[api.NetworkConfig](text)
	case "system/provider":
		return decodeInto[api.SystemProviderConfig](text)
	case "system/update":
		return decodeInto[api.SystemUpdateConfig](text)
	case "system/storage":
		return decodeInto[api.SystemStorageConfig](text)
	}
	return fmt.Errorf("there is no document %s", name)
}

func decodeInto[C interface{ Validate() error }](text string) error {
	b, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		return err
	}
	var doc struct {
		Config C `json:"config"`
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&doc); err != nil {
		return err
	}
	return doc.Config.Validate()
}

func TestMistakesInExamplesAreNoticed(t *testing.T) {
	for file, content := range map[string]string{
		"install.yaml":  "forse_install: true\n",
		"network.yaml":  "interfaces: [{name: a, hwaddr: enp1s0, mtu: 1}]\n",
		"instal.yaml":   "",
		"kernel.yaml":   "memory: {persistent_hugepages: -1}\n",
		"logging.yaml":  "syslog: {address: logs.example.net}\n",
		"update.yaml":   "check_frequency: often\n",
		"provider.yaml": "config: {server_url: updates.example.net}\n",
	} {
		if err := decode(t, map[string]string{file: content}); err == nil {
			t.Errorf("%s with %q was accepted", file, content)
		}
	}
}

// link is a link of Markdown to a file of this tree.
var link = regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`)

// TestLinks looks for pages that point nowhere.
func TestLinks(t *testing.T) {
	var pages []string
	err := filepath.WalkDir(".", func(name string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(name, ".md") {
			pages = append(pages, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	outside, err := filepath.Glob("../*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range append(append(pages, outside...), "../image/README.md", "../changelog.d/README.md") {
		for _, found := range link.FindAllStringSubmatch(read(t, page), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), found[1])); err != nil {
				t.Errorf("%s points to %s, which is not there", page, found[1])
			}
		}
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
