package seal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/incusos/incusos/internal/uefi"
)

// remember keeps what was measured into PCR 7 at a start that the TPM unlocked, if
// that is not what is kept already. Of a log that does not fit nothing is kept.
func (s *Seal) remember(l bootLog) error {
	if s.unlockedBy() != ByTPM || l.problem != nil {
		return nil
	}
	var seven []uefi.Event
	for _, e := range l.events {
		if e.PCR == 7 {
			seven = append(seven, e)
		}
	}
	log := uefi.EncodeEventLog(seven)
	have, err := s.host.Files.ReadFile(lastGood)
	if err == nil && bytes.Equal(have, log) {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.host.Files.WriteFile(lastGood, log, 0o600); err != nil {
		return fmt.Errorf("keeping what was measured at a good start: %w", err)
	}
	return nil
}

// settle does what follows from how this start went.
func (s *Seal) settle(context.Context) error {
	l, err := s.readLog()
	if err != nil {
		return err
	}
	return s.remember(l)
}
