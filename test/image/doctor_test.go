//go:build vm

package image_test

import (
	"bytes"
	"testing"

	"github.com/incusos/incusos/internal/uefi"
)

// testMeasured compares what the doctor of a machine makes of the UKI with what this
// package makes of it by itself: PCR 11 in the initrd, that the image's own key allows
// it there and at no other time, and who has signed it.
func testMeasured(t *testing.T, b *built) {
	content := readFile(t, b.UKI)
	p, err := uefi.OpenProgram(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	value, err := uefi.MeasureUKI(p, uefi.PhaseInitrd)
	if want := b.pcr11(uefi.PhaseInitrd); err != nil || value != want {
		t.Errorf("PCR 11 is measured as %x, %v; want %x", value, err, want)
	}
	later, err := uefi.MeasureUKI(p, uefi.PhaseInitrd, "leave-initrd")
	if err != nil {
		t.Fatal(err)
	}
	policies, err := uefi.SignedPolicies(p)
	if err != nil || len(policies) != 1 {
		t.Fatalf("%d policies, %v; want one", len(policies), err)
	}
	key, err := uefi.PublicKey(b.sections[".pcrpkey"])
	if err != nil {
		t.Fatal(err)
	}
	if !policies[0].Allows(value, key) || policies[0].Allows(later, key) {
		t.Error("the policy is not for the initrd, or not for it alone")
	}
	signers, err := p.Signers()
	if err != nil || len(signers) != 1 {
		t.Errorf("%d have signed the UKI, %v; want one", len(signers), err)
	}
}
