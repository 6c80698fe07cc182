package vm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
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

// WithTPM starts the TPM of a machine that is switched off, without the machine, as who
// makes TPMs does to put a certificate in one. Whoever connects to the unix socket that
// do gets speaks to it in TPM commands; it is gone when do returns.
func (m *Machine) WithTPM(ctx context.Context, do func(socket string) error) error {
	if err := m.prepareTPM(ctx); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "tpm") // a short name, as for sockets
	if err != nil {
		return fmt.Errorf("starting the TPM: %w", err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a socket at the most
	socket := sockets{dir}.tpm()
	p, err := m.opt.Exec.Start(ctx, m.tools.service("/usr/bin/swtpm", "socket", "--tpm2",
		"--tpmstate", "dir="+m.path(tpmDir), "--server", "type=unixio,path="+socket, "--flags", "not-need-init,startup-clear",
		"--log", "level=1,truncate,file="+m.path(swtpmLog)))
	if err != nil {
		return err
	}
	err = waitFor(ctx, "swtpm to open its socket", func() bool {
		_, err := os.Stat(socket)
		return err == nil
	})
	if err == nil {
		err = do(socket)
	}
	err = errors.Join(err, p.Signal(unix.SIGTERM))
	_ = p.Wait() // it was told to end
	return err
}
