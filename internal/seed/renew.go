package seed

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys"
)

// block is the unit of a tar archive: a header is one, content is filled up to
// whole ones, and two of zeros end it (POSIX.1-2017, pax).
const block = 512

// renewed is an entry that makes the sections before it void. Its content is one
// block of zeros.
const renewed = ".renewed"

// Renew checks sections that a machine is given anew, and returns what makes
// them its seed: instead of the sections in its archive, or added to them. The
// images in the archive stay.
//
// They are written behind what is there, so that no image has to move. The first
// header of what is new lies where the archive ended; it is written last, when
// everything else is on disk, and is one block. Until then the two blocks of
// zeros in its place end the archive: a cut leaves the old seed or the new one.
func Renew(files sys.Dir, given map[string]json.RawMessage, instead bool) (write func() error, err error) {
	s := &Seed{files: files, sections: make(map[string]section)}
	if err := s.openBuiltIn(); err != nil {
		return nil, api.Errorf(api.Conflict, "%s: %v; it cannot be added to, so install the machine again", builtIn, err)
	}
	if err := s.openKept(); err != nil {
		return nil, api.Errorf(api.Conflict, "%s: %v; wipe the existing sections, or install the machine again", keptFile, err)
	}
	if s.device == "" {
		return nil, api.Errorf(api.Conflict, "this machine has no partition labelled %q to keep a seed in; install it again", builtIn)
	}
	if err := s.replace(given, instead); err != nil {
		return nil, err
	}
	if err := s.complete(); err != nil {
		return nil, err
	}
	if s.end < 0 {
		return nil, api.Errorf(api.Conflict, "the archive in the partition %q has no end, so that nothing can be added to it; install the machine again", builtIn)
	}
	size, err := s.size()
	if err != nil {
		return nil, err
	}
	a, err := s.addition()
	if err != nil {
		return nil, err
	}
	if a.at+int64(len(a.data)) > size {
		return nil, api.Errorf(api.Conflict, "the partition %q is full: %d bytes are used of %d and the new sections take %d; install the machine again", builtIn, a.at, size, len(a.data))
	}
	return func() error { return a.write(files, s.device) }, nil
}

// replace makes given the sections of s.
func (s *Seed) replace(given map[string]json.RawMessage, instead bool) error {
	if instead {
		clear(s.sections)
	}
	delete(s.sections, "install") // the machine is installed
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if known := append(handled(), foreign()...); !slices.Contains(known, name) {
			return api.Fieldf("seeds."+name, "there is no such section; %s", advice(name, known))
		}
		file := name + ".json"
		alone := &Seed{sections: map[string]section{name: {"seeds", file, given[name]}}}
		if err := alone.Check(); err != nil {
			return api.Fieldf("seeds."+name, "%s", strings.TrimPrefix(err.Error(), "seeds: "))
		}
		if len(given[name]) > maxSection {
			return api.Fieldf("seeds."+name, "has %d bytes; want %d at most", len(given[name]), maxSection)
		}
		if name != "install" {
			s.sections[name] = section{builtIn, file, given[name]}
		}
	}
	return nil
}

// complete reports why a first boot with s would fail: there is nobody to
// correct it then.
func (s *Seed) complete() error {
	if err := s.Check(); err != nil {
		return api.Errorf(api.Conflict, "a section that the machine was installed with has a mistake, %v: give that section too, or wipe the existing ones", err)
	}
	wanted := []string{"incus"}
	if list, _, err := s.ApplicationList(); err == nil && list != nil {
		wanted = nil
		for _, a := range list.Applications {
			wanted = append(wanted, a.Name)
		}
	}
	for _, name := range wanted {
		if !slices.ContainsFunc(s.images, func(a Application) bool { return a.Name == name }) {
			return api.Errorf(api.Conflict, "the machine was not installed with an image of the application %q, and after a reset there would be none: leave it out, or install the machine again", name)
		}
	}
	return nil
}

func (s *Seed) size() (n int64, err error) {
	f, err := s.files.Open(s.device)
	if err != nil {
		return 0, err
	}
	n, err = f.Seek(0, io.SeekEnd)
	return n, errors.Join(err, f.Close())
}

// An addition is what is written behind an archive.
type addition struct {
	at   int64 // where the archive ends, bytes from its start
	data []byte
}

// addition returns the sections of s, all of them.
func (s *Seed) addition() (addition, error) {
	var out bytes.Buffer
	tw := tar.NewWriter(&out)
	write := func(name string, data []byte) error {
		if err := header(tw, name, int64(len(data))); err != nil {
			return err
		}
		_, err := tw.Write(data)
		return err
	}
	err := write(renewed, make([]byte, block))
	for _, name := range slices.Sorted(maps.Keys(s.sections)) {
		err = errors.Join(err, write(s.sections[name].file, s.sections[name].data))
	}
	err = errors.Join(err, tw.Close())
	return addition{s.end, out.Bytes()}, err
}

// write writes the addition to a device, its first block last.
func (a addition) write(files sys.Dir, device string) (err error) {
	f, err := files.OpenDevice(device)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.WriteAt(a.data[block:], a.at+block); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("flushing: %w", err)
	}
	if _, err := f.WriteAt(a.data[:block], a.at); err != nil {
		return err
	}
	return f.Sync()
}

// endOf returns where the archive ends that r has been read to the end of: two
// blocks of zeros before where r is now.
func endOf(r io.ReadSeeker) (int64, error) {
	at, err := r.Seek(0, io.SeekCurrent)
	if err != nil {
		return 0, err
	}
	end := make([]byte, 2*block)
	if at%block != 0 || at < int64(len(end)) {
		return 0, errors.New("the archive has no end")
	}
	at -= int64(len(end))
	if _, err := r.Seek(at, io.SeekStart); err != nil {
		return 0, err
	}
	if _, err := io.ReadFull(r, end); err != nil || !bytes.Equal(end, make([]byte, len(end))) {
		return 0, errors.New("the archive has no end")
	}
	return at, nil
}
