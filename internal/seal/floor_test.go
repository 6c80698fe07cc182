package seal_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/incusos/incusos/internal/seal"
	"github.com/incusos/incusos/internal/sys/systest"
)

// anew is the daemon after a restart: what it had in memory is gone, and /run is new.
func anew(t *testing.T, rig *systest.Rig) *seal.Seal {
	t.Helper()
	for _, file := range []string{"rebound", "provided"} {
		if err := rig.Host.Files.RemoveAll("/run/incus-os/" + file); err != nil {
			t.Fatal(err)
		}
	}
	return seal.New(rig.Host, func() bool { return true })
}

// image returns the kernel image of a version, which is not left on the boot partition.
func image(t *testing.T, rig *systest.Rig, trust *systest.Trust, version string) []byte {
	t.Helper()
	if err := trust.PutKernel(version, pretendSigner(t, "db")); err != nil {
		t.Fatal(err)
	}
	name := systest.ESP + "/EFI/Linux/IncusOS_" + version + ".efi"
	b, err := rig.Host.Files.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := rig.Host.Files.Remove(name); err != nil {
		t.Fatal(err)
	}
	return b
}

func put(t *testing.T, rig *systest.Rig, version string, b []byte) {
	t.Helper()
	if err := rig.Host.Files.WriteFile(systest.ESP+"/EFI/Linux/IncusOS_"+version+".efi", b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func drop(t *testing.T, rig *systest.Rig, version string) {
	t.Helper()
	if err := rig.Host.Files.Remove(systest.ESP + "/EFI/Linux/IncusOS_" + version + ".efi"); err != nil {
		t.Fatal(err)
	}
}

// A machine goes to a new version and may go back to the one before; one before that, or
// any other that we have signed, does not get the key of root.
func TestOlderReleasesDoNotUnlock(t *testing.T) {
	rig, trust, s := trusted(t)
	const first, second, third, fresh = "202601010000", "202602020000", "202603030000", "202609090000"
	if err := s.Reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	put(t, rig, fresh, image(t, rig, trust, fresh)) // signed by us, and no update
	restart(t, trust, "recovery key")
	if d := examine(t, anew(t, rig)); d.Unlocks || !strings.Contains(d.Verdict, "root is not bound to this kernel image (PCR 11)") {
		t.Errorf("the doctor says %q", d.Verdict)
	}
	drop(t, rig, fresh)
	restart(t, trust, "tpm")
	old, err := rig.Host.Files.ReadFile(systest.ESP + "/EFI/Linux/IncusOS_" + first + ".efi")
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{second, third} {
		s = anew(t, rig)
		b := image(t, rig, trust, version)
		if err := s.Provide(t.Context(), bytes.NewReader(b), int64(len(b))); err != nil {
			t.Fatal(err)
		}
		if version == third {
			drop(t, rig, first) // as the update does
		}
		put(t, rig, version, b)
		if err := s.Reconcile(t.Context()); err != nil {
			t.Fatal(err)
		}
		restart(t, trust, "tpm")
		if err := anew(t, rig).Reconcile(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	drop(t, rig, third)
	restart(t, trust, "tpm") // back to the second
	drop(t, rig, second)
	put(t, rig, first, old)
	restart(t, trust, "recovery key")
}

// A kernel image that was damaged is bound to no more after a start, and a machine says so
// before it goes back to it. Mended, it is bound to again.
func TestMendedImagesUnlock(t *testing.T) {
	rig, trust, s := trusted(t)
	const first, second = "202601010000", "202602020000"
	if err := s.Reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	old, err := rig.Host.Files.ReadFile(systest.ESP + "/EFI/Linux/IncusOS_" + first + ".efi")
	if err != nil {
		t.Fatal(err)
	}
	b := image(t, rig, trust, second)
	if err := s.Provide(t.Context(), bytes.NewReader(b), int64(len(b))); err != nil {
		t.Fatal(err)
	}
	put(t, rig, second, b)
	restart(t, trust, "tpm")
	s = anew(t, rig)
	unlocks := func() error { return s.Unlocks(bytes.NewReader(old), int64(len(old))) }
	if err := unlocks(); err != nil {
		t.Errorf("the version before: %v", err)
	}
	damaged := bytes.Replace(old, []byte("pretend kernel"), []byte("damaged kernel"), 1)
	if bytes.Equal(damaged, old) {
		t.Fatal("the image has nothing to damage")
	}
	put(t, rig, first, damaged)
	restart(t, trust, "tpm")
	s = anew(t, rig)
	if err := s.Reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := unlocks(); err == nil || !strings.Contains(err.Error(), "would not unlock root: ") {
		t.Errorf("the version before, after it was damaged: %v", err)
	}
	if err := s.Provide(t.Context(), bytes.NewReader(old), int64(len(old))); err != nil {
		t.Fatal(err)
	}
	put(t, rig, first, old)
	if err := unlocks(); err != nil {
		t.Errorf("the version before, mended: %v", err)
	}
	drop(t, rig, second)
	restart(t, trust, "tpm")
}

// A machine that was bound to signatures alone, as the first start makes it, keeps the
// image that it may go back to.
func TestSignaturesAreReplacedForBothSlots(t *testing.T) {
	rig, trust, s := trusted(t)
	const second = "202602020000"
	put(t, rig, second, image(t, rig, trust, second))
	restart(t, trust, "tpm")
	if err := s.Reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	h, err := trust.Header()
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range h.TPM2Tokens() {
		if len(token.TPM2.PublicKey) > 0 || len(token.TPM2.PCRs) != 3 {
			t.Errorf("root is bound to PCRs %v, and a signature of %v", token.TPM2.PCRs, token.TPM2.SignedPCRs)
		}
	}
	drop(t, rig, second)
	restart(t, trust, "tpm")
}

// Where PCR 11 is not what the image comes to, root stays bound to signatures.
func TestUnknownImagesStayBoundToSignatures(t *testing.T) {
	rig, trust, s := trusted(t)
	if err := rig.Host.Files.WriteFile("/sys/class/tpm/tpm0/pcr-sha256/11", []byte(strings.Repeat("11", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	h, err := trust.Header()
	if err != nil || len(h.TPM2Tokens()) != 1 || len(h.TPM2Tokens()[0].TPM2.PublicKey) == 0 {
		t.Errorf("root is bound by %+v, %v", h.TPM2Tokens(), err)
	}
	restart(t, trust, "tpm")
}
