package seal

import (
	"slices"
	"strings"
	"testing"

	"github.com/incusos/incusos/internal/sys/systest"
)

func TestCheck(t *testing.T) {
	const (
		legacy = "it was not started by UEFI firmware"
		setup  = "Secure Boot is in setup mode: the keys were not enrolled"
		off    = "Secure Boot is off"
		noTPM  = "there is no TPM 2.0"
	)
	tests := map[string]struct {
		secureBoot string
		tpm        bool
		want       []string
	}{
		"all is well":                {"on", true, nil},
		"legacy boot":                {"absent", true, []string{legacy}},
		"legacy boot hides the rest": {"absent", false, []string{legacy}},
		"Secure Boot off":            {"off", true, []string{off}},
		"setup mode":                 {"setup", true, []string{setup}},
		"no TPM":                     {"on", false, []string{noTPM}},
		"neither":                    {"off", false, []string{off, noTPM}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m := systest.Sensible()
			m.SecureBoot, m.TPM = tt.secureBoot, tt.tpm
			var got []string
			for _, p := range Check(systest.New(t, m).Host.Files) {
				got = append(got, p.What)
				if !strings.HasSuffix(p.Do, ".") {
					t.Errorf("%s: what to do is %q, want a sentence", p.What, p.Do)
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("Check() found %q, want %q", got, tt.want)
			}
		})
	}
}

func TestOldTPMIsNoTPM(t *testing.T) {
	files := systest.New(t, systest.Sensible()).Host.Files
	if err := files.WriteFile("/sys/class/tpm/tpm0/tpm_version_major", []byte("1\n"), 0o444); err != nil {
		t.Fatal(err)
	}
	if got := Check(files); len(got) != 1 || got[0].What != "there is no TPM 2.0" {
		t.Errorf("Check() = %+v, want that it misses a TPM 2.0", got)
	}
}
