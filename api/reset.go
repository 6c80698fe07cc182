package api

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
)

// A SystemReset is the request to make the machine as it was first installed.
type SystemReset struct {
	AllowTPMResetFailure bool                       `json:"allow_tpm_reset_failure,omitempty"` // go on when the TPM cannot be cleared; here nothing in it needs clearing
	Seeds                map[string]json.RawMessage `json:"seeds,omitempty"`                   // sections for the next first start
	WipeExistingSeeds    bool                       `json:"wipe_existing_seeds,omitempty"`     // instead of adding to those of the medium
}

// Validate reports the first thing in r that cannot work, as a FieldError. What
// the sections may be is known to the reader of seeds.
func (r SystemReset) Validate() error {
	for _, name := range slices.Sorted(maps.Keys(r.Seeds)) {
		if !bytes.HasPrefix(bytes.TrimSpace(r.Seeds[name]), []byte("{")) {
			return Fieldf("seeds."+name, "is no object; want the document of the section, such as {}")
		}
	}
	return nil
}
