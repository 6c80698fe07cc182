package seal_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/seal"
	"github.com/incusos/incusos/internal/sys/systest"
)

const (
	keptTPM   = systest.ESP + "/swtpm/tpm2-00.permall"
	ranKernel = "/EFI/Linux/IncusOS_202601010000.efi"
)

// tpmless is a machine without a TPM, in its initrd.
func tpmless(t *testing.T) *systest.Rig {
	t.Helper()
	m := systest.Sensible()
	m.TPM = false
	rig := systest.New(t, m)
	_, err := systest.NewTrust(rig)
	must(t, err)
	systest.NewSoftwareTPM(rig)
	must(t, systest.StartedImage(rig.Host.Files, ranKernel))
	return rig
}

// off switches a machine off: what is in memory is gone.
func off(t *testing.T, rig *systest.Rig) {
	t.Helper()
	must(t, rig.Host.Units.Stop(t.Context(), "incus-os-swtpm.service"))
	must(t, rig.Host.Files.RemoveAll("/run/incus-os/swtpm"))
	must(t, rig.Host.Files.RemoveAll("/run/incus-os/measured.log"))
}

func content(t *testing.T, rig *systest.Rig, name string) string {
	t.Helper()
	b, err := rig.Host.Files.ReadFile(name)
	must(t, err)
	return string(b)
}

// The registers are those of the same machine with a TPM, whose firmware and boot loader
// measure by themselves; of PCR 4 firmware writes down an action more.
func TestSoftwareTPMKnowsHowTheMachineWasStarted(t *testing.T) {
	rig := tpmless(t)
	warning, err := seal.StartSoftwareTPM(t.Context(), rig.Host, "/dev/vda1", true)
	must(t, err)
	if warning != "" {
		t.Errorf("it warns %q", warning)
	}
	real, _, _ := trusted(t)
	for _, pcr := range []int{7, 11} {
		register := fmt.Sprintf("/sys/class/tpm/tpm0/pcr-sha256/%d", pcr)
		if got, want := content(t, rig, register), content(t, real, register); got != want {
			t.Errorf("PCR %d is %s, with a TPM it is %s", pcr, got, want)
		}
	}
	if got := content(t, rig, keptTPM); got != "pretend TPM 1\nkey 81000001\n" {
		t.Errorf("kept is %q, want the new TPM with its primary key", got)
	}
	if left := rig.Mounts.Table(); len(left) != 0 {
		t.Errorf("left mounted: %q", left)
	}
}

// The boot loader counts tries in the name of the kernel image, and says the one of before
// or after that.
func TestSoftwareTPMKnowsAnImageOnTrial(t *testing.T) {
	rig := tpmless(t)
	must(t, rig.Host.Files.Rename(systest.ESP+ranKernel, systest.ESP+"/EFI/Linux/IncusOS_202601010000+2-1.efi"))
	for _, name := range []string{"IncusOS_202601010000+2-1.efi", "IncusOS_202601010000+3.efi", "IncusOS_202601010000.efi"} {
		must(t, systest.StartedImage(rig.Host.Files, "/EFI/Linux/"+name))
		if _, err := seal.StartSoftwareTPM(t.Context(), rig.Host, "/dev/vda1", false); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSoftwareTPMIsTheSameAtEachStart(t *testing.T) {
	rig := tpmless(t)
	_, err := seal.StartSoftwareTPM(t.Context(), rig.Host, "/dev/vda1", true)
	must(t, err)
	kept := content(t, rig, keptTPM)
	for range 2 {
		off(t, rig)
		warning, err := seal.StartSoftwareTPM(t.Context(), rig.Host, "/dev/vda1", false)
		must(t, err)
		if warning != "" || content(t, rig, keptTPM) != kept || content(t, rig, "/dev/tpmrm0") != "pretend TPM 1" {
			t.Errorf("it warns %q, %q is kept, and it is %q", warning, content(t, rig, keptTPM), content(t, rig, "/dev/tpmrm0"))
		}
	}
	must(t, seal.LeaveInitrd(rig.Host))
	off(t, rig)
	_, err = seal.StartSoftwareTPM(t.Context(), rig.Host, "/dev/vda1", true) // after a factory reset
	must(t, err)
	if got := content(t, rig, keptTPM); got == kept {
		t.Error("at a first start it is the one of before")
	}
}

// Whatever became of what it kept, the machine goes on to where a recovery key is asked for.
func TestSoftwareTPMThatIsLostIsMadeAnew(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(*testing.T, *systest.Rig)
		want  string
	}{
		"lost":    {func(t *testing.T, rig *systest.Rig) { t.Helper(); must(t, rig.Host.Files.Remove(keptTPM)) }, "is gone from the boot partition"},
		"damaged": {func(t *testing.T, rig *systest.Rig) { t.Helper(); write(t, rig, keptTPM, "damaged") }, "is damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			rig := tpmless(t)
			_, err := seal.StartSoftwareTPM(t.Context(), rig.Host, "/dev/vda1", true)
			must(t, err)
			off(t, rig)
			tt.spoil(t, rig)
			warning, err := seal.StartSoftwareTPM(t.Context(), rig.Host, "/dev/vda1", false)
			must(t, err)
			if !strings.Contains(warning, tt.want) || content(t, rig, keptTPM) != "pretend TPM 2\nkey 81000001\n" {
				t.Errorf("it warns %q, and keeps %q", warning, content(t, rig, keptTPM))
			}
		})
	}
}

func TestSoftwareTPMOfAnUnknownStartIsRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*testing.T, *systest.Rig)
		want   string
	}{
		"another kernel image": {func(t *testing.T, rig *systest.Rig) {
			t.Helper()
			must(t, systest.StartedImage(rig.Host.Files, "/EFI/Linux/other.efi"))
		}, `the kernel image that was started is "/EFI/Linux/other.efi", and that is not on the boot partition`},
		"no boot loader": {func(t *testing.T, rig *systest.Rig) {
			t.Helper()
			must(t, rig.Host.Files.Remove(systest.ESP+"/EFI/BOOT/BOOTX64.EFI"))
		}, "there is no boot loader on the boot partition"},
		"a unit that does not start": {func(_ *testing.T, rig *systest.Rig) {
			rig.Units.Fail("incus-os-swtpm.service", errors.New("no module"))
		}, "no module"},
		"a boot partition that cannot be written": {func(_ *testing.T, rig *systest.Rig) {
			rig.Host.Files = rig.Host.Files.WithFault(func(op, name string) error {
				if op == "write" && name == keptTPM {
					return fs.ErrPermission
				}
				return nil
			})
		}, "permission denied"},
	} {
		t.Run(name, func(t *testing.T) {
			rig := tpmless(t)
			tt.change(t, rig)
			if _, err := seal.StartSoftwareTPM(t.Context(), rig.Host, "/dev/vda1", true); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("StartSoftwareTPM() = %v, want %q", err, tt.want)
			}
		})
	}
}

// software is a machine that runs with a TPM in software.
func software(t *testing.T) (*systest.Rig, *systest.Trust, *seal.Seal) {
	t.Helper()
	m := systest.Sensible()
	m.Lacks = string(seal.NoTPM)
	rig := systest.New(t, m)
	trust, err := systest.NewTrust(rig)
	must(t, err)
	return rig, trust, seal.New(rig.Host, func() bool { return true })
}

func TestWithoutTPMItIsSaid(t *testing.T) {
	rig, trust, s := software(t)
	restart(t, trust, "tpm")
	must(t, s.Reconcile(t.Context()))
	state, err := s.State()
	must(t, err)
	if state.TPMStatus != api.TPMSoftware || state.SystemStateIsTrusted || state.SystemStateStatus != "using swtpm" || !state.SecureBootEnabled {
		t.Errorf("the TPM is %q, trusted %v (%q)", state.TPMStatus, state.SystemStateIsTrusted, state.SystemStateStatus)
	}
	if a := s.Alarms(); len(a) != 1 || !strings.Contains(a[0], "the TPM is one in software") {
		t.Errorf("the console warns of %q", a)
	}
	d := examine(t, s)
	if !d.Unlocks || len(d.Findings) != 1 || !strings.Contains(d.Findings[0].What, "whoever has the disk") {
		t.Errorf("the doctor says %q, %+v", d.Verdict, d.Findings)
	}
	_, err = s.Attest(t.Context(), strings.Repeat("0a", 32), "")
	if kind(err) != api.Conflict || !strings.Contains(err.Error(), "proves nothing to others") {
		t.Errorf("Attest() = %v", err)
	}
	if err := s.SetPIN(t.Context(), "314159"); kind(err) != api.Conflict || !strings.Contains(err.Error(), "one in software") {
		t.Errorf("SetPIN() = %v", err)
	}
	if got := content(t, rig, "/var/lib/incus-os/trust-fuse"); got != "tpm\n" {
		t.Errorf("kept for good is %q", got)
	}
}

func TestWithoutTPMDistrustStays(t *testing.T) {
	rig, _, s := software(t)
	must(t, s.Reconcile(t.Context()))
	write(t, rig, "/run/incus-os/early.json", `{"unlocked_by":"tpm"}`)
	state, err := s.State()
	must(t, err)
	if state.SystemStateIsTrusted || state.SystemStateStatus != "the TPM was one in software at an earlier start" || state.TPMStatus == api.TPMSoftware {
		t.Errorf("with a TPM it is %q, trusted %v (%q)", state.TPMStatus, state.SystemStateIsTrusted, state.SystemStateStatus)
	}
}

func TestWithoutTPMOneThatEndedIsComplainedOf(t *testing.T) {
	rig, _, s := software(t)
	must(t, rig.Host.Files.RemoveAll("/sys/class/tpm"))
	err := s.Reconcile(t.Context())
	if err == nil || !strings.Contains(err.Error(), "there is no TPM 2.0; it was one in software and has ended; restart the machine") {
		t.Errorf("Reconcile() = %v", err)
	}
}

// An update is provided for, and an older release does not unlock, as with a TPM.
func TestWithoutTPMUpdatesUnlock(t *testing.T) {
	rig, trust, s := software(t)
	must(t, s.Reconcile(t.Context()))
	old := image(t, rig, trust, "202512010000")
	b := image(t, rig, trust, "202602020000")
	must(t, s.Provide(t.Context(), bytes.NewReader(b), int64(len(b))))
	put(t, rig, "202602020000", b)
	must(t, s.Reconcile(t.Context()))
	restart(t, trust, "tpm")
	h, err := trust.Header()
	must(t, err)
	for _, token := range h.TPM2Tokens() {
		if !slices.Equal(token.TPM2.PCRs, []int{7, 11, 15}) {
			t.Errorf("root is bound to PCRs %v", token.TPM2.PCRs)
		}
	}
	drop(t, rig, "202602020000")
	drop(t, rig, "202601010000")
	put(t, rig, "202512010000", old)
	restart(t, trust, "recovery key")
}

// The mark alone makes no machine one that does without.
func TestOnlyWhatWasInstalledWithoutTPMGoesOnWithout(t *testing.T) {
	for name, tt := range map[string]struct {
		l     seal.Lack
		files map[string]string
		want  string // of the error
		fuse  string // what is kept then
	}{
		"a first start":           {seal.NoTPM, nil, "", "tpm\n"},
		"a later one":             {seal.NoTPM, map[string]string{"recovery.root.key": "key\n", "trust-fuse": "tpm\n"}, "", "tpm\n"},
		"installed with a TPM":    {seal.NoTPM, map[string]string{"recovery.root.key": "key\n"}, "take the file tpm-missing away", ""},
		"installed with less yet": {seal.NoTPM, map[string]string{"recovery.root.key": "key\n", "trust-fuse": "secure boot\n"}, "installed on a machine with a TPM 2.0", "secure boot\n"},
		"with a TPM":              {"", map[string]string{"recovery.root.key": "key\n"}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			rig := systest.New(t, systest.Sensible())
			for file, text := range tt.files {
				write(t, rig, "/sysroot/var/lib/incus-os/"+file, text)
			}
			err := seal.ConfirmLack(rig.Host.Files, "/sysroot", tt.l)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("ConfirmLack() = %v, want %q", err, tt.want)
			}
			fuse, _ := rig.Host.Files.ReadFile("/sysroot/var/lib/incus-os/trust-fuse")
			if string(fuse) != tt.fuse {
				t.Errorf("kept is %q, want %q", fuse, tt.fuse)
			}
		})
	}
}
