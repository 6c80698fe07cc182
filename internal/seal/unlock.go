package seal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/incusos/incusos/internal/luks"
	"github.com/incusos/incusos/internal/sys"
)

const (
	volume     = "root" // name of the opened device in /dev/mapper
	cryptsetup = "/usr/bin/systemd-cryptsetup"

	// typedKey is where a typed key lies while it is tried. /run is in memory.
	typedKey = "/run/incus-os/unlock.key"
)

// Both ways measure the volume's key into PCR 15 (systemd-cryptsetup and
// crypttab(5), tpm2-measure-pcr=), so that what unlocks later can tell that
// root was not swapped. None of them asks by itself.
const (
	byTPMOptions = "tpm2-device=auto,tpm2-measure-pcr=yes,headless=yes,discard"
	byKeyOptions = "tpm2-measure-pcr=yes,headless=yes,discard"
)

// Wrong keys cost time, so that guessing at the console leads nowhere.
const (
	firstDelay = time.Second
	lastDelay  = time.Minute
)

// Unlock opens the encrypted device as /dev/mapper/root and returns how: ByTPM
// or ByRecoveryKey. When the TPM wants a PIN, or does not release its key, ask is
// called with a prompt that says so, and again after something wrong, until ctx ends
// or ask returns an error.
func Unlock(ctx context.Context, host sys.Host, device string, ask func(prompt string) (string, error)) (by string, err error) {
	said, err := tryTPM(ctx, host, device, "")
	if err != nil || said == "" {
		return ByTPM, err
	}
	prompt, pin := whyLocked(host.Files, device, said)+"\nRecovery key: ", wantsPIN(host.Files, device, said)
	if pin {
		prompt = "This machine asks for a PIN. A recovery key will do as well.\nPIN: "
	}
	for delay := firstDelay; ; delay = min(2*delay, lastDelay) {
		key, err := ask(prompt)
		if err != nil {
			return "", fmt.Errorf("asking for the recovery key: %w", err)
		}
		if pin && key != "" && !isRecoveryKey(normalize(key)) {
			if said, err = tryTPM(ctx, host, device, strings.TrimRight(key, "\r\n")); err != nil || said == "" {
				return ByTPM, err
			}
		}
		refused, err := try(ctx, host, device, normalize(key))
		if err != nil {
			return "", err
		}
		if refused == "" {
			return ByRecoveryKey, nil
		}
		prompt = refused + "\nRecovery key: "
		if pin {
			prompt = wrongPIN(said) + "\nPIN: "
		}
		if err := wait(ctx, delay); err != nil {
			return "", err
		}
	}
}

// tryTPM opens device by the TPM, with a PIN unless that is "". Said is what
// systemd-cryptsetup printed when that failed, and is "" if it did not.
func tryTPM(ctx context.Context, host sys.Host, device, pin string) (said string, err error) {
	c := sys.Command(cryptsetup, "attach", volume, device, "-", byTPMOptions)
	c.Env = measuring(host.Files)
	if pin != "" {
		c.Env = append(c.Env, "PIN="+pin)
	}
	_, err = host.Exec.Run(ctx, c)
	if exit, ok := errors.AsType[*sys.ExecError](err); ok {
		return cmp.Or(exit.Stderr, " "), nil
	}
	return "", err
}

// wantsPIN reports whether the TPM would open device if it were told a PIN.
func wantsPIN(files sys.Dir, device, said string) bool {
	if strings.Contains(said, "PIN querying disabled") {
		return true
	}
	h, err := readHeader(files, device)
	if err != nil {
		return false
	}
	f := measuredHere(files)
	return slices.ContainsFunc(h.TPM2Tokens(), func(t luks.Token) bool { return t.TPM2.PIN && refusal(t.TPM2, f) == "" })
}

// wrongPIN says why a PIN did not do. A TPM stops answering after some wrong ones.
func wrongPIN(said string) string {
	if why := explain(said); why == lockedTPM {
		return why + " A recovery key opens it at once."
	}
	return "This PIN is wrong, and it is no recovery key either."
}

// try opens device with key. refused says what was wrong with the key, and is
// "" if it was the right one.
func try(ctx context.Context, host sys.Host, device, key string) (refused string, err error) {
	if key == "" {
		return "Nothing was typed.", nil
	}
	if err := host.Files.WriteFile(typedKey, []byte(key), 0o600); err != nil {
		return "", fmt.Errorf("handing the recovery key over: %w", err)
	}
	c := sys.Command(cryptsetup, "attach", volume, device, typedKey, byKeyOptions)
	c.Env = measuring(host.Files)
	_, err = host.Exec.Run(ctx, c)
	if err := host.Files.Remove(typedKey); err != nil {
		return "", fmt.Errorf("taking the recovery key away: %w", err)
	}
	if _, ok := errors.AsType[*sys.ExecError](err); ok {
		return "This key does not unlock the system.", nil
	}
	return "", err
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// explain says in words why the TPM did not unlock, from what
// systemd-cryptsetup printed. The first match counts: a policy that does not
// fit also leads to later, less telling messages.
func explain(stderr string) string {
	for _, known := range []struct{ text, why string }{
		{"lockout", lockedTPM},
		{"integrity check failed", otherTPM},
		{"PCR value mismatch", policyMismatch},
		{"Failed to unseal secret using TPM2", policyMismatch},
		{"policy check failed", policyMismatch},
		{"No valid TPM2 token", noToken},
		{"No TPM2 metadata enrolled", noToken},
		{"TPM2 support is not installed", noTPM},
		{"No TPM2 hardware", noTPM},
		{"Failed to find TPM2", noTPM},
		{"TPM2 device not found", noTPM},
	} {
		if strings.Contains(strings.ToLower(stderr), strings.ToLower(known.text)) {
			return known.why
		}
	}
	return "The TPM did not unlock the system: " + lastLine(stderr)
}

const (
	policyMismatch = "The TPM keeps its key back, because this boot is not the one it knows: the firmware, its settings or the Secure Boot keys have changed."
	lockedTPM      = "The TPM is locked after too many wrong attempts; it recovers by itself when the machine stays on for some hours."
	otherTPM       = "The key belongs to another TPM: the drive was moved to another machine, or the TPM was cleared."
	noToken        = "The system is not bound to a TPM."
	noTPM          = "The TPM cannot be found. It may be turned off in the firmware setup."
)

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	if s == "" {
		return "it did not say why."
	}
	return s[strings.LastIndexByte(s, '\n')+1:]
}
