package api

import "encoding/json"

// A SystemReset is the request to make the machine as it was first installed.
type SystemReset struct {
	AllowTPMResetFailure bool                       `json:"allow_tpm_reset_failure,omitempty"` // go on when the TPM cannot be cleared
	Seeds                map[string]json.RawMessage `json:"seeds,omitempty"`                   // sections for the next first start
	WipeExistingSeeds    bool                       `json:"wipe_existing_seeds,omitempty"`     // instead of adding to those of the medium
}
