package seal

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/luks"
	"github.com/incusos/incusos/internal/uefi"
)

const (
	// pinFile is there when the operator wants to be asked for a PIN. Which bindings
	// have one the header says; this says which of two that a cut has left counts.
	pinFile = keyDir + "/tpm-pin"

	// reboundFile is there from when root was bound anew until the next start.
	reboundFile = "/run/incus-os/rebound"

	shortestPIN, longestPIN = 6, 64
)

// bindings are how root is bound to the TPM, and how it should be.
type bindings struct {
	device     string
	header     luks.Header
	live, next start // what this start has measured, and the next will with the same image
	pin        bool  // a PIN is wanted

	provided []start // what else a start to come may measure
}

// has reports whether root is bound to a start, with or without a PIN.
func (b bindings) has(at start, pin bool) bool {
	return slices.ContainsFunc(b.header.TPM2Tokens(), func(t luks.Token) bool { return t.TPM2.PIN == pin && boundTo(t.TPM2, at) })
}

// well reports whether root is bound to a start in the way it should be.
func (b bindings) well(at start, pin bool) bool {
	return slices.ContainsFunc(b.header.TPM2Tokens(), func(t luks.Token) bool {
		return t.TPM2.PIN == pin && boundTo(t.TPM2, at) && strict(t.TPM2, at)
	})
}

// nextPCR7 returns what PCR 7 will be at the next start if the same programs are
// started: what counts are the variables as they are now.
func (s *Seal) nextPCR7(l bootLog) ([sha256.Size]byte, error) {
	variables, err := s.variables(l.events)
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	p, err := uefi.PredictPCR7(l.events, uefi.NextBoot{Variables: variables})
	return p.Value, err
}

// bind gives root a key slot that the TPM opens at such a start, in its initrd and before
// root is open, with a PIN unless that is "". What was there stays. It is only done when
// the header shows it. With a PIN, or where the kernel image cannot be told, any image
// will do that the key of the running one has signed: an update would have to ask for
// the PIN otherwise.
func (s *Seal) bind(ctx context.Context, device string, at start, pin string) error {
	h, err := readHeader(s.host.Files, device)
	if err != nil {
		return err
	}
	k, err := s.readKeyring(h)
	if err != nil {
		return err
	}
	with, err := k.opens()
	if err != nil {
		return err
	}
	args := []string{"--tpm2-device=auto", "--tpm2-pcrlock="}
	signed := pin != "" || at.pcr11 == unknown
	if signed {
		args = append(args, "--tpm2-public-key="+imageKey, "--tpm2-public-key-pcrs=11")
	} else {
		args = append(args, "--tpm2-public-key=", "--tpm2-public-key-pcrs=")
	}
	var literal []string
	for _, pcr := range at.literal(signed) {
		literal = append(literal, fmt.Sprintf("%d:sha256=%x", pcr, at.register(pcr)))
	}
	args = append(args, "--tpm2-pcrs="+strings.Join(literal, "+"))
	env := []string{"PASSWORD=" + with}
	if pin != "" {
		args, env = append(args, "--tpm2-with-pin=yes"), append(env, "NEWPIN="+pin)
	}
	if err := s.cryptenroll(ctx, device, env, args...); err != nil {
		return fmt.Errorf("binding %s to the TPM: %w", device, err)
	}
	if h, err = readHeader(s.host.Files, device); err != nil {
		return err
	}
	if !(bindings{header: h}).well(at, pin != "") {
		return fmt.Errorf("binding %s to the TPM: the header does not show the binding that was asked for", device)
	}
	return nil
}

// unbind takes away the bindings that no start to come has a use for, and, once there is
// one as it is wanted, those that are not: with or without a PIN that should not be, or
// to a signature. Those of other kernel images on the boot partition stay, so that the
// machine can go back to one. It never takes the last that would unlock.
func (s *Seal) unbind(ctx context.Context, b bindings) error {
	starts := append([]start{b.live, b.next}, b.provided...)
	if len(b.useless(starts)) == 0 {
		return nil
	}
	images, err := s.kept()
	if err != nil {
		return fmt.Errorf("looking for bindings that have had their day: %w", err)
	}
	for _, at := range slices.Clone(starts) {
		for _, image := range images {
			starts = append(starts, at.of(image))
		}
	}
	for _, slot := range b.useless(starts) {
		if err := s.cryptenroll(ctx, b.device, nil, "--wipe-slot="+strconv.Itoa(slot)); err != nil {
			return fmt.Errorf("taking away a binding that has had its day: %w", err)
		}
	}
	return nil
}

// useless returns the key slots of bindings that none of the starts has a use for, or
// that are not as they should be while one that is is there.
func (b bindings) useless(starts []start) []int {
	var slots []int
	for _, t := range b.header.TPM2Tokens() {
		useful := slices.ContainsFunc(starts, func(at start) bool { return boundTo(t.TPM2, at) })
		wanted := t.TPM2.PIN == b.pin && strict(t.TPM2, b.next)
		if !useful || !wanted && b.well(b.next, b.pin) {
			slots = append(slots, t.Slots...)
		}
	}
	return slots
}

// bound returns the bindings as they are, and what the next start will measure.
func (s *Seal) bound() (b bindings, err error) {
	if !s.hasTPM() {
		return b, api.Errorf(api.Conflict, "there is no TPM 2.0; turn it on in the firmware setup")
	}
	if b.device, b.header, err = s.root(); err != nil {
		return b, err
	}
	if b.live, err = measured(s.host.Files); err != nil {
		return b, err
	}
	l, err := s.readLog()
	if err != nil {
		return b, err
	}
	b.live.pcr11 = s.image(l)
	b.next, b.pin = b.live, s.host.Files.Exists(pinFile)
	if b.provided, err = s.provided(); err != nil {
		return b, err
	}
	// What firmware measures of programs and cards stays, since nothing but an update
	// changes a program, and that is provided for.
	if l.problem == nil { // else nothing is known but that this start went as it did
		b.next.pcr7, err = s.nextPCR7(l)
	}
	return b, err
}

// Rebind binds root to the TPM for the next start, when that would not unlock by
// itself: after a recovery key was used, or when what it will measure is known to be
// something else. Where a PIN is asked for, it has to be given once more.
func (s *Seal) Rebind(ctx context.Context, pin string) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	b, err := s.bound()
	if err != nil {
		return err
	}
	stale := s.unlockedBy() == ByRecoveryKey && !s.host.Files.Exists(reboundFile)
	switch {
	case b.has(b.next, b.pin) && !stale:
		return api.Errorf(api.Conflict, "root is bound to the TPM as it should be; the next start unlocks it by itself")
	case b.pin && pin == "":
		return api.Fieldf("pin", "is missing: this machine asks for a PIN, which the TPM has to be told again; remove it first if nobody knows it")
	case !b.pin && pin != "":
		return api.Fieldf("pin", "is of no use: this machine asks for none; :set-pin sets one")
	}
	if pin != "" {
		if err := checkPIN(pin); err != nil {
			return err
		}
	}
	if stale {
		if err := s.wipeStale(ctx, b); err != nil {
			return err
		}
	}
	if err := s.bind(ctx, b.device, b.next, pin); err != nil {
		return err
	}
	return s.host.Files.WriteFile(reboundFile, nil, 0o600)
}

// wipeStale takes away the bindings that should have unlocked this start and did not:
// they are to another TPM, and systemd-cryptenroll would take them for good.
func (s *Seal) wipeStale(ctx context.Context, b bindings) error {
	for _, t := range b.header.TPM2Tokens() {
		if !boundTo(t.TPM2, b.next) {
			continue
		}
		for _, slot := range t.Slots {
			if err := s.cryptenroll(ctx, b.device, nil, "--wipe-slot="+strconv.Itoa(slot)); err != nil {
				return fmt.Errorf("taking away the binding to another TPM: %w", err)
			}
		}
	}
	return nil
}

// SetPIN has the TPM ask for a PIN from the next start on, or for another one. The
// binding with it is there before the one without goes.
func (s *Seal) SetPIN(ctx context.Context, pin string) error {
	if err := checkPIN(pin); err != nil {
		return err
	}
	return s.changePIN(ctx, pin, func() error { return s.host.Files.WriteFile(pinFile, nil, 0o600) })
}

// RemovePIN has the TPM unlock without asking again.
func (s *Seal) RemovePIN(ctx context.Context) error {
	if !s.host.Files.Exists(pinFile) {
		return api.Errorf(api.Conflict, "this machine asks for no PIN")
	}
	return s.changePIN(ctx, "", func() error { return s.host.Files.Remove(pinFile) })
}

func (s *Seal) changePIN(ctx context.Context, pin string, decide func() error) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	b, err := s.bound()
	if err != nil {
		return err
	}
	if pin != "" && s.early().Lacks == NoTPM {
		return api.Errorf(api.Conflict, "the TPM of this machine is one in software: whoever has the disk can try PINs for as long as they like; add a TPM first")
	}
	if b.live.open() && pin != "" {
		return api.Errorf(api.Conflict, "Secure Boot is off: root is bound to each kernel image, so that every update would have to ask for the PIN; turn Secure Boot on first")
	}
	if s.unlockedBy() == ByRecoveryKey && !s.host.Files.Exists(reboundFile) {
		return api.Errorf(api.Conflict, "this start was unlocked with a recovery key: bind root to the TPM first, :tpm-rebind, and restart")
	}
	for _, at := range append([]start{b.next}, b.provided...) {
		if err := s.bind(ctx, b.device, at, pin); err != nil {
			return err
		}
		if pin != "" {
			break // it is the same for all images; another PCR 7 wants the PIN again
		}
	}
	if err := decide(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("keeping whether a PIN is wanted: %w", err)
	}
	if b.header, err = readHeader(s.host.Files, b.device); err != nil {
		return err
	}
	b.pin = pin != ""
	return s.unbind(ctx, b)
}

// checkPIN says why a PIN is refused. A TPM lets nobody try for long, so that it can
// be shorter than a recovery key.
func checkPIN(pin string) error {
	if len(pin) < shortestPIN || len(pin) > longestPIN {
		return api.Fieldf("pin", "has %d characters; want %d to %d", len(pin), shortestPIN, longestPIN)
	}
	kinds := make(map[rune]bool)
	for _, r := range pin {
		if r <= ' ' || r > '~' {
			return api.Fieldf("pin", "has characters that not every keyboard has, or blanks; want letters, digits and signs of ASCII")
		}
		kinds[r] = true
	}
	if len(kinds) < 3 {
		return api.Fieldf("pin", "consists of %d different characters; want at least 3", len(kinds))
	}
	if isRecoveryKey(normalize(pin)) {
		return api.Fieldf("pin", "looks like a recovery key; want something else")
	}
	return nil
}
