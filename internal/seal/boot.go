package seal

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/uefi"
)

const (
	measurements = "/sys/kernel/security/tpm0/binary_bios_measurements"
	maxLog       = 16 << 20 // bytes; real ones have some ten thousand

	esp       = "/run/incus-os/esp" // where the boot partition is looked into
	loaderEFI = "/EFI/BOOT/BOOTX64.EFI"
	kernelDir = "/EFI/Linux"
)

// loaders are the names that firmware starts the boot loader by.
func loaders() []string { return []string{loaderEFI, "/EFI/BOOT/BOOTAA64.EFI"} }

// A log is what firmware wrote down of this start.
type bootLog struct {
	events  []uefi.Event
	live    map[int][sha256.Size]byte // what the TPM holds in PCR 0, 4 and 7
	problem error                     // why nothing can be predicted from it; nil if it can
}

// readLog reads the event log and compares it with the TPM. An error is one of this
// machine; a log that does not fit is a problem in it.
func (s *Seal) readLog() (bootLog, error) {
	var l bootLog
	raw, err := readAtMost(s.host.Files, eventLog(s.host.Files), maxLog)
	if errors.Is(err, fs.ErrNotExist) {
		l.problem = errors.New("the firmware left no log of what it measured")
		return l, nil
	}
	if err != nil {
		return l, err
	}
	l.live = make(map[int][sha256.Size]byte)
	for _, pcr := range []int{0, 4, 7} {
		if l.live[pcr], err = register(s.host.Files, pcr); err != nil {
			return l, err
		}
	}
	events, parseErr := uefi.ParseEventLog(raw)
	// PCR 0 is no part of any prediction, and some firmware starts it oddly.
	l.events, l.problem = uefi.Replays(events, map[int][sha256.Size]byte{4: l.live[4], 7: l.live[7]})
	if l.problem != nil && parseErr != nil {
		l.problem = fmt.Errorf("the event log cannot be read to its end: %w", parseErr)
	}
	return l, nil
}

// readAtMost reads a file that says nothing true about its length.
func readAtMost(files sys.Dir, name string, limit int64) ([]byte, error) {
	f, err := files.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s is longer than %d MiB", name, limit>>20)
	}
	return b, err
}

// variables returns the values that the variables of Secure Boot, and what else a log
// has of PCR 7, have by now: those are what the next start measures.
func (s *Seal) variables(events []uefi.Event) (map[string][]byte, error) {
	now := make(map[string][]byte)
	for _, name := range []string{"PK", "KEK", "db", "dbx"} {
		v, err := uefi.SecureBootVariable(name)
		if err != nil {
			return nil, err
		}
		value, err := sys.ReadVariable(s.host.Files, name, string(v.Vendor))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		now[name] = value
	}
	for _, e := range events {
		if e.PCR != 7 || e.Type != uefi.EventVariable {
			continue
		}
		v, err := e.Variable()
		if err != nil || strings.ContainsAny(v.Name, "/\x00") {
			continue // PredictPCR7 says so
		}
		if _, known := now[v.Name]; known {
			continue
		}
		value, err := sys.ReadVariable(s.host.Files, v.Name, string(v.Vendor))
		if errors.Is(err, fs.ErrNotExist) {
			continue // one that the firmware hides from systems: it stays as it was measured
		}
		if err != nil {
			return nil, err
		}
		now[v.Name] = value
	}
	return now, nil
}

// A program is a boot loader or a kernel image on the boot partition.
type program struct {
	file    string // on the boot partition, such as "/EFI/Linux/IncusOS_202601010000.efi"
	version string // of a kernel image
	digest  [sha256.Size]byte
	signer  *x509.Certificate // nil: nobody
	payload [sha256.Size]byte // digest of the kernel in a kernel image; zero if that is none
	problem error             // why it is none; the rest is not known then

	facts   facts               // of a kernel image: PCR 11 in the initrd, and what is signed of it
	digests [][sha256.Size]byte // what of it is measured into PCR 11, in order
}

// A partition is what is on the boot partition.
type bootPartition struct {
	loader  *program // nil: none
	kernels []program
	// ours are the certificates that the updates on it enrol, by variable: those
	// that the image was built with.
	ours map[string][]*x509.Certificate
}

// readESP looks into the boot partition. Nobody else is kept from it for longer than
// that takes.
func (s *Seal) readESP() (p bootPartition, err error) {
	d, err := s.disk()
	if err != nil {
		return p, err
	}
	part, ok := d.Partition("esp")
	if !ok {
		return p, fmt.Errorf("%s has no boot partition: none is labelled esp", d.Path)
	}
	s.espTurn.Lock()
	defer s.espTurn.Unlock()
	err = onESP(s.host, part.Path, "ro", func() error {
		p, err = s.programs()
		return err
	})
	return p, err
}

// onESP does something while a boot partition is mounted at esp, "ro" or "rw".
func onESP(host sys.Host, device, mode string, do func() error) (err error) {
	if err := host.Files.MkdirAll(esp, 0o700); err != nil {
		return err
	}
	options := []string{"nodev", "nosuid", "noexec"}
	if mode == "ro" {
		options = append([]string{"ro"}, options...)
	}
	if err := host.Mounts.Mount(device, esp, "vfat", options...); err != nil {
		return fmt.Errorf("looking into the boot partition: %w", err)
	}
	defer func() { err = errors.Join(err, host.Mounts.Unmount(esp)) }()
	return do()
}

// programs reads what is below the mounted boot partition.
func (s *Seal) programs() (p bootPartition, err error) {
	for _, name := range loaders() {
		if s.host.Files.Exists(esp + name) {
			loader := s.readProgram(name, false)
			p.loader = &loader
			break
		}
	}
	entries, err := s.host.Files.ReadDir(esp + kernelDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return p, err
	}
	for _, e := range entries {
		if strings.EqualFold(path.Ext(e.Name()), ".efi") {
			p.kernels = append(p.kernels, s.readProgram(kernelDir+"/"+e.Name(), true))
		}
	}
	slices.SortStableFunc(p.kernels, startsBefore)
	p.ours = make(map[string][]*x509.Certificate)
	for _, name := range []string{"PK", "KEK", "db"} {
		b, err := readAtMost(s.host.Files, esp+"/loader/keys/auto/"+name+".auth", maxSmallFile)
		if err != nil {
			continue // an image whose keys were enrolled by hand
		}
		if u, err := uefi.ParseUpdate(b); err == nil {
			if lists, err := uefi.ParseSignatureLists(u.Payload); err == nil {
				p.ours[name] = uefi.X509Certificates(lists)
			}
		}
	}
	return p, nil
}

// counter matches the end of a kernel image's name with boot counting: tries left, and
// tries done (systemd.io/AUTOMATIC_BOOT_ASSESSMENT).
var counter = regexp.MustCompile(`\+(\d+)(-\d+)?\.efi$`)

// startsBefore orders kernel images as systemd-boot chooses among them: those with no
// tries left come last, and then the newest version first.
func startsBefore(a, b program) int {
	spent := func(p program) bool {
		m := counter.FindStringSubmatch(p.file)
		return m != nil && strings.Trim(m[1], "0") == ""
	}
	if spent(a) != spent(b) {
		if spent(a) {
			return 1
		}
		return -1
	}
	return strings.Compare(b.version, a.version)
}

// version matches that of our images in the name of a file.
var version = regexp.MustCompile(`_(\d{12})`)

// readProgram reads a program of the mounted boot partition.
func (s *Seal) readProgram(file string, kernel bool) program {
	p := program{file: file}
	if m := version.FindStringSubmatch(file); m != nil {
		p.version = m[1]
	}
	f, err := s.host.Files.Open(esp + file)
	if err != nil {
		p.problem = err
		return p
	}
	defer f.Close()
	p.problem = p.read(f, kernel)
	return p
}

func (p *program) read(f fs.File, kernel bool) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return p.readFrom(f.(io.ReaderAt), info.Size(), kernel) //nolint:forcetypeassert // a file of the system is
}

// readFrom reads a program of size bytes; of a kernel image also what it will measure.
func (p *program) readFrom(r io.ReaderAt, size int64, kernel bool) error {
	pe, err := uefi.OpenProgram(r, size)
	if err != nil {
		return err
	}
	if p.digest, err = pe.Authenticode(); err != nil {
		return err
	}
	signers, err := pe.Signers()
	if err != nil {
		return err
	}
	if len(signers) > 0 {
		p.signer = signers[0]
	}
	if !kernel {
		return nil
	}
	if payload, err := uefi.Payload(pe); err == nil {
		p.payload = payload // else it is not needed, or PredictPCR4 says so
	}
	if p.digests, err = uefi.UKIDigests(pe); err != nil {
		return err
	}
	p.facts.pcr11 = uefi.ReplayDigests(p.digests, uefi.PhaseInitrd)
	if p.facts.key, err = pe.Text(".pcrpkey", maxSmallFile); err != nil {
		return err
	}
	p.facts.policies, err = uefi.SignedPolicies(pe)
	return err
}

// running returns the kernel image that was started: the one whose digest the log
// has; nil if it is gone or the log is silent.
func (p bootPartition) running(events []uefi.Event) *program {
	for i := range p.kernels {
		if started(events, p.kernels[i]) {
			return &p.kernels[i]
		}
	}
	return nil
}

// started reports whether a program is one that events have.
func started(events []uefi.Event, p program) bool {
	return p.problem == nil && slices.ContainsFunc(events, func(e uefi.Event) bool {
		return e.PCR == 4 && e.Type == uefi.EventApplication && e.Digest == p.digest
	})
}

// next is how a start of a kernel image on p will differ from the one that events are
// of.
func (p bootPartition) next(events []uefi.Event, variables map[string][]byte, kernel program) uefi.NextBoot {
	n := uefi.NextBoot{Variables: variables, Payload: kernel.payload, Programs: func(file string) ([sha256.Size]byte, bool) {
		file = strings.ReplaceAll(file, `\`, "/")
		switch {
		case p.loader != nil && strings.EqualFold(file, p.loader.file):
			return p.loader.digest, p.loader.problem == nil
		case strings.HasPrefix(strings.ToLower(file), strings.ToLower(kernelDir)+"/"):
			return kernel.digest, true
		}
		return [sha256.Size]byte{}, false
	}}
	was := p.running(events)
	if p.loader == nil || p.loader.signer == nil || kernel.signer == nil || was == nil || was.signer == nil {
		return n // what vouched stays what it was, for all that is known
	}
	n.Will = []*x509.Certificate{p.loader.signer, kernel.signer}
	n.Was = []*x509.Certificate{was.signer}
	if started(events, *p.loader) {
		n.Was = []*x509.Certificate{p.loader.signer, was.signer}
	}
	n.Ours = append(n.Ours, p.ours["db"]...)
	return n
}

// pcr4 returns what PCR 4 will hold after a start of a kernel image on p, or one that will
// be there.
func (p bootPartition) pcr4(events []uefi.Event, kernel program) ([sha256.Size]byte, error) {
	prediction, err := uefi.PredictPCR4(events, p.next(events, nil, kernel))
	return prediction.Value, err
}

// trusts says why firmware with such variables would not start p; "" if it would.
func trusts(p program, variables map[string][]byte) string {
	if p.problem != nil {
		return p.problem.Error()
	}
	db, err1 := uefi.ParseSignatureLists(variables["db"])
	dbx, err2 := uefi.ParseSignatureLists(variables["dbx"])
	if err := errors.Join(err1, err2); err != nil {
		return err.Error()
	}
	return uefi.Refuses(db, dbx, p.digest, p.signer)
}
