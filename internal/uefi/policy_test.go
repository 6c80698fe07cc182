package uefi_test

import (
	"bytes"
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"github.com/incusos/incusos/internal/uefi"
)

// TestPoliciesAreThoseOfATPM compares with what swtpm 0.10 reckoned in a trial
// session, asked by tpm2_policyauthorize, tpm2_policypcr and tpm2_policyauthvalue.
func TestPoliciesAreThoseOfATPM(t *testing.T) {
	pem, err := os.ReadFile("testdata/policy/key.pem")
	if err != nil {
		t.Fatal(err)
	}
	key, err := uefi.PublicKey(append(pem, 0, 0)) // sections of a UKI may have zeros behind
	if err != nil {
		t.Fatal(err)
	}
	signed, err := uefi.PCRPolicy{}.PCR(4, [32]byte{1}).Authorized(key)
	if err != nil {
		t.Fatal(err)
	}
	seven := [32]byte(bytes.Repeat([]byte{7}, 32))
	tests := map[string]struct {
		policy uefi.PCRPolicy
		want   string
	}{
		"PCR 7":                             {uefi.PCRPolicy{}.PCR(7, seven), "558849a0429135265c3dd6805ac252c2eca1ee7604742129c96f58d8821c2a89"},
		"signed":                            {signed, "61d5ef4c1034f6be283fda4793b96f2fe7f7913af246cb98091b77317626e815"},
		"signed, and PCR 7":                 {signed.PCR(7, seven), "89cb3678cd9dedfc6fd48f8a7565dde4d3a567b967f006a40e07c09338bd4da1"},
		"signed, and PCR 7, and with a PIN": {signed.PCR(7, seven).AuthValue(), "153a08d44a152586cb16489f73a0f2e4b0471d2af0887b6b395c1a3c855949a9"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := tt.policy.Digest(); hex.EncodeToString(got[:]) != tt.want {
				t.Errorf("policy is %x, want %s", got, tt.want)
			}
		})
	}
}

func TestPublicKeySaysWhatItWants(t *testing.T) {
	for text, want := range map[string]string{
		"":      "no public key in PEM",
		"hello": "no public key in PEM",
		"-----BEGIN PUBLIC KEY-----\nMCow\n-----END PUBLIC KEY-----\n": "public key: ",
	} {
		if _, err := uefi.PublicKey([]byte(text)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("of %q: said %v, want %q", text, err, want)
		}
	}
}
