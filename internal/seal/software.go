package seal

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/uefi"
)

// A machine without TPM has swtpm(8) behind the kernel's vtpm_proxy, where the owner has
// chosen so. It protects nothing from whoever has the disk. It is there so that all else
// is the same on each machine: root that opens by itself, bindings that updates provide
// for, the doctor.
//
// What it keeps is made at the first start, with the primary key that root is bound by,
// and written to the boot partition before there is a root. Nothing that counts is added
// later, so that a start copies it to memory and no start writes it back.
//
// Firmware without TPM measures nothing, nor does systemd-stub. What they would have
// measured is worked out from the variables of Secure Boot and from the programs that were
// started, and told to the TPM by the initrd: registers and log are then what they are
// elsewhere, for as long as nobody wants to lie.
const (
	softwareUnit  = "incus-os-swtpm.service"
	softwareDir   = "/run/incus-os/swtpm"
	softwareState = "tpm2-00.permall" // as swtpm calls it

	// softwareLog is the event log; it is there if and only if the TPM is one in software.
	softwareLog = "/run/incus-os/measured.log"

	keptTPM = esp + "/swtpm"
	maxTPM  = 4 << 20 // bytes; it has some thousand

	tpmDevice = "/dev/tpmrm0"

	// storageKey is where the primary key is kept that keys of disks are sealed by (TCG TPM
	// v2.0 Provisioning Guidance, 7.8); systemd-cryptenroll takes what is there.
	storageKey = 0x81000001
)

// softwareTimeout is how long the TPM in software may take to answer for the first time.
const softwareTimeout = time.Minute

// StartSoftwareTPM gives the machine a TPM in software, which knows by its registers how
// the machine was started, as if it had been there. Device is the boot partition. On the
// first start it is a new one. A new one also takes the place of one that is lost or
// damaged: it does not open root, and warning says so; "" if there is nothing to say.
func StartSoftwareTPM(ctx context.Context, host sys.Host, device string, first bool) (warning string, err error) {
	kept, err := readKept(host, device)
	switch {
	case err != nil:
		return "", err
	case first:
		kept = nil
	case kept == nil:
		warning = "what the TPM in software kept is gone from the boot partition; it is a new one"
	}
	err = runSoftware(ctx, host, kept)
	if err != nil && kept != nil {
		warning = fmt.Sprintf("what the TPM in software kept on the boot partition is damaged; it is a new one (%v)", err)
		kept = nil
		err = runSoftware(ctx, host, nil)
	}
	if err == nil {
		err = measureStart(host, device)
	}
	if err == nil && kept == nil {
		err = keepNew(host, device)
	}
	if err != nil {
		return "", fmt.Errorf("the TPM in software: %w", err)
	}
	return warning, nil
}

// readKept returns what the TPM has kept; nil if there is nothing.
func readKept(host sys.Host, device string) (kept []byte, err error) {
	err = onESP(host, device, "ro", func() error {
		kept, err = readAtMost(host.Files, keptTPM+"/"+softwareState, maxTPM)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	return kept, err
}

// runSoftware starts the TPM with what it has kept, or as a new one.
func runSoftware(ctx context.Context, host sys.Host, kept []byte) error {
	err := errors.Join(host.Units.Stop(ctx, softwareUnit), host.Files.RemoveAll(softwareDir), host.Files.MkdirAll(softwareDir, 0o700))
	if err == nil && kept != nil {
		err = host.Files.WriteFile(softwareDir+"/"+softwareState, kept, 0o600)
	}
	if err != nil {
		return err
	}
	if err := host.Units.Start(ctx, softwareUnit); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, softwareTimeout)
	defer cancel()
	return sys.WaitFor(ctx, host.Files, tpmDevice)
}

// keepNew gives a new TPM its primary key, and keeps what it is then.
func keepNew(host sys.Host, device string) error {
	if err := withTPM(host, makeStorageKey); err != nil {
		return fmt.Errorf("making its primary key: %w", err)
	}
	state, err := readAtMost(host.Files, softwareDir+"/"+softwareState, maxTPM)
	if err != nil {
		return err
	}
	return onESP(host, device, "rw", func() error {
		return host.Files.WriteFile(keptTPM+"/"+softwareState, state, 0o600)
	})
}

// withTPM does something in a conversation with the TPM.
func withTPM(host sys.Host, do func(transport.TPM) error) error {
	tpm, err := host.TPM.Open()
	if err != nil {
		return err
	}
	return errors.Join(do(tpm), tpm.Close())
}

func makeStorageKey(tpm transport.TPM) (err error) {
	key, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(tpm)
	if err != nil {
		return err
	}
	defer func() {
		_, flushed := tpm2.FlushContext{FlushHandle: key.ObjectHandle}.Execute(tpm)
		err = errors.Join(err, flushed)
	}()
	_, err = tpm2.EvictControl{
		Auth:             tpm2.TPMRHOwner,
		ObjectHandle:     &tpm2.NamedHandle{Handle: key.ObjectHandle, Name: key.Name},
		PersistentHandle: storageKey,
	}.Execute(tpm)
	return err
}

// measureStart tells the TPM how this machine was started, up to the phase of the initrd,
// and leaves a log of that.
func measureStart(host sys.Host, device string) error {
	var p bootPartition
	s := New(host, nil)
	if err := onESP(host, device, "ro", func() (err error) { p, err = s.programs(); return err }); err != nil {
		return err
	}
	image, err := p.startedImage(host.Files)
	if err != nil {
		return err
	}
	events, err := s.reconstruct(p, image)
	if err != nil {
		return fmt.Errorf("working out how the machine was started: %w", err)
	}
	err = withTPM(host, func(tpm transport.TPM) error {
		for _, e := range events {
			if err := measure(tpm, e.PCR, e.Digest); err != nil {
				return err
			}
		}
		for _, d := range append(slices.Clone(image.digests), uefi.PhaseDigest(uefi.PhaseInitrd)) {
			if err := measure(tpm, 11, d); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return host.Files.WriteFile(softwareLog, uefi.EncodeEventLog(events), 0o600)
}

// startedImage returns the kernel image that runs.
func (p bootPartition) startedImage(files sys.Dir) (program, error) {
	name, err := sys.StartedImage(files)
	if err != nil {
		return program{}, err
	}
	plain := func(name string) string { return counter.ReplaceAllString(name, ".efi") } // the boot loader counts in the name
	i := slices.IndexFunc(p.kernels, func(k program) bool { return strings.EqualFold(plain(k.file), plain(name)) })
	if i < 0 {
		return program{}, fmt.Errorf("the kernel image that was started is %q, and that is not on the boot partition", name)
	}
	return p.kernels[i], p.kernels[i].problem
}

// reconstruct returns the log of a start of image, as firmware would have written it.
func (s *Seal) reconstruct(p bootPartition, image program) ([]uefi.Event, error) {
	if p.loader == nil {
		return nil, errors.New("there is no boot loader on the boot partition")
	}
	if p.loader.problem != nil {
		return nil, p.loader.problem
	}
	variables, err := s.variables(nil)
	if err != nil {
		return nil, err
	}
	if variables["SecureBoot"], err = sys.ReadVariable(s.host.Files, "SecureBoot", string(uefi.GlobalVariable)); err != nil {
		return nil, err
	}
	return uefi.Reconstruct(variables, []uefi.Started{
		{Path: p.loader.file, Digest: p.loader.digest, Signer: p.loader.signer},
		{Path: image.file, Digest: image.digest, Signer: image.signer},
	})
}

// measure extends a register.
func measure(tpm transport.TPM, pcr int, digest [sha256.Size]byte) error {
	_, err := tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(pcr), Auth: tpm2.PasswordAuth(nil)}, //nolint:gosec // below 24
		Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: digest[:]}}},
	}.Execute(tpm)
	if err != nil {
		return fmt.Errorf("extending PCR %d: %w", pcr, err)
	}
	return nil
}

// LeaveInitrd tells a TPM in software that the initrd is over, which systemd does where
// firmware has told it of a TPM.
func LeaveInitrd(host sys.Host) error {
	if !host.Files.Exists(softwareLog) {
		return nil
	}
	return withTPM(host, func(tpm transport.TPM) error { return measure(tpm, 11, uefi.PhaseDigest(uefi.PhaseLeave)) })
}

// ConfirmLack looks whether root, which is mounted at dir, is of a machine that was
// installed without a TPM, and writes down that it is at the first start. The mark on the
// boot partition anybody can make; on a machine that had a TPM it would turn a start that
// must not be into one that goes on with less.
func ConfirmLack(files sys.Dir, dir string, l Lack) error {
	if l != NoTPM {
		return nil
	}
	known, err := lackedAt(files, dir+fuseFile)
	if err != nil || slices.Contains(known, l) {
		return err
	}
	if files.Exists(dir + rootKey) { // which is made after this
		return errors.New("this system was installed on a machine with a TPM 2.0, and somebody has marked the boot partition as that of one without; turn the TPM on in the firmware setup, and take the file " + l.Mark() + " away from there")
	}
	return blowAt(files, dir+fuseFile, l)
}

// measuring is what has systemd's programs measure although firmware knows of no TPM.
func measuring(files sys.Dir) []string {
	if files.Exists(softwareLog) {
		return []string{"SYSTEMD_FORCE_MEASURE=1"}
	}
	return nil
}

// eventLog is where it is written down how the machine was started.
func eventLog(files sys.Dir) string {
	if files.Exists(softwareLog) {
		return softwareLog
	}
	return measurements
}
