package seal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/incusos/incusos/internal/sys"
)

// A recovery key is 256 random bits in modhex, an alphabet that is the same on
// most keyboards, in groups (systemd-cryptenroll(1), --recovery-key).
const (
	modhex    = "cbdefghijklnrtuv"
	groups    = 8
	groupSize = 8
)

// EnsureRecoveryKey gives the encrypted device a recovery key and writes it to
// keyFile as one line that only root can read. If keyFile has one already,
// nothing is done. The TPM must be able to unlock device.
//
// A cut between the two leaves a key that nobody knows; the next call replaces
// it, since it takes the place of every earlier recovery key of device.
func EnsureRecoveryKey(ctx context.Context, host sys.Host, device, keyFile string) error {
	old, err := host.Files.ReadFile(keyFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("looking for the recovery key: %w", err)
	}
	if strings.TrimSpace(string(old)) != "" {
		return nil
	}
	out, err := host.Exec.Run(ctx, sys.Command("systemd-cryptenroll",
		"--wipe-slot=recovery", "--unlock-tpm2-device=auto", "--recovery-key", device))
	if err != nil {
		return fmt.Errorf("making a recovery key for %s: %w", device, discreet(err))
	}
	key := strings.TrimSpace(string(out))
	if normalize(key) != key || !isRecoveryKey(key) {
		return fmt.Errorf("making a recovery key for %s: systemd-cryptenroll printed no key; want %d groups of %d letters", device, groups, groupSize)
	}
	if err := host.Files.MkdirAll(path.Dir(keyFile), 0o700); err != nil {
		return fmt.Errorf("making the directory of the recovery key: %w", err)
	}
	if err := host.Files.WriteFile(keyFile, []byte(key+"\n"), 0o400); err != nil {
		return fmt.Errorf("saving the recovery key: %w", err)
	}
	return nil
}

// discreet takes away what systemd-cryptenroll said after it showed the key: to
// a capable terminal it draws the key as a QR code, on standard error.
func discreet(err error) error {
	exit, ok := errors.AsType[*sys.ExecError](err)
	if !ok {
		return err
	}
	before, _, shown := strings.Cut(exit.Stderr, "recovery key has been generated")
	if !shown {
		return err
	}
	before = before[:strings.LastIndexByte(before, '\n')+1]
	return &sys.ExecError{Name: exit.Name, Code: exit.Code, Stderr: strings.TrimSpace(before)}
}

func isRecoveryKey(s string) bool {
	parts := strings.Split(s, "-")
	for _, p := range parts {
		if len(p) != groupSize || strings.Trim(p, modhex) != "" {
			return false
		}
	}
	return len(parts) == groups
}

// normalize brings a recovery key into the form it was enrolled in, however it
// was typed: in capitals, with blanks, without dashes. Anything else is a
// passphrase and stays as it is.
func normalize(typed string) string {
	letters := strings.ToLower(strings.Join(strings.FieldsFunc(typed, func(r rune) bool {
		return r == '-' || r == ' ' || r == '\t' || r == '\r' || r == '\n'
	}), ""))
	if len(letters) != groups*groupSize || strings.Trim(letters, modhex) != "" {
		return strings.TrimRight(typed, "\r\n")
	}
	var parts []string
	for i := 0; i < len(letters); i += groupSize {
		parts = append(parts, letters[i:i+groupSize])
	}
	return strings.Join(parts, "-")
}
