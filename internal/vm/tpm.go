package vm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// tpmState is the file that swtpm keeps a TPM in.
const tpmState = "tpm2-00.permall"

// prepareTPM makes the TPM of a machine that was never switched on, with the bank
// of SHA-256 alone, which is how machines are sold. swtpm by itself has four, and
// the firmware then hashes all that it starts four times over.
func (m *Machine) prepareTPM(ctx context.Context) error {
	dir := m.path(tpmDir)
	if _, err := os.Stat(filepath.Join(dir, tpmState)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	swtpm := strings.Join(m.tools.load("/usr/bin/swtpm", "socket"), " ")
	c := m.tools.command("/usr/bin/swtpm_setup", "--tpm2", "--tpmstate", dir, "--pcr-banks", "sha256",
		"--config", os.DevNull, "--runas", fmt.Sprint(os.Geteuid()), "--tpm", swtpm)
	out, err := m.opt.Exec.Run(ctx, c)
	if err != nil {
		return fmt.Errorf("making a TPM: %w; swtpm_setup said:\n%s", err, out)
	}
	return nil
}
