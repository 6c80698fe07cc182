package seed

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"strconv"
	"strings"

	"github.com/incusos/incusos/internal/sys"
)

const (
	// keptFile holds the sections of a machine that is set up, on root, which
	// is encrypted: by their files.
	keptFile = "/var/lib/incus-os/seed.json"
	// noteName is an entry that says which system the disk holds.
	noteName = "machine-id"
	// noteSize is how much of a machine's id is in it. The rest is nobody's
	// business (machine-id(5)).
	noteSize = 6
	// rootLabel is a partition that installed disks have and media have not.
	rootLabel = "root"
)

// staysOpen reports whether a section stays in the archive: it can hold no secret,
// and an empty one would be a mistake.
func staysOpen(name string) bool { return name == "applications" }

// Settle takes what may be secret out of the archive of an installed machine,
// which lies on the disk in the clear, and leaves a note there of what the
// machine is. It is for when the machine is set up and nothing reads the archive
// any more; what is needed later, for a factory reset, is kept on root, and Open
// finds it there. Media are left alone. Called again, it does what is left to do.
//
// The order is the safety. What is kept is on disk before anything is taken out,
// and it counts from then on: half a section in the archive is never read. It is
// written once: what is in the archive later on is from a factory reset that did
// not come about.
func Settle(files sys.Dir, machineID string) error {
	device, err := installed(files)
	if device == "" || err != nil {
		return err
	}
	s := &Seed{files: files, sections: make(map[string]section)}
	spans, note, err := s.survey(device)
	if err != nil {
		return fmt.Errorf("%s: %w", builtIn, err)
	}
	if len(spans) > 0 && !files.Exists(keptFile) {
		if err := s.keep(); err != nil {
			return fmt.Errorf("keeping the seed: %w", err)
		}
	}
	if err := blank(files, device, spans); err != nil {
		return fmt.Errorf("taking the sections out of %s: %w", builtIn, err)
	}
	if id := shortID(machineID); id != "" && note != id && s.end >= 0 {
		return s.leaveNote(id)
	}
	return nil
}

// Machine returns the beginning of the id of the machine whose system a disk
// holds; "" if it holds none that was set up.
func Machine(files sys.Dir, disk sys.Disk) (string, error) {
	p, ok := disk.Partition(builtIn)
	if _, root := disk.Partition(rootLabel); !ok || !root {
		return "", nil
	}
	s := &Seed{files: files, sections: make(map[string]section)}
	_, note, err := s.survey(p.Path)
	if err != nil {
		return "", nil //nolint:nilerr // what is there is no system of ours, or damaged
	}
	return note, nil
}

// installed returns the partition with the archive of the disk that this machine
// runs from; "" if it runs from a medium, or nobody can tell.
func installed(files sys.Dir) (string, error) {
	disk, err := sys.BootDisk(files)
	if errors.Is(err, fs.ErrNotExist) {
		disk, err = onlyInstalled(files)
	}
	if err != nil {
		return "", err
	}
	p, ok := disk.Partition(builtIn)
	if _, root := disk.Partition(rootLabel); !ok || !root {
		return "", nil
	}
	return p.Path, nil
}

// onlyInstalled returns the disk with a system if there is one alone.
func onlyInstalled(files sys.Dir) (found sys.Disk, err error) {
	disks, err := sys.Disks(files)
	if err != nil {
		return sys.Disk{}, err
	}
	n := 0
	for _, d := range disks {
		if _, ok := d.Partition(rootLabel); ok {
			found = d
			n++
		}
	}
	if n != 1 {
		return sys.Disk{}, nil
	}
	return found, nil
}

func shortID(id string) string {
	if id = strings.TrimSpace(id); len(id) < noteSize {
		return ""
	}
	return id[:noteSize]
}

// A span is where in an archive the content of a section lies.
type span struct{ at, size int64 }

// survey reads an archive into s, and returns where sections lie that are to be
// taken out, those that count no more among them, and what the note says.
func (s *Seed) survey(device string) (spans []span, note string, err error) {
	f, err := s.files.Open(device)
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	if err := s.readArchive(device, f); err != nil {
		return nil, "", err
	}
	if s.end < 0 || s.end == 0 {
		return nil, "", nil // nothing was ever written there, or it cannot be added to
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, "", err
	}
	tr := tar.NewReader(f)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return spans, note, nil
		}
		if err != nil {
			return nil, "", err
		}
		if strings.TrimPrefix(h.Name, "./") == noteName {
			if note, err = readNote(tr); err != nil {
				return nil, "", err
			}
			continue
		}
		sp, secret, err := sectionSpan(f, h, tr)
		if err != nil {
			return nil, "", err
		}
		if secret {
			spans = append(spans, sp)
		}
	}
}

func readNote(r io.Reader) (string, error) {
	b, err := io.ReadAll(io.LimitReader(r, noteSize))
	return string(b), err
}

// sectionSpan returns where the content of an entry lies, and whether that is a
// section that is still there. f is where tr begins to read it.
func sectionSpan(f *os.File, h *tar.Header, tr io.Reader) (span, bool, error) {
	name, ok, err := sectionFile(strings.TrimPrefix(h.Name, "./"))
	if err != nil || !ok || staysOpen(name) {
		return span{}, false, err
	}
	at, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return span{}, false, err
	}
	if err := inOnePiece(f, at, h.Size); err != nil {
		return span{}, false, fmt.Errorf("%s: %w", h.Name, err)
	}
	content, err := io.ReadAll(io.LimitReader(tr, maxSection))
	return span{at, h.Size}, len(bytes.Trim(content, "\n")) > 0, err
}

// inOnePiece refuses an entry whose content is not size bytes in one piece at a place,
// as its header in the block before tells: what is written there must not be
// somebody else's.
func inOnePiece(r io.ReaderAt, at, size int64) error {
	header := make([]byte, block)
	if _, err := r.ReadAt(header, at-block); err != nil {
		return err
	}
	const from, to = 124, 136 // size, in octal digits
	field := strings.Trim(string(header[from:to]), " \x00")
	if n, err := strconv.ParseInt(field, 8, 64); err != nil || n != size || size > maxSection {
		return errors.New("is stored in a form that cannot be written over")
	}
	return nil
}

// keep writes the sections of s to root.
func (s *Seed) keep() error {
	kept := make(map[string][]byte)
	for name, sec := range s.sections {
		if !staysOpen(name) {
			kept[sec.file] = sec.data
		}
	}
	b, err := json.Marshal(kept)
	if err != nil {
		return err
	}
	return s.files.WriteFile(keptFile, append(b, '\n'), 0o600)
}

// openKept reads what Settle kept, in place of what it left in the archive.
func (s *Seed) openKept() error {
	b, err := s.files.ReadFile(keptFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var kept map[string][]byte
	if err == nil {
		err = json.Unmarshal(b, &kept)
	}
	if err != nil {
		return err
	}
	maps.DeleteFunc(s.sections, func(name string, _ section) bool { return !staysOpen(name) })
	for file, data := range kept {
		name, ok, err := sectionFile(file)
		if err != nil {
			return err
		}
		if ok {
			s.sections[name] = section{builtIn, file, data}
		}
	}
	return nil
}

// blank writes empty lines over parts of a device, and flushes them. A section of
// empty lines is one without anything set.
func blank(files sys.Dir, device string, spans []span) (err error) {
	if len(spans) == 0 {
		return nil
	}
	f, err := files.OpenDevice(device)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for _, sp := range spans {
		if _, err := f.WriteAt(bytes.Repeat([]byte("\n"), int(sp.size)), sp.at); err != nil {
			return err
		}
	}
	return f.Sync()
}

// leaveNote adds a note to the archive, as Renew adds sections. Without room for
// it there is none, which costs an installer a question.
func (s *Seed) leaveNote(id string) error {
	size, err := s.size()
	if err != nil {
		return err
	}
	var out bytes.Buffer
	tw := tar.NewWriter(&out)
	if err := header(tw, noteName, int64(len(id))); err != nil {
		return err
	}
	if _, err := tw.Write([]byte(id)); err != nil {
		return err
	}
	if err := tw.Close(); err != nil {
		return err
	}
	if s.end+int64(out.Len()) > size {
		return nil
	}
	return addition{s.end, out.Bytes()}.write(s.files, s.device)
}
