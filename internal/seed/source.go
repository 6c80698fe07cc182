package seed

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"

	"github.com/incusos/incusos/internal/sys"
)

const (
	builtIn  = "seed-data" // label of the partition with the archive
	external = "SEED_DATA" // label of a partition or file system with files

	mountPoint = "/run/incus-os/seed"
)

// openBuiltIn reads the archive of the disk the machine was booted from. With
// an install medium and an installed disk in one machine there are two
// partitions of that label, so the label alone decides only if the boot loader
// did not say where it came from.
func (s *Seed) openBuiltIn() error {
	device := "/dev/disk/by-partlabel/" + builtIn
	disk, err := sys.BootDisk(s.files)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	default:
		p, ok := disk.Partition(builtIn)
		if !ok {
			return nil
		}
		device = p.Path
	}
	f, err := s.files.Open(device)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return s.readArchive(device, f)
}

// readArchive takes the sections and images from an archive. A partition that
// was never written to, all zeros, is no archive and no mistake.
func (s *Seed) readArchive(device string, r io.ReadSeeker) error {
	s.device = device
	head := make([]byte, block)
	switch _, err := io.ReadFull(r, head); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil && !errors.Is(err, io.ErrUnexpectedEOF):
		return err
	}
	if bytes.Equal(head, make([]byte, len(head))) {
		return nil
	}
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return err
	}
	sections, images, err := readTar(r)
	if err != nil {
		return err
	}
	if s.end, err = endOf(r); err != nil {
		s.end = -1 // it can be read all the same, and nothing be added
	}
	s.images = images
	maps.Copy(s.sections, sections)
	return nil
}

// openMedium reads the files of the external medium, if one is there.
func (s *Seed) openMedium(mounts sys.Mounter) (err error) {
	device := s.findMedium()
	if device == "" {
		return nil
	}
	if err := s.files.MkdirAll(mountPoint, 0o700); err != nil {
		return err
	}
	if err := mountMedium(mounts, device); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, mounts.Unmount(mountPoint)) }()
	root, err := os.OpenRoot(s.files.Path(mountPoint))
	if err != nil {
		return err
	}
	defer root.Close()
	sections, err := readFiles(root)
	if err != nil {
		return err
	}
	maps.Copy(s.sections, sections)
	return nil
}

// findMedium returns the device of the external medium, or "".
func (s *Seed) findMedium() string {
	for _, by := range []string{"by-partlabel", "by-label"} {
		if device := "/dev/disk/" + by + "/" + external; s.files.Exists(device) {
			return device
		}
	}
	return ""
}

// mountMedium tries the file systems such media have. Nothing on them may be
// run, be a device, or lead elsewhere.
func mountMedium(mounts sys.Mounter, device string) error {
	var errs []error
	for _, fstype := range []string{"vfat", "iso9660"} {
		err := mounts.Mount(device, mountPoint, fstype, "ro", "nodev", "nosuid", "noexec", "nosymfollow")
		if err == nil {
			return nil
		}
		errs = append(errs, fmt.Errorf("as %s: %w", fstype, err))
	}
	return fmt.Errorf("want a FAT or ISO 9660 file system: %w", errors.Join(errs...))
}

// readFiles reads the sections in the root directory of a medium.
func readFiles(root *os.Root) (map[string]section, error) {
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return nil, err
	}
	c := &collection{medium: external, sections: make(map[string]section)}
	for _, e := range entries {
		name, ok, err := sectionFile(e.Name())
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		if err := c.addFile(root, name, e.Name()); err != nil {
			return nil, err
		}
	}
	return c.sections, nil
}

func (c *collection) addFile(root *os.Root, name, file string) error {
	info, err := root.Lstat(file)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s: is no regular file", file)
	}
	f, err := root.Open(file)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	defer f.Close()
	return c.add(name, file, info.Size(), f)
}
