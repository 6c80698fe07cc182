//go:build vm

package vm_test

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/incusos/incusos/internal/vm"
)

// refusal is how long a machine may take to say no, with KVM.
const refusal = time.Minute

// TestMediumRefuses starts the install medium where it must not install.
func TestMediumRefuses(t *testing.T) {
	tests := map[string]struct {
		boot vm.Boot
		seed string // the whole of install.yaml; "" leaves it
		disk func(t *testing.T, m *vm.Machine)
		says *regexp.Regexp
	}{
		"a machine without a TPM":       {boot: vm.Boot{NoTPM: true}, says: says.mayNotTPM},
		"a TPM where the seed has none": {seed: "version: \"1\"\nsecurity: {missing_tpm: true}\n", says: says.nothingGained},
		"a machine without SecureBoot":  {boot: vm.Boot{NoSecureBoot: true}, says: says.mayNot},
		"a disk with a partition table": {
			disk: func(t *testing.T, m *vm.Machine) { t.Helper(); occupy(t, m.Disk("disk"), "precious") },
			says: says.occupied,
		},
		"a seed with a misspelt field": {seed: "version: \"1\"\nforce_rebot: true\n", says: says.malformed},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			if tt.disk != nil {
				tt.disk(t, m)
			}
			tt.boot.Medium = newMedium(t, newIdentity(t), func(dir string) {
				if tt.seed == "" {
					return
				}
				if err := os.WriteFile(filepath.Join(dir, "install.yaml"), []byte(tt.seed), 0o600); err != nil {
					t.Fatal(err)
				}
			})
			before := ends(t, m.Disk("disk"))
			r := start(t, m, tt.boot)
			line, err := r.Console.Expect(t.Context(), refusal, tt.says)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("refused after %v: %s", line.At.Round(time.Second), line.Text)
			r.Stop()
			if ends(t, m.Disk("disk")) != before {
				t.Error("the disk's partition table was written to")
			}
		})
	}
}
