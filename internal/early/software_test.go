package early

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/incusos/incusos/internal/seal"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/sys/systest"
)

const kept = systest.ESP + "/swtpm/tpm2-00.permall"

// tpmless is a machine without a TPM whose boot partition says that it was installed so.
func tpmless(t *testing.T, labels ...string) *bench {
	t.Helper()
	b := newBenchOf(t, func(m *systest.Machine) { m.TPM = false }, 64e9, labels...)
	if _, err := systest.NewTrust(b.Rig); err != nil {
		t.Fatal(err)
	}
	b.model()
	systest.NewSoftwareTPM(b.Rig)
	files := b.Host.Files
	if err := errors.Join(systest.StartedImage(files, "/EFI/Linux/IncusOS_202601010000.efi"), files.WriteFile(systest.ESP+"/tpm-missing", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestWithoutTPMWhatWasInstalledSoStarts(t *testing.T) {
	b := tpmless(t, installed()...)
	b.Programs.Model("systemd-repart", func(ctx context.Context, c sys.Cmd) ([]byte, error) {
		if !b.Host.Files.Exists(kept) {
			t.Error("root is made before the TPM is kept: a cut would leave a disk that nothing opens")
		}
		return b.repart(ctx, c)
	})
	if err := Run(t.Context(), b.Host, &b.screen); err != nil {
		t.Fatalf("Run() = %v, the screen shows %q", err, b.screen.failed)
	}
	if got := b.result(t); !strings.Contains(got, `"unlocked_by":"tpm","lacks":"tpm"}`) {
		t.Errorf("early.json is %s", got)
	}
	if b.count("systemd-repart --json=short --definitions=/sysusr/usr/lib/incus-os/repart.d --dry-run=no --tpm2-device=auto --tpm2-pcrs=7 /dev/vda") != 1 {
		t.Errorf("ran %q", b.Programs.Ran())
	}
	state, err := b.Host.Files.ReadFile(kept)
	if err != nil || !strings.Contains(string(state), "81000001") {
		t.Errorf("kept is %q, %v; want the TPM with its primary key", state, err)
	}
	fuse, err := b.Host.Files.ReadFile("/sysroot/var/lib/incus-os/trust-fuse")
	if err != nil || string(fuse) != "tpm\n" {
		t.Errorf("root says %q, %v", fuse, err)
	}
	if got := b.Mounts.Table(); slices.ContainsFunc(got, func(m string) bool { return strings.Contains(m, systest.ESP) }) {
		t.Errorf("the boot partition stays mounted: %q", got)
	}
}

// A cut of the first start, after there is a root, leaves the TPM that root is bound to.
func TestWithoutTPMALaterStartHasTheSameOne(t *testing.T) {
	for name, labels := range map[string][]string{"later": complete(), "cut": append(installed(), "root")} {
		t.Run(name, func(t *testing.T) {
			b := tpmless(t, labels...)
			files := b.Host.Files
			if err := errors.Join(files.WriteFile(kept, []byte("the one\n"), 0o600), files.WriteFile("/sysroot/var/lib/incus-os/trust-fuse", []byte("tpm\n"), 0o600)); err != nil {
				t.Fatal(err)
			}
			if err := Run(t.Context(), b.Host, &b.screen); err != nil {
				t.Fatal(err)
			}
			if device, err := files.ReadFile("/dev/tpmrm0"); err != nil || string(device) != "the one" {
				t.Errorf("the TPM is %q, %v", device, err)
			}
			if state, err := files.ReadFile(kept); err != nil || string(state) != "the one\n" {
				t.Errorf("kept is %q, %v", state, err)
			}
		})
	}
}

// systemd does not measure the key of root where firmware knows of no TPM, unless it is
// told to; and without that the running system could have the key again.
func TestWithoutTPMTheKeyOfRootIsMeasured(t *testing.T) {
	b := tpmless(t, installed()...)
	var env []string
	model := b.cryptsetup
	b.Programs.Model("systemd-cryptsetup", func(ctx context.Context, c sys.Cmd) ([]byte, error) { env = c.Env; return model(ctx, c) })
	if err := Run(t.Context(), b.Host, &b.screen); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(env, "SYSTEMD_FORCE_MEASURE=1") {
		t.Errorf("systemd-cryptsetup is told %q", env)
	}
}

func TestWithoutTPMTheRestIsRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		labels []string
		change func(*testing.T, *bench)
		want   string
	}{
		"not installed so":     {complete(), unmark, "This machine cannot be used: there is no TPM 2.0."},
		"not even started yet": {installed(), unmark, "This machine cannot be used: there is no TPM 2.0."},
		"installed without something else": {complete(), func(t *testing.T, b *bench) {
			t.Helper()
			unmark(t, b)
			if err := b.Host.Files.WriteFile(systest.ESP+"/sb-disabled", nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "This machine cannot be used: there is no TPM 2.0."},
	} {
		t.Run(name, func(t *testing.T) {
			b := tpmless(t, tt.labels...)
			tt.change(t, b)
			err := Run(t.Context(), b.Host, &b.screen)
			if _, ok := errors.AsType[*RefusedError](err); !ok || !strings.Contains(b.screen.failed, tt.want) {
				t.Errorf("Run() = %v, the screen shows %q; want %q", err, b.screen.failed, tt.want)
			}
			if b.count("systemd-cryptsetup") != 0 || b.Host.Files.Exists("/dev/tpmrm0") {
				t.Error("root was to be unlocked, or there is a TPM in software")
			}
		})
	}
}

func unmark(t *testing.T, b *bench) {
	t.Helper()
	if err := b.Host.Files.Remove(systest.ESP + "/tpm-missing"); err != nil {
		t.Fatal(err)
	}
}

// Whoever turns a TPM off and sets the mark gets no further, even with a recovery key.
func TestAMachineThatHadATPMNeedsIt(t *testing.T) {
	b := tpmless(t, complete()...)
	if err := b.Host.Files.WriteFile("/sysroot/var/lib/incus-os/recovery.root.key", []byte(recovery+"\n"), 0o400); err != nil {
		t.Fatal(err)
	}
	b.tpm = &sys.ExecError{Name: "systemd-cryptsetup", Code: 1, Stderr: "integrity check failed"}
	b.screen.answers = []string{recovery}
	if err := Run(t.Context(), b.Host, &b.screen); err == nil || !strings.Contains(err.Error(), "this system was installed on a machine with a TPM 2.0") {
		t.Errorf("Run() = %v", err)
	}
	if b.Host.Files.Exists(resultFile) {
		t.Error("the daemon was told to go on")
	}
}

func TestAMediumNeedsNoTPM(t *testing.T) {
	b := tpmless(t, medium()...)
	if err := Run(t.Context(), b.Host, &b.screen); err != nil {
		t.Fatal(err)
	}
	if got := b.result(t); !strings.Contains(got, `"mode":"install","boot_disk":"/dev/vda","lacks":"tpm"`) || b.Host.Files.Exists("/dev/tpmrm0") {
		t.Errorf("early.json is %s, or there is a TPM in software", got)
	}
}

// A machine that has a TPM at its first start is one like others.
func TestTheMarkGoesWithATPMAtTheFirstStart(t *testing.T) {
	b := newBench(t, 64e9, installed()...)
	files := b.Host.Files
	if err := errors.Join(files.WriteFile(systest.ESP+"/"+seal.NoTPM.Mark(), nil, 0o600), files.WriteFile(kept, []byte("old\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := Run(t.Context(), b.Host, &b.screen); err != nil {
		t.Fatal(err)
	}
	if files.Exists(systest.ESP+"/tpm-missing") || files.Exists(systest.ESP+"/swtpm") || strings.Contains(b.result(t), "lacks") {
		t.Errorf("the mark or the TPM in software is there, or early.json is %s", b.result(t))
	}
}
