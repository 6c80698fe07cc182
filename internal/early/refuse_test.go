package early

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/incusos/incusos/internal/seal"
	"github.com/incusos/incusos/internal/sys/systest"
)

// insecure is a machine without Secure Boot whose boot partition says what it was
// installed without.
func insecure(t *testing.T, mark string, labels ...string) *bench {
	t.Helper()
	b := newBenchOf(t, func(m *systest.Machine) { m.SecureBoot, m.Lacks = "off", string(seal.NoSecureBoot) }, 64e9, labels...)
	if _, err := systest.NewTrust(b.Rig); err != nil {
		t.Fatal(err)
	}
	b.model()
	files := b.Host.Files
	if err := errors.Join(files.RemoveAll("/run/incus-os/early.json"), files.MkdirAll("/sysusr/usr/lib", 0o755), files.Rename("/usr/lib/verity.d", "/sysusr/usr/lib/verity.d")); err != nil {
		t.Fatal(err)
	}
	if mark != "" {
		if err := files.WriteFile(systest.ESP+"/"+mark, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func TestWithoutSecureBootWhatWasInstalledSoStarts(t *testing.T) {
	for name, labels := range map[string][]string{"first": installed(), "later": complete(), "medium": medium()} {
		t.Run(name, func(t *testing.T) {
			b := insecure(t, "sb-disabled", labels...)
			if err := Run(t.Context(), b.Host, &b.screen); err != nil {
				t.Fatalf("Run() = %v, the screen shows %q", err, b.screen.failed)
			}
			if got := b.result(t); !strings.Contains(got, `"lacks":"secure boot"`) {
				t.Errorf("early.json is %s", got)
			}
			if n := b.count("systemd-repart"); (n == 1) != (name == "first") {
				t.Errorf("systemd-repart ran %d times", n)
			}
			if name == "first" && b.count("systemd-repart --json=short --definitions=/sysusr/usr/lib/incus-os/repart.d --dry-run=no --tpm2-device=auto --tpm2-pcrs=2+4+7+12+13 /dev/vda") != 1 {
				t.Errorf("ran %q", b.Programs.Ran())
			}
			if !b.Host.Files.Exists(systest.ESP + "/sb-disabled") {
				t.Error("the mark is gone")
			}
			if got := b.Mounts.Table(); slices.ContainsFunc(got, func(m string) bool { return strings.Contains(m, systest.ESP) }) {
				t.Errorf("the boot partition stays mounted: %q", got)
			}
		})
	}
}

func TestWithoutSecureBootTheRestIsRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		mark   string
		labels []string
		change func(*testing.T, *bench)
		want   string
	}{
		"not installed so":     {"", complete(), func(*testing.T, *bench) {}, "This machine cannot be used: Secure Boot is off."},
		"not even started yet": {"", installed(), func(*testing.T, *bench) {}, "This machine cannot be used: Secure Boot is off."},
		"a changed program": {"sb-disabled", complete(), func(t *testing.T, b *bench) {
			t.Helper()
			if err := b.Host.Files.WriteFile(systest.ESP+"/EFI/BOOT/BOOTX64.EFI", []byte("MZ"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "what was started is not what it should be: the firmware started /EFI/BOOT/BOOTX64.EFI"},
		"a changed program on a medium": {"", medium(), func(t *testing.T, b *bench) {
			t.Helper()
			if err := b.Host.Files.WriteFile(systest.ESP+"/EFI/BOOT/BOOTX64.EFI", []byte("MZ"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "what was started is not what it should be"},
		"no TPM either": {"sb-disabled", complete(), func(t *testing.T, b *bench) {
			t.Helper()
			if err := b.Host.Files.RemoveAll("/sys/class/tpm"); err != nil {
				t.Fatal(err)
			}
		}, "This machine cannot be used: there is no TPM 2.0."},
	} {
		t.Run(name, func(t *testing.T) {
			b := insecure(t, tt.mark, tt.labels...)
			tt.change(t, b)
			err := Run(t.Context(), b.Host, &b.screen)
			if _, ok := errors.AsType[*RefusedError](err); !ok || !strings.Contains(b.screen.failed, tt.want) {
				t.Errorf("Run() = %v, the screen shows %q; want %q", err, b.screen.failed, tt.want)
			}
			if b.count("systemd-cryptsetup") != 0 {
				t.Error("root was to be unlocked")
			}
		})
	}
}

// A machine that has Secure Boot at its first start is one like others.
func TestTheMarkGoesWithSecureBootAtTheFirstStart(t *testing.T) {
	b := newBench(t, 64e9, installed()...)
	if err := b.Host.Files.WriteFile(systest.ESP+"/sb-disabled", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Run(t.Context(), b.Host, &b.screen); err != nil {
		t.Fatal(err)
	}
	if b.Host.Files.Exists(systest.ESP+"/sb-disabled") || strings.Contains(b.result(t), "lacks") {
		t.Errorf("the mark is there, or early.json is %s", b.result(t))
	}
}
