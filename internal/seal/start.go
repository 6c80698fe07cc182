package seal

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/incusos/incusos/internal/luks"
	"github.com/incusos/incusos/internal/uefi"
)

// A start is what the initrd of one finds in the registers that root is bound to. PCR
// 15 is part of each binding as well: it is empty until root is open, and the TPM gives
// nothing after that.
//
// PCR 2 and 4 count where Secure Boot is off, and are zeros where it is on. Without it
// anybody can measure into PCR 11 what they like, but what firmware starts it measures
// before: programs into PCR 4, drivers, also those that the boot loader finds on the boot
// partition, into PCR 2. Nor is the command line of a kernel image the only one then: what
// is given to it in its place, or added, comes into PCR 12, and extensions of the initrd
// into PCR 13 (systemd-stub(7)). Both are empty in a start of ours.
type start struct{ pcr2, pcr4, pcr7, pcr11 [sha256.Size]byte }

// open reports whether it is one with Secure Boot off.
func (at start) open() bool { return at.pcr4 != unknown }

// of returns the start that differs from at in that another kernel image is started.
func (at start) of(image start) start {
	at.pcr11 = image.pcr11
	if at.open() {
		at.pcr4 = image.pcr4
	}
	return at
}

// literal are the registers that a binding to at is to the values of; without PCR 11 if
// that is by a signature.
func (at start) literal(signed bool) []int {
	switch {
	case at.open() && signed:
		return []int{2, 4, 7, 12, 13, 15}
	case at.open():
		return []int{2, 4, 7, 11, 12, 13, 15}
	case signed:
		return []int{7, 15}
	}
	return []int{7, 11, 15}
}

// register is what at has in one of these registers.
func (at start) register(pcr int) [sha256.Size]byte {
	switch pcr {
	case 2:
		return at.pcr2
	case 4:
		return at.pcr4
	case 7:
		return at.pcr7
	case 11:
		return at.pcr11
	}
	return [sha256.Size]byte{}
}

// unknown is the kernel image of a start whose PCR 11 cannot be told: root is then bound
// to whatever the image's key has signed, any release that was ever built among it.
var unknown = [sha256.Size]byte{} //nolint:gochecknoglobals // never changes

// reckon returns the policy of a binding of the kind of b, at such a start.
func reckon(b luks.TPM2, at start) ([sha256.Size]byte, error) {
	policy, registers := uefi.PCRPolicy{}, make(map[int][sha256.Size]byte)
	want := at.literal(len(b.PublicKey) > 0)
	if len(b.PublicKey) > 0 {
		key, err := uefi.PublicKey(b.PublicKey)
		if err == nil && !slices.Equal(b.SignedPCRs, []int{11}) {
			err = fmt.Errorf("signed are PCRs %v", b.SignedPCRs)
		}
		if err == nil {
			policy, err = policy.Authorized(key)
		}
		if err != nil {
			return [sha256.Size]byte{}, err
		}
		first := []int{7} // and of an earlier release
		if at.open() {
			first = []int{2, 4, 7, 12, 13}
		}
		if slices.Equal(b.PCRs, first) {
			want = b.PCRs
		}
	}
	if !slices.Equal(b.PCRs, want) || cmp.Or(b.Bank, "sha256") != "sha256" {
		return [sha256.Size]byte{}, fmt.Errorf("bound to PCRs %v of bank %s", b.PCRs, b.Bank)
	}
	for _, pcr := range want {
		registers[pcr] = at.register(pcr)
	}
	policy = policy.PCRs(registers)
	if b.PIN {
		policy = policy.AuthValue()
	}
	return policy.Digest(), nil
}

// strict reports whether a binding is of the kind that Reconcile makes: to one kernel
// image and not to a signature, unless there is a PIN, for which somebody is asked. A
// start whose image cannot be told has no such binding.
func strict(b luks.TPM2, at start) bool {
	if b.PIN || at.pcr11 == unknown {
		return slices.Equal(b.PCRs, at.literal(true))
	}
	return len(b.PublicKey) == 0
}

// image returns what PCR 11 held in the initrd of this start: what the kernel image that
// was started comes to, if that leads to what the register holds by now. Else it is
// unknown.
func (s *Seal) image(l bootLog) [sha256.Size]byte {
	s.imageTurn.Lock()
	defer s.imageTurn.Unlock()
	if s.booted == unknown || s.bootedBy != l.live[4] {
		s.booted, s.bootedBy = s.measuredImage(l), l.live[4]
	}
	return s.booted
}

func (s *Seal) measuredImage(l bootLog) [sha256.Size]byte {
	p, err := s.readESP()
	if err != nil {
		return unknown
	}
	running := p.running(l.events)
	eleven, err := register(s.host.Files, 11)
	if err != nil || running == nil {
		return unknown
	}
	phases := uefi.PhasesRunning()[1:]
	for n := range len(phases) + 1 {
		if uefi.AfterPhases(running.facts.pcr11, phases[:n]...) == eleven {
			return running.facts.pcr11
		}
	}
	return unknown
}

// kept returns the kernel images on the boot partition, by what they measure. Bindings
// to them stay, and none is made for them: who put them there is not known.
func (s *Seal) kept() ([]start, error) {
	p, err := s.readESP()
	if err != nil {
		return nil, err
	}
	secure, err := s.secureBoot()
	if err != nil {
		return nil, err
	}
	var l bootLog
	if !secure {
		if l, err = s.readLog(); err == nil {
			err = l.problem
		}
		if err != nil {
			return nil, err
		}
	}
	var all []start
	for _, k := range p.kernels {
		if k.problem != nil {
			continue
		}
		image := start{pcr11: k.facts.pcr11}
		if !secure {
			if image.pcr4, err = p.pcr4(l.events, k); err != nil {
				return nil, fmt.Errorf("%s: %w", k.file, err)
			}
		}
		all = append(all, image)
	}
	if all == nil {
		return nil, errors.New("there is no kernel image on the boot partition")
	}
	return all, nil
}
