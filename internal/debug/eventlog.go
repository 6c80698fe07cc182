package debug

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/uefi"
)

const (
	measurements = "/sys/kernel/security/tpm0/binary_bios_measurements"
	registers    = "/sys/class/tpm/tpm0/pcr-sha256/"

	// maxEventLog is the longest log that is read, in bytes; real ones have
	// some ten thousand.
	maxEventLog = 16 << 20
)

// EventLog returns what was measured about Secure Boot and what was started: the
// events of PCR 4, 7 and 11, and what the TPM holds in the first two.
func (d *Debug) EventLog(context.Context) (api.SecureBootEventLog, error) {
	raw, err := d.measured()
	if err != nil {
		return api.SecureBootEventLog{}, err
	}
	events, err := uefi.ParseEventLog(raw)
	if err != nil {
		return api.SecureBootEventLog{}, fmt.Errorf("reading %s: %w", measurements, err)
	}
	log := api.SecureBootEventLog{EventLog: []api.SecureBootEvent{}}
	for _, e := range events {
		if e.PCR == 4 || e.PCR == 7 || e.PCR == 11 {
			log.EventLog = append(log.EventLog, api.SecureBootEvent{Index: e.PCR, Type: int(e.Type), Data: e.Data, Digest: e.Digest[:]})
		}
	}
	if log.PCR4, err = d.register(4); err != nil {
		return api.SecureBootEventLog{}, err
	}
	if log.PCR7, err = d.register(7); err != nil {
		return api.SecureBootEventLog{}, err
	}
	log.MatchesTPM = replayed(events, 4) == log.PCR4 && replayed(events, 7) == log.PCR7
	return log, nil
}

// measured returns the log as the firmware left it.
func (d *Debug) measured() ([]byte, error) {
	f, err := d.host.Files.Open(measurements)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, api.Errorf(api.NotFound, "the firmware of this machine left no log of what it measured; that takes UEFI and a TPM 2.0")
	}
	if err != nil {
		return nil, fmt.Errorf("reading what was measured: %w", err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxEventLog+1))
	if err != nil {
		return nil, fmt.Errorf("reading what was measured: %w", err)
	}
	if len(raw) > maxEventLog {
		return nil, fmt.Errorf("%s is longer than %d MiB", measurements, maxEventLog>>20)
	}
	return raw, nil
}

// register returns what the TPM holds in a PCR, in lower-case hexadecimal.
func (d *Debug) register(pcr int) (string, error) {
	b, err := d.host.Files.ReadFile(fmt.Sprintf("%s%d", registers, pcr))
	if err != nil {
		return "", fmt.Errorf("reading PCR %d: %w", pcr, err)
	}
	return strings.ToLower(strings.TrimSpace(string(b))), nil
}

func replayed(events []uefi.Event, pcr int) string {
	value := uefi.ReplayPCR(events, pcr)
	return hex.EncodeToString(value[:])
}
