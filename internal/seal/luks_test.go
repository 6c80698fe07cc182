package seal_test

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/sys/systest"
)

// luks models an encrypted device with systemd-cryptenroll and
// systemd-cryptsetup: what unlocks it, and whether it is open.
type luks struct {
	files    sys.Dir
	tpm      string // why the TPM does not unlock, as printed; "" if it does
	recovery string // the recovery key
	enrolled int    // keys made so far
	open     bool
}

func newLUKS(rig *systest.Rig) *luks {
	l := &luks{files: rig.Host.Files}
	rig.Programs.Model("systemd-cryptenroll", l.cryptenroll)
	rig.Programs.Model("systemd-cryptsetup", l.cryptsetup)
	return l
}

// key returns a different well-formed recovery key for each n below 16.
func key(n int) string {
	group := strings.Repeat(string("cbdefghijklnrtuv"[n]), 8)
	return strings.Join(slices.Repeat([]string{group}, 8), "-")
}

func (l *luks) cryptenroll(_ context.Context, c sys.Cmd) ([]byte, error) {
	want := []string{"--wipe-slot=recovery", "--unlock-tpm2-device=auto", "--recovery-key", "/dev/vda9"}
	if !slices.Equal(c.Args, want) {
		return nil, fmt.Errorf("systemd-cryptenroll %q, want %q", c.Args, want)
	}
	if l.tpm != "" {
		return nil, &sys.ExecError{Name: "systemd-cryptenroll", Code: 1, Stderr: l.tpm}
	}
	l.enrolled++
	l.recovery = key(l.enrolled)
	return []byte(l.recovery + "\n"), nil
}

func (l *luks) cryptsetup(_ context.Context, c sys.Cmd) ([]byte, error) {
	if len(c.Args) != 5 || c.Args[0] != "attach" || c.Args[1] != "root" || c.Args[2] != "/dev/vda9" {
		return nil, fmt.Errorf("systemd-cryptsetup %q, want it to attach root", c.Args)
	}
	file, options := c.Args[3], strings.Split(c.Args[4], ",")
	refused := l.tpm
	if !slices.Contains(options, "tpm2-device=auto") || file != "-" {
		typed, err := l.files.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if refused = ""; string(typed) != l.recovery {
			refused = "Failed to activate with key file. (Key data incorrect?)"
		}
	}
	if refused != "" {
		return nil, &sys.ExecError{Name: "systemd-cryptsetup", Code: 1, Stderr: refused}
	}
	l.open = true
	return nil, nil
}

func cryptenroll(args ...string) sys.Cmd { return sys.Command("systemd-cryptenroll", args...) }
