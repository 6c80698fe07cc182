package seal

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/uefi"
)

// A Lack is what a machine does without because its owner said so when it was installed.
// It is written down in two places: on the boot partition, where the early boot finds it
// before root is open, and on root, where it stays for as long as that does. The first is
// no secret and protects nothing: whoever can write it can change what is started as
// well. What such a machine has for that is the TPM; see start.
type Lack string

// What a machine may lack, one at a time.
const (
	NoSecureBoot Lack = "secure boot"
	NoTPM        Lack = "tpm" // it has one in software instead; see software.go
)

func allLacks() []Lack { return []Lack{NoSecureBoot, NoTPM} }

const (
	// fuseFile says on root what the machine has ever lacked, a line each.
	fuseFile = keyDir + "/trust-fuse"
	// certificateDir has the certificates that an image takes programs by, for each that
	// is signed by the same trust root (mkosi.finalize puts them there).
	certificateDir = "/usr/lib/verity.d"
)

// Mark is the name of the file on the boot partition by which the early boot knows that
// the machine was installed without something; "" without a lack.
func (l Lack) Mark() string {
	switch l {
	case NoSecureBoot:
		return "sb-disabled"
	case NoTPM:
		return "tpm-missing"
	}
	return ""
}

// Short says in a few words what a machine lacks.
func (l Lack) Short() string {
	if l == NoTPM {
		return "the TPM is one in software"
	}
	return "Secure Boot is off"
}

// was is what is said once it lacks that no more.
func (l Lack) was() string {
	if l == NoTPM {
		return "the TPM was one in software at an earlier start"
	}
	return "Secure Boot was off at an earlier start"
}

// Warning says in sentences what the owner gives away.
func (l Lack) Warning() []string {
	if l == NoTPM {
		return []string{
			"There is no TPM 2.0, and the install seed allows that (security.missing_tpm).",
			"A TPM in software takes its place. What that keeps lies on the boot partition of the same disk, and is not encrypted: whoever has the disk, or a copy of it, has the key of the disk. The encryption protects nothing from them.",
			"Secure Boot goes on to start nothing but this system. But what was started cannot be shown to others, and there is no PIN.",
			"The machine stays marked as not trusted, also with a TPM that is added later, until it is installed again or reset to factory settings with that.",
		}
	}
	return []string{
		"Secure Boot is off, and the install seed allows that (security.missing_secure_boot).",
		"The firmware starts whatever it finds. The TPM gives the key of the disk to the boot loader and the kernel images of this system alone, which it knows by what was measured (PCR 2, 4, 7, 11, 12 and 13). But whoever was at the machine may have it start something that only looks like this system and asks for a recovery key: do not type one without a reason that you know.",
		"The kernel does not lock itself down: whoever is root can change it until the next start.",
		"Another card, or another firmware of one or of the machine, needs the recovery key.",
		"The machine stays marked as not trusted, also after Secure Boot is turned on, until it is installed again or reset to factory settings.",
	}
}

// ReadMark reports whether the machine whose boot partition is device was installed
// without something.
func ReadMark(host sys.Host, device string, without Lack) (marked bool, err error) {
	err = onESP(host, device, "ro", func() error {
		marked = host.Files.Exists(esp + "/" + without.Mark())
		return nil
	})
	return marked, err
}

// Forget takes away the marks of what a machine that starts for the first time does not
// lack, after all or by now.
func Forget(host sys.Host, device string, lacks Lack) error {
	for _, l := range allLacks() {
		marked, err := ReadMark(host, device, l)
		if err != nil {
			return err
		}
		if !marked || l == lacks {
			continue
		}
		err = onESP(host, device, "rw", func() error {
			gone := []error{host.Files.RemoveAll(esp + "/" + l.Mark())}
			if l == NoTPM {
				gone = append(gone, host.Files.RemoveAll(keptTPM))
			}
			return errors.Join(append(gone, host.Files.SyncDir(esp))...)
		})
		if err != nil {
			return fmt.Errorf("taking away the mark of a machine with less: %w", err)
		}
	}
	return nil
}

// FirstPCRs are the registers that root is bound to when it is made, in the form of
// systemd-repart(8), --tpm2-pcrs=. What they hold then they will hold at the next start;
// PCR 11 is added by signature. PCR 15 comes in once there is a recovery key, which the
// TPM has to help make after root was opened.
func FirstPCRs(lacks Lack) string {
	if lacks == NoSecureBoot {
		return "2+4+7+12+13"
	}
	return "7"
}

// CheckPrograms looks at what a machine without Secure Boot was started by: the boot
// loader and the kernel image must be those that the firmware measured, and signed by one
// of the certificates in the directory certificates, which the image has. An error says
// why not.
//
// It finds what was changed by mistake, and by whoever changed one file alone. It is no
// protection against somebody who also changed the initrd that it runs in: then there is
// nothing but the TPM, which keeps its key since PCR 4 is another.
func CheckPrograms(host sys.Host, device, certificates string) error {
	trusted, err := imageCertificates(host.Files, certificates)
	if err != nil {
		return err
	}
	s := New(host, nil)
	l, err := s.readLog()
	if err == nil {
		err = l.problem
	}
	if err != nil {
		return fmt.Errorf("what was started cannot be told: %w; a newer firmware may help", err)
	}
	var p bootPartition
	if err := onESP(host, device, "ro", func() (err error) { p, err = s.programs(); return err }); err != nil {
		return err
	}
	return p.check(l.events, trusted)
}

// check says which program that events have was none of p, or not signed as it should be.
func (p bootPartition) check(events []uefi.Event, trusted []*x509.Certificate) error {
	programs := slices.Clone(p.kernels)
	if p.loader != nil {
		programs = append(programs, *p.loader)
	}
	found := 0
	for _, e := range events {
		if e.PCR != 4 || e.Type != uefi.EventApplication {
			continue
		}
		image, err := e.Image()
		if err != nil {
			return err
		}
		if !image.OnDisk {
			continue // of the firmware, or the kernel in a kernel image that is here
		}
		i := slices.IndexFunc(programs, func(k program) bool { return k.digest == e.Digest })
		if i < 0 {
			return fmt.Errorf("the firmware started %s, which is not on the boot partition in that form", path.Clean(strings.ReplaceAll(image.Path, `\`, "/")))
		}
		if why := unsigned(programs[i], trusted); why != "" {
			return errors.New(why)
		}
		found++
	}
	if found < 2 || p.running(events) == nil {
		return errors.New("the firmware measured no boot loader and kernel image that are on the boot partition")
	}
	return nil
}

// unsigned says why none of some certificates vouches for a program; "" if one does.
func unsigned(p program, trusted []*x509.Certificate) string {
	switch {
	case p.problem != nil:
		return fmt.Sprintf("%s: %v", p.file, p.problem)
	case p.signer == nil:
		return p.file + ": nobody has signed it"
	case !slices.ContainsFunc(trusted, p.signer.Equal):
		return fmt.Sprintf("%s: it is signed by %q, which this image has no certificate of", p.file, p.signer.Subject)
	}
	return ""
}

// imageCertificates returns the certificates in a directory of the image.
func imageCertificates(files sys.Dir, dir string) ([]*x509.Certificate, error) {
	entries, err := files.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("reading the certificates of the image: %w", err)
	}
	var all []*x509.Certificate
	for _, e := range entries {
		text, err := readAtMost(files, dir+"/"+e.Name(), maxSmallFile)
		if err != nil {
			return nil, err
		}
		block, _ := pem.Decode(text)
		if block == nil {
			return nil, fmt.Errorf("%s/%s: no certificate in PEM", dir, e.Name())
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s/%s: %w", dir, e.Name(), err)
		}
		all = append(all, cert)
	}
	return all, nil
}

// lacked returns what the machine has lacked at some start, as root has it.
func (s *Seal) lacked() ([]Lack, error) { return lackedAt(s.host.Files, fuseFile) }

func lackedAt(files sys.Dir, fuse string) ([]Lack, error) {
	b, err := readAtMost(files, fuse, maxSmallFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []Lack
	for _, line := range strings.Split(string(bytes.TrimSpace(b)), "\n") {
		all = append(all, Lack(line))
	}
	return all, nil
}

// blow writes down for good what the machine lacks at this start.
func (s *Seal) blow() error { return blowAt(s.host.Files, fuseFile, s.early().Lacks) }

func blowAt(files sys.Dir, fuse string, l Lack) error {
	if l == "" {
		return nil
	}
	all, err := lackedAt(files, fuse)
	if err != nil || slices.Contains(all, l) {
		return err
	}
	var lines []byte
	for _, have := range append(all, l) {
		lines = fmt.Appendln(lines, have)
	}
	if err := files.MkdirAll(path.Dir(fuse), 0o700); err != nil {
		return err
	}
	if err := files.WriteFile(fuse, lines, 0o400); err != nil {
		return fmt.Errorf("keeping that the machine is not to be trusted: %w", err)
	}
	return nil
}

// Alarms are in few words what a machine lacks by its owner's wish.
func (s *Seal) Alarms() []string {
	if l := s.early().Lacks; l != "" {
		return []string{l.Short() + ", as it was installed: this machine is not to be trusted like others"}
	}
	return nil
}
