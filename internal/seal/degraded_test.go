package seal_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/seal"
	"github.com/incusos/incusos/internal/sys/systest"
)

// insecure is a machine that was installed to do without Secure Boot.
func insecure(t *testing.T) (*systest.Rig, *systest.Trust, *seal.Seal) {
	t.Helper()
	m := systest.Sensible()
	m.SecureBoot, m.Lacks = "off", string(seal.NoSecureBoot)
	rig := systest.New(t, m)
	trust, err := systest.NewTrust(rig)
	if err != nil {
		t.Fatal(err)
	}
	return rig, trust, seal.New(rig.Host, func() bool { return true })
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestWithoutSecureBootRootIsBoundToPrograms(t *testing.T) {
	rig, trust, s := insecure(t)
	restart(t, trust, "tpm") // as the first start bound it
	must(t, s.Reconcile(t.Context()))
	h, err := trust.Header()
	must(t, err)
	if n := len(h.TPM2Tokens()); n != 1 {
		t.Fatalf("root is bound %d times, want once", n)
	}
	if b := h.TPM2Tokens()[0].TPM2; !slices.Equal(b.PCRs, []int{2, 4, 7, 11, 12, 13, 15}) || len(b.PublicKey) > 0 {
		t.Errorf("root is bound to PCRs %v and a signature of %v", b.PCRs, b.SignedPCRs)
	}
	restart(t, trust, "tpm")
	if d := examine(t, anew(t, rig)); !d.Unlocks || d.Kernels[0].PCR4 == "" || len(d.Findings) != 1 || !strings.HasPrefix(d.Findings[0].What, "Secure Boot is off, as the machine was installed") {
		t.Errorf("the doctor says %q, PCR 4 %q, %+v", d.Verdict, d.Kernels[0].PCR4, d.Findings)
	}
}

// What somebody could change without Secure Boot, the TPM sees.
func TestWithoutSecureBootChangesDoNotUnlock(t *testing.T) {
	stranger := signer(t, "stranger")
	for name, change := range map[string]func(*testing.T, *systest.Rig, *systest.Trust){
		"another kernel image of ours": func(t *testing.T, _ *systest.Rig, m *systest.Trust) {
			t.Helper()
			must(t, m.PutKernel("202609090000", pretendSigner(t, "db")))
		},
		"a kernel image by a stranger": func(t *testing.T, _ *systest.Rig, m *systest.Trust) {
			t.Helper()
			must(t, m.PutKernel("202601010000", stranger))
			must(t, m.PutKernel("202602020000", stranger))
		},
		"a driver":                    func(_ *testing.T, _ *systest.Rig, m *systest.Trust) { m.Measure(2, "a driver") },
		"another program before ours": func(_ *testing.T, _ *systest.Rig, m *systest.Trust) { m.Measure(4, "a program") },
		"another command line":        func(_ *testing.T, _ *systest.Rig, m *systest.Trust) { m.Measure(12, "init=/bin/sh") },
		"an extension of the initrd":  func(_ *testing.T, _ *systest.Rig, m *systest.Trust) { m.Measure(13, "extension") },
		"Secure Boot on":              func(t *testing.T, _ *systest.Rig, m *systest.Trust) { t.Helper(); must(t, m.TurnSecureBootOn()) },
	} {
		t.Run(name, func(t *testing.T) {
			rig, trust, s := insecure(t)
			must(t, s.Reconcile(t.Context()))
			restart(t, trust, "tpm")
			change(t, rig, trust)
			restart(t, trust, "recovery key")
		})
	}
}

// An update is provided for, and what was before it may be gone back to, once.
func TestWithoutSecureBootUpdatesUnlock(t *testing.T) {
	rig, trust, s := insecure(t)
	const first, second, third = "202601010000", "202602020000", "202603030000"
	must(t, s.Reconcile(t.Context()))
	for _, version := range []string{second, third} {
		s = anew(t, rig)
		b := image(t, rig, trust, version)
		must(t, s.Provide(t.Context(), bytes.NewReader(b), int64(len(b))))
		if version == third {
			drop(t, rig, first)
		}
		put(t, rig, version, b)
		must(t, s.Reconcile(t.Context()))
		if d := examine(t, s); !d.Unlocks {
			t.Errorf("the doctor says %q", d.Verdict)
		}
		restart(t, trust, "tpm")
		must(t, anew(t, rig).Reconcile(t.Context()))
	}
	old := image(t, rig, trust, first)
	drop(t, rig, third)
	restart(t, trust, "tpm") // back to the second
	drop(t, rig, second)
	put(t, rig, first, old)
	restart(t, trust, "recovery key")
}

func TestWithoutSecureBootUpdatesAreOurs(t *testing.T) {
	rig, trust, s := insecure(t)
	must(t, s.Reconcile(t.Context()))
	must(t, trust.PutKernel("202602020000", signer(t, "stranger")))
	b, err := rig.Host.Files.ReadFile(systest.ESP + "/EFI/Linux/IncusOS_202602020000.efi")
	must(t, err)
	if err := s.Provide(t.Context(), bytes.NewReader(b), int64(len(b))); err == nil || !strings.Contains(err.Error(), `signed by "CN=stranger", which this image has no certificate of`) {
		t.Errorf("Provide() = %v", err)
	}
}

// Once a machine was without, it says so for good, and goes on all the same.
func TestDistrustStays(t *testing.T) {
	rig, trust, s := insecure(t)
	must(t, s.Reconcile(t.Context()))
	state, err := s.State()
	must(t, err)
	if state.SystemStateIsTrusted || state.SystemStateStatus != "Secure Boot is disabled" || state.TPMStatus != api.TPMOK || state.SecureBootEnabled {
		t.Errorf("the state is %+v", state)
	}
	if got := s.Alarms(); len(got) != 1 || !strings.HasPrefix(got[0], "Secure Boot is off") {
		t.Errorf("alarms are %q", got)
	}
	if err := s.SetPIN(t.Context(), "correct-9"); kind(err) != api.Conflict {
		t.Errorf("SetPIN() = %v, want that it is refused", err)
	}
	must(t, trust.TurnSecureBootOn())
	restart(t, trust, "recovery key")
	s = anew(t, rig)
	must(t, s.Rebind(t.Context(), ""))
	restarted(t, rig, trust, "tpm")
	must(t, s.Reconcile(t.Context()))
	if state, err = s.State(); err != nil || state.SystemStateIsTrusted || state.SystemStateStatus != "Secure Boot was off at an earlier start" || !state.SecureBootEnabled {
		t.Errorf("with Secure Boot the state is %+v, %v", state, err)
	}
	if got := s.Alarms(); got != nil {
		t.Errorf("alarms are %q, want none", got)
	}
}

func TestCheckPrograms(t *testing.T) {
	stranger := signer(t, "stranger")
	tests := map[string]struct {
		before func(*testing.T, *systest.Rig, *systest.Trust) // the start
		after  func(*testing.T, *systest.Rig, *systest.Trust)
		want   string
	}{
		"all as it should be": {nil, nil, ""},
		"a loader by a stranger": {func(t *testing.T, _ *systest.Rig, m *systest.Trust) { t.Helper(); must(t, m.PutLoader(stranger)) }, nil,
			`/EFI/BOOT/BOOTX64.EFI: it is signed by "CN=stranger", which this image has no certificate of`},
		"a kernel image by nobody": {func(t *testing.T, _ *systest.Rig, m *systest.Trust) {
			t.Helper()
			must(t, m.PutKernel("202601010000"))
		}, nil, "/EFI/Linux/IncusOS_202601010000.efi: nobody has signed it"},
		"another one put back": {nil, func(t *testing.T, rig *systest.Rig, _ *systest.Trust) {
			t.Helper()
			must(t, rig.Host.Files.WriteFile(systest.ESP+"/EFI/Linux/IncusOS_202601010000.efi", []byte("MZ"), 0o600))
		}, "the firmware started /EFI/Linux/IncusOS_202601010000.efi, which is not on the boot partition in that form"},
		"a log that lies": {nil, func(t *testing.T, rig *systest.Rig, _ *systest.Trust) {
			t.Helper()
			must(t, rig.Host.Files.WriteFile("/sys/class/tpm/tpm0/pcr-sha256/4", []byte(strings.Repeat("11", 32)), 0o600))
		}, "what was started cannot be told: the event log does not lead to what the TPM holds in PCR 4"},
		"no certificates": {nil, func(t *testing.T, rig *systest.Rig, _ *systest.Trust) {
			t.Helper()
			must(t, rig.Host.Files.RemoveAll("/usr/lib/verity.d"))
		}, "reading the certificates of the image"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			rig, trust, _ := insecure(t)
			if tt.before != nil {
				tt.before(t, rig, trust)
				_, err := trust.Restart()
				must(t, err)
			}
			if tt.after != nil {
				tt.after(t, rig, trust)
			}
			err := seal.CheckPrograms(rig.Host, "/dev/vda1", "/usr/lib/verity.d")
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("CheckPrograms() = %v, want %q", err, tt.want)
			}
			if table := rig.Mounts.Table(); len(table) != 0 {
				t.Errorf("left mounted: %q", table)
			}
		})
	}
}

func TestMarksAreForgottenWhereNothingLacks(t *testing.T) {
	for lacks, stays := range map[seal.Lack]bool{"": false, seal.NoSecureBoot: true} {
		rig := systest.New(t, systest.Sensible())
		must(t, rig.Host.Files.WriteFile(systest.ESP+"/sb-disabled", nil, 0o600))
		must(t, seal.Forget(rig.Host, "/dev/vda1", lacks))
		if marked, err := seal.ReadMark(rig.Host, "/dev/vda1", seal.NoSecureBoot); err != nil || marked != stays {
			t.Errorf("without %q it is marked: %v, %v; want %v", lacks, marked, err, stays)
		}
	}
}
