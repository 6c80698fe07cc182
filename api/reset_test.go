package api_test

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/incusos/incusos/api"
)

func TestSystemResetValidate(t *testing.T) {
	tests := map[string]struct{ seeds, field string }{
		"none":          {`{}`, ""},
		"objects":       {`{"incus": {}, "network": { "dns": {} }}`, ""},
		"null":          {`{"incus": null}`, "seeds.incus"},
		"a text":        {`{"a": {}, "network": "dns: {}"}`, "seeds.network"},
		"a list":        {`{"services": []}`, "seeds.services"},
		"the first one": {`{"b": 1, "a": 2}`, "seeds.a"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var r api.SystemReset
			if err := json.Unmarshal([]byte(tt.seeds), &r.Seeds); err != nil {
				t.Fatal(err)
			}
			field := ""
			if e, ok := errors.AsType[*api.FieldError](r.Validate()); ok {
				field = e.Field
			}
			if field != tt.field {
				t.Errorf("Validate() blamed %q, want %q", field, tt.field)
			}
		})
	}
}
