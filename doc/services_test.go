package doc_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"regexp"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/incusos/incusos/internal/change"
	"github.com/incusos/incusos/internal/service"
	"github.com/incusos/incusos/internal/sys/systest"
)

// shownService is a document in the page about services: a block of YAML with the
// name of the service first.
var shownService = regexp.MustCompile("(?ms)^```yaml\n# ([a-z]+)\n(.*?)^```$")

// TestServicesInPages decodes the documents the way the API does, and has each
// planned.
func TestServicesInPages(t *testing.T) {
	m := systest.Sensible()
	m.Drives = append(m.Drives, systest.Drive{Name: "sdb", ID: "wwn-0x600508b4000156d7", Size: 1 << 30})
	s := service.New(systest.New(t, m).Host, service.Options{
		Gate: change.NewGate(nil), Cluster: func() []string { return []string{"192.0.2.10/24"} },
	})
	blocks := shownService.FindAllStringSubmatch(read(t, "how-to/services.md"), -1)
	if len(blocks) < 7 {
		t.Errorf("%d documents are shown, want one for each service at least", len(blocks))
	}
	for _, block := range blocks {
		config, err := s.New(block[1])
		if err != nil {
			t.Error(err)
			continue
		}
		if err := decodeConfig([]byte(block[2]), config); err != nil {
			t.Errorf("%s: %v", block[1], err)
			continue
		}
		if p, err := s.Plan(t.Context(), block[1], config); err != nil || p.Empty() {
			t.Errorf("%s: Plan() = %v, %v; want something to do", block[1], p, err)
		}
	}
}

// decodeConfig decodes a document with a configuration of the type of config.
func decodeConfig(text []byte, config any) error {
	raw, err := yaml.YAMLToJSON(text)
	if err != nil {
		return err
	}
	doc := reflect.New(reflect.StructOf([]reflect.StructField{{Name: "Config", Type: reflect.TypeOf(config), Tag: `json:"config"`}}))
	doc.Elem().Field(0).Set(reflect.ValueOf(config))
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(doc.Interface()); err != nil {
		return err
	}
	return config.(interface{ Validate() error }).Validate()
}
