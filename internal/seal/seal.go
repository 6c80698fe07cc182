// Package seal owns what binds the machine's data to the machine: Secure Boot,
// the TPM and the recovery keys.
//
// It works at two times:
//
//	unlock.go    in the initrd: unlock root by the TPM, or say why not and ask
//	recovery.go  in the initrd: a recovery key for root, once
//	seal.go      in the running system: whether all of that holds
//	state.go     in the running system: the document for GET
//	start.go     what root is bound to, and how that is told
//	check.go     in the initrd and the installer: whether the machine has what it needs
//	degraded.go  what it may lack by its owner's wish, and what is done instead
//	software.go  in the initrd: a TPM in software, for a machine without one
//	attest.go    in the running system: what the TPM says to somebody far away
//
// A key leaves this package in three ways only: into a file that root alone can
// read, into a program that unlocks with it, and as an api.Secret into the
// document that the operator asks for. It is in no log and in no error.
//
// The order of the early boot is decided in internal/early. The formats of
// Secure Boot are read by internal/uefi; the pool's key is made by the area
// storage beside this one.
package seal

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"

	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/uefi"
)

const (
	keyDir       = "/var/lib/incus-os"
	rootKey      = keyDir + "/recovery.root.key"
	earlyResult  = "/run/incus-os/early.json"
	trustedState = "system state is fully trusted"
)

// What Unlock and the early boot's result say about how root was opened.
const (
	ByTPM         = "tpm"
	ByRecoveryKey = "recovery key"
)

// A Seal reports on one machine.
type Seal struct {
	host      sys.Host
	retrieved func() bool
	espTurn   sync.Mutex // held while the boot partition is mounted
	turn      sync.Mutex // held while the key slots of root change
	tpmTurn   sync.Mutex // held while the TPM is asked

	imageTurn sync.Mutex        // held while booted is found out
	booted    [sha256.Size]byte // PCR 11 in the initrd of this start, once it is known
	bootedBy  [sha256.Size]byte // PCR 4 of that start
}

// New returns the seal of host. retrieved says whether the operator has
// confirmed to have written the recovery keys down.
func New(host sys.Host, retrieved func() bool) *Seal { return &Seal{host: host, retrieved: retrieved} }

// Name is the area's name in health reports.
func (s *Seal) Name() string { return "seal" }

// Reconcile settles how the machine was started, and complains about everything that
// makes it less trustworthy than it was built to be, and says what to do.
func (s *Seal) Reconcile(ctx context.Context) error {
	doubts, err := s.doubts()
	if err != nil {
		return err
	}
	var complaints []string
	if err := s.blow(); err != nil {
		complaints = append(complaints, err.Error())
	}
	if s.hasTPM() {
		if err := s.settle(ctx); err != nil {
			complaints = append(complaints, err.Error())
		}
	}
	for _, d := range doubts {
		if d.do == "" {
			continue // it is as it was installed, or is no more; Alarms and State say so
		}
		complaints = append(complaints, d.what+"; "+d.do)
	}
	if !s.host.Files.Exists(rootKey) && s.unlockedBy() != "" {
		complaints = append(complaints, "there is no recovery key for root; restart the machine, the TPM then allows to make one")
	}
	if slots := s.unlisted(); slots != nil {
		complaints = append(complaints, complaint(slots))
	}
	if complaints == nil {
		return nil
	}
	return errors.New(strings.Join(complaints, ". "))
}

// A doubt is a reason not to trust the machine's state. There is something to do about it
// unless it is what the owner has chosen, or was in the past.
type doubt struct{ what, do string }

func (s *Seal) doubts() ([]doubt, error) {
	secure, err := s.secureBoot()
	if err != nil {
		return nil, err
	}
	var all []doubt
	switch {
	case !secure && s.early().Lacks == NoSecureBoot:
		all = append(all, doubt{what: "Secure Boot is disabled"})
	case !secure:
		all = append(all, doubt{"Secure Boot is disabled", "turn it on in the firmware setup"})
	}
	software := s.early().Lacks == NoTPM
	if software {
		all = append(all, doubt{what: "using swtpm"})
	}
	if !s.hasTPM() {
		do := "turn it on in the firmware setup"
		if software {
			do = "it was one in software and has ended; restart the machine"
		}
		all = append(all, doubt{"there is no TPM 2.0", do})
	} else if s.unlockedBy() == ByRecoveryKey {
		all = append(all, doubt{"root was unlocked with the recovery key", "put back what was changed in the firmware setup and restart"})
	}
	past, err := s.lacked()
	for _, l := range past {
		if l != s.early().Lacks {
			all = append(all, doubt{what: l.was()})
		}
	}
	return all, err
}

// secureBoot reports whether the firmware enforces signatures.
func (s *Seal) secureBoot() (bool, error) { return secureBoot(s.host.Files) }

func secureBoot(files sys.Dir) (bool, error) {
	b, err := sys.ReadVariable(files, "SecureBoot", string(uefi.GlobalVariable))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if len(b) != 1 {
		return false, fmt.Errorf("the EFI variable SecureBoot has %d bytes; want 1", len(b))
	}
	return b[0] == 1, nil
}

func (s *Seal) hasTPM() bool { return hasTPM(s.host.Files) }
