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
type start struct{ pcr7, pcr11 [sha256.Size]byte }

// unknown is the kernel image of a start whose PCR 11 cannot be told: root is then bound
// to whatever the image's key has signed, any release that was ever built among it.
var unknown = [sha256.Size]byte{} //nolint:gochecknoglobals // never changes

// reckon returns the policy of a binding of the kind of b, at such a start.
func reckon(b luks.TPM2, at start) ([sha256.Size]byte, error) {
	policy, registers := uefi.PCRPolicy{}, map[int][sha256.Size]byte{7: at.pcr7}
	want := []int{7, 11, 15}
	if len(b.PublicKey) > 0 {
		want = []int{7, 15}
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
		if slices.Equal(b.PCRs, []int{7}) { // of the first start, or an earlier release
			want = b.PCRs
		}
	}
	if !slices.Equal(b.PCRs, want) || cmp.Or(b.Bank, "sha256") != "sha256" {
		return [sha256.Size]byte{}, fmt.Errorf("bound to PCRs %v of bank %s", b.PCRs, b.Bank)
	}
	for _, pcr := range want {
		switch pcr {
		case 11:
			registers[pcr] = at.pcr11
		case 15:
			registers[pcr] = [sha256.Size]byte{}
		}
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
		return slices.Equal(b.PCRs, []int{7, 15})
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
func (s *Seal) kept() ([][sha256.Size]byte, error) {
	p, err := s.readESP()
	if err != nil {
		return nil, err
	}
	var all [][sha256.Size]byte
	for _, k := range p.kernels {
		if k.problem == nil {
			all = append(all, k.facts.pcr11)
		}
	}
	if all == nil {
		return nil, errors.New("there is no kernel image on the boot partition")
	}
	return all, nil
}
