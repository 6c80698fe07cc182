package provision_test

import (
	"strings"
	"testing"
	"time"

	"github.com/incusos/incusos/internal/provision"
	"github.com/incusos/incusos/internal/sys/systest"
)

// A machine that lacks something is installed if the seed says so, and one that the seed
// is wrong about is not.
func TestWhatAMachineLacksIsChosen(t *testing.T) {
	const without, both = "security: {missing_secure_boot: true}\n", "security: {missing_secure_boot: true, missing_tpm: true}\n"
	const soft = "security: {missing_tpm: true}\n"
	tests := map[string]struct {
		secureBoot string
		tpm        bool
		seed       string
		want       string // of the error; "" for none
		mark       string // on the new boot partition
		warned     string // of what
	}{
		"Secure Boot off, and allowed":   {"off", true, without, "", "sb-disabled", "do not type"},
		"setup mode, and allowed":        {"setup", true, without, "", "sb-disabled", "do not type"},
		"Secure Boot off, not allowed":   {"off", true, "", "this machine cannot be used: Secure Boot is off. In the firmware setup, turn Secure Boot on.", "", ""},
		"setup mode, not allowed":        {"setup", true, "", "Secure Boot is in setup mode", "", ""},
		"Secure Boot on, though allowed": {"on", true, without, "security.missing_secure_boot: is set in the install seed, and Secure Boot is on", "", ""},
		"neither, one allowed":           {"off", false, without, "It lacks more than that, and can do without one thing at most", "", ""},
		"both allowed":                   {"on", true, both, "security.missing_secure_boot: is set beside missing_tpm", "", ""},
		"no TPM, and allowed":            {"on", false, soft, "", "tpm-missing", "whoever has the disk"},
		"no TPM, not allowed":            {"on", false, "", "this machine cannot be used: there is no TPM 2.0. In the firmware setup, turn on the TPM", "", ""},
		"no TPM, the other allowed":      {"on", false, without, "set `security.missing_tpm: true` in the install seed", "", ""},
		"a TPM, though allowed":          {"on", true, soft, "security.missing_tpm: is set in the install seed, and there is a TPM 2.0; take it out", "", ""},
		"neither, the other allowed":     {"off", false, soft, "this machine cannot be used: Secure Boot is off. In the firmware setup", "", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m := systest.Sensible()
			m.SecureBoot, m.TPM = tt.secureBoot, tt.tpm
			b := newBenchOf(t, m, map[string]string{"install.yaml": "force_reboot: true\n" + tt.seed})
			err := provision.Install(t.Context(), b.Host, b)
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("Install() = %v, want %q", err, tt.want)
				}
				b.untouched(t)
				return
			}
			must(t, err)
			if b.warnedFor != 30*time.Second || !strings.Contains(b.warned, tt.warned) {
				t.Errorf("for %v it warned %q", b.warnedFor, b.warned)
			}
			if !exists(b.disks.Content("/dev/nvme0n1p1") + "/" + tt.mark) {
				t.Error("the new boot partition has no mark")
			}
		})
	}
}

// Without a seed nobody has allowed anything, and the machine itself is what is wrong.
func TestAnUnfitMachineWithoutSeed(t *testing.T) {
	m := systest.Sensible()
	m.SecureBoot = "off"
	b := newBenchOf(t, m, map[string]string{"install.yaml": "forse_reboot: true\n"})
	err := provision.Install(t.Context(), b.Host, b)
	if err == nil || !strings.Contains(err.Error(), "Secure Boot is off") || !strings.Contains(err.Error(), "install.yaml:1:1") {
		t.Errorf("Install() = %v, want both that Secure Boot is off and what is wrong with the seed", err)
	}
	b.untouched(t)
}
