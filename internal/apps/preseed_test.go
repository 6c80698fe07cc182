package apps

import (
	"errors"
	"reflect"
	"testing"

	"github.com/incusos/incusos/api"
)

type object = map[string]any

func TestParseRefuses(t *testing.T) {
	tests := map[string]struct {
		preseed object
		field   string
	}{
		"a key of a later release":    {object{"storage_volumes": []any{}}, "preseed.storage_volumes"},
		"a misspelt field":            {object{"networks": []any{object{"nmae": "x"}}}, "preseed.networks[0].nmae"},
		"an item without a name":      {object{"profiles": []any{object{"name": "a"}, object{}}}, "preseed.profiles[1].name"},
		"a mapping for a list":        {object{"networks": object{}}, "preseed.networks"},
		"text for an item":            {object{"networks": []any{"x"}}, "preseed.networks[0]"},
		"a list for the config":       {object{"config": []any{}}, "preseed.config"},
		"a list for a value":          {object{"config": object{"a.b": []any{}}}, "preseed.config.a.b"},
		"a certificate that is none":  {object{"certificates": []any{object{"certificate": "x"}}}, "preseed.certificates[0].certificate"},
		"a device that is no mapping": {object{"profiles": []any{object{"name": "a", "devices": object{"root": "x"}}}}, "preseed.profiles[0].devices.root"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := parse(api.SeedIncus{Preseed: tt.preseed})
			got := ""
			if fe, ok := errors.AsType[*api.FieldError](err); ok {
				got = fe.Field
			}
			if got != tt.field {
				t.Errorf("parse() blamed field %q, want %q (error: %v)", got, tt.field, err)
			}
		})
	}
}

func TestSeedLiesOverDefaults(t *testing.T) {
	p, err := parse(api.SeedIncus{ApplyDefaults: true, Preseed: object{
		"config":        object{"core.https_address": "[::]:443", "a": true, "b": 1.5, "c": 1e6, "d": nil},
		"networks":      []any{object{"name": "incusbr0", "config": object{"ipv4.address": "192.0.2.1/24", "ipv4.nat": true}}},
		"storage_pools": []any{object{"name": "fast", "driver": "zfs", "config": object{"source": "fast/incus"}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	want := preseed{
		config: object{"core.https_address": "[::]:443", "a": "true", "b": "1.5", "c": "1000000", "d": ""},
		items: map[string][]item{
			"projects":      nil,
			"certificates":  nil,
			"storage_pools": {{"name": "fast", "driver": "zfs", "config": object{"source": "fast/incus"}}},
			"networks": {{
				"name": "incusbr0", "type": "bridge", "description": "Local network bridge (NAT)",
				"config": object{"ipv4.address": "192.0.2.1/24", "ipv4.nat": "true", "ipv6.address": "auto"},
			}},
			"profiles": {{
				"name": "default", "description": "Default Incus profile",
				"devices": object{"eth0": object{"type": "nic", "name": "eth0", "network": "incusbr0"}},
			}},
		},
	}
	if !reflect.DeepEqual(p, want) {
		t.Errorf("got:\n%v\nwant:\n%v", p, want)
	}
}

func TestWithoutDefaults(t *testing.T) {
	p, err := parse(api.SeedIncus{})
	if err != nil {
		t.Fatal(err)
	}
	if want := (object{"core.https_address": ":8443"}); !reflect.DeepEqual(p.config, want) {
		t.Errorf("config %v, want %v", p.config, want)
	}
	for key, items := range p.items {
		if len(items) != 0 {
			t.Errorf("%s: %v, want none", key, items)
		}
	}
}

func TestRandomIPv6IsUniqueLocal(t *testing.T) {
	s, err := randomIPv6()
	if err != nil || s[:2] != "fd" || s[len(s)-6:] != "::1/64" {
		t.Errorf("randomIPv6() = %q, %v; want fd...::1/64", s, err)
	}
}
