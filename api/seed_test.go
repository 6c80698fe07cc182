package api_test

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/incusos/incusos/api"
)

// blamed returns the field that err complains about, or what err says.
func blamed(err error) string {
	if fe, ok := errors.AsType[*api.FieldError](err); ok {
		return fe.Field
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

func TestSeedInstallValidate(t *testing.T) {
	tests := map[string]struct {
		target api.SeedInstallTarget
		field  string // "" means valid
	}{
		"nothing asked":            {api.SeedInstallTarget{}, ""},
		"everything asked":         {api.SeedInstallTarget{Bus: "nvme", ID: "x", MinSize: "1GiB", MaxSize: "2TiB", SortOrder: "smallest"}, ""},
		"a bus there is not":       {api.SeedInstallTarget{Bus: "sata"}, "target.bus"},
		"a size without a number":  {api.SeedInstallTarget{MinSize: "GiB"}, "target.min_size"},
		"a size of unknown unit":   {api.SeedInstallTarget{MaxSize: "4Ti"}, "target.max_size"},
		"a largest below smallest": {api.SeedInstallTarget{MinSize: "2GiB", MaxSize: "1GiB"}, "target.max_size"},
		"an order there is not":    {api.SeedInstallTarget{SortOrder: "big"}, "target.sort_order"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := blamed(api.SeedInstall{Target: &tt.target}.Validate()); got != tt.field {
				t.Errorf("Validate() blamed %q, want %q", got, tt.field)
			}
		})
	}
}

func TestSeedApplicationsValidate(t *testing.T) {
	tests := map[string]struct {
		names []string
		field string
	}{
		"one":              {[]string{"incus"}, ""},
		"none":             {nil, "applications"},
		"one without name": {[]string{""}, "applications[0].name"},
		"a path":           {[]string{"incus", "../incus"}, "applications[1].name"},
		"upper case":       {[]string{"Incus"}, "applications[0].name"},
		"one twice":        {[]string{"incus", "debug", "incus"}, "applications[2].name"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var doc api.SeedApplications
			for _, n := range tt.names {
				doc.Applications = append(doc.Applications, api.SeedApplication{Name: n})
			}
			if got := blamed(doc.Validate()); got != tt.field {
				t.Errorf("Validate() blamed %q, want %q", got, tt.field)
			}
		})
	}
}

func TestParseSize(t *testing.T) {
	tests := map[string]uint64{
		"0": 0, "512": 512, "1kB": 1000, "16GB": 16e9, "100GiB": 100 << 30, "4 TiB": 4 << 40, "7B": 7,
	}
	for text, want := range tests {
		if got, err := api.ParseSize(text); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "GiB", "-1GiB", "1.5GiB", "10G", "1gib", "16777216TiB", "99999999999999999999", "1 GiB x"} {
		if got, err := api.ParseSize(text); err == nil {
			t.Errorf("ParseSize(%q) = %d, want an error", text, got)
		}
	}
}

func TestSeedNetworkIsFlat(t *testing.T) {
	doc := api.SeedNetwork{Version: "1", NetworkConfig: api.NetworkConfig{DNS: api.NetworkDNS{Hostname: "node1"}}}
	got, err := json.Marshal(doc)
	if want := `{"version":"1","dns":{"hostname":"node1"}}`; err != nil || string(got) != want {
		t.Errorf("Marshal() = %s, %v; want %s", got, err, want)
	}
}
