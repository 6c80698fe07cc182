package seal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/incusos/incusos/internal/luks"
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

// settle does what follows from how this start went: what unlocked it is remembered,
// the bindings that have had their day go, and the next start is provided for.
func (s *Seal) settle(ctx context.Context) error {
	l, err := s.readLog()
	if err != nil {
		return err
	}
	if err := s.remember(l); err != nil {
		return err
	}
	if s.unlockedBy() != ByTPM {
		return nil
	}
	s.turn.Lock()
	defer s.turn.Unlock()
	b, err := s.bound()
	if err != nil {
		return err
	}
	return s.settleBindings(ctx, b)
}

// settleBindings binds root for the next start, unless it is, and then takes away what
// neither this start nor the next is bound by.
func (s *Seal) settleBindings(ctx context.Context, b bindings) error {
	if !b.has(b.live, b.pin) && !b.has(b.live, !b.pin) {
		return nil // it was unlocked in a way that this release does not know
	}
	if b.pin && !slices.ContainsFunc(b.header.TPM2Tokens(), func(t luks.Token) bool { return t.TPM2.PIN }) {
		return errors.New("a PIN was set, and nothing on the disk asks for it: root has a header from before that; find out who put it there, and set the PIN again: incusos os system security set-pin")
	}
	if b.pin && !b.has(b.next, true) {
		return errors.New("the next start will measure another PCR 7, and root is not bound to it: somebody who knows the PIN has to set it again before the machine is restarted; incusos os system security set-pin")
	}
	if !b.pin && !b.well(b.next, false) {
		if err := s.tighten(ctx, &b); err != nil {
			return err
		}
	}
	return s.unbind(ctx, b)
}

// tighten binds root to the next start. Where a signature was enough until now, it is
// bound to the other kernel images on the boot partition as well: they would have
// unlocked it anyway, and one of them is what the machine goes back to.
func (s *Seal) tighten(ctx context.Context, b *bindings) error {
	starts := []start{b.next, b.live}
	loose := slices.ContainsFunc(b.header.TPM2Tokens(), func(t luks.Token) bool { return len(t.TPM2.PublicKey) > 0 && boundTo(t.TPM2, b.live) })
	if loose && b.next.pcr11 != unknown {
		images, err := s.kept()
		if err != nil {
			return err
		}
		for _, image := range images {
			if at := b.next.of(image); at != b.next {
				starts = append(starts, at)
			}
		}
	}
	for i := len(starts) - 1; i >= 0; i-- { // the next one last: once it is there this is not done again
		if b.well(starts[i], false) {
			continue
		}
		if err := s.bind(ctx, b.device, starts[i], ""); err != nil {
			return err
		}
	}
	var err error
	b.header, err = readHeader(s.host.Files, b.device)
	return err
}
