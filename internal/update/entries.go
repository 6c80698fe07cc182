package update

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"

	"github.com/incusos/incusos/internal/sys"
)

// An ESP is the EFI system partition with the entries that systemd-boot finds by
// itself: unified kernel images (Boot Loader Specification, type 2) whose names
// carry a counter while they are tried ("Automatic Boot Assessment"):
//
//	IncusOS_202611271200.efi        found good
//	IncusOS_202611271200+2-1.efi    tried once, two tries are left
//
// It is mounted for as long as it takes: nothing else of the running system has a
// use for it.
type ESP struct {
	Host   sys.Host
	Device string // such as "/dev/sda1"
}

const (
	espDir = "/run/incus-os/esp"
	ukiDir = espDir + "/EFI/Linux"
)

// entryName is the name of an entry, with version, tries left and tries done.
var entryName = regexp.MustCompile(`^IncusOS_([0-9]{12})(?:\+([0-9]{1,4})(?:-([0-9]{1,4}))?)?\.efi$`)

// parseEntry reads the name of an entry.
func parseEntry(name string) (e Entry, ok bool) {
	m := entryName.FindStringSubmatch(name)
	if m == nil {
		return Entry{}, false
	}
	e = Entry{Version: m[1], Counted: m[2] != ""}
	e.Left, _ = strconv.Atoi(m[2])
	e.Done, _ = strconv.Atoi(m[3])
	return e, true
}

// mounted runs do while the ESP is mounted.
func (p ESP) mounted(do func() error) (err error) {
	if err := p.Host.Files.MkdirAll(espDir, 0o700); err != nil {
		return err
	}
	if err := p.Host.Mounts.Mount(p.Device, espDir, "vfat", "umask=0077", "nodev", "nosuid", "noexec"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Host.Mounts.Unmount(espDir)) }()
	return do()
}

// names returns the names of the entries' files.
func (p ESP) names() (names []string, err error) {
	files, err := p.Host.Files.ReadDir(ukiDir)
	for _, f := range files {
		if _, ok := parseEntry(f.Name()); ok && f.Type().IsRegular() {
			names = append(names, f.Name())
		}
	}
	return names, err
}

// Entries implements Loader.
func (p ESP) Entries() (entries []Entry, err error) {
	err = p.mounted(func() error {
		names, err := p.names()
		for _, name := range names {
			e, _ := parseEntry(name)
			entries = append(entries, e)
		}
		return err
	})
	return entries, err
}

// Add implements Loader. The file is written under another name, flushed, and
// renamed; of what a cut left before, nothing stays.
func (p ESP) Add(version string, tries int, uki []byte) error {
	return p.mounted(func() error {
		if _, err := p.Host.Files.Sweep(ukiDir); err != nil {
			return err
		}
		// FAT keeps one bit of a mode, and refuses any that umask would not give.
		return p.Host.Files.WriteFile(path.Join(ukiDir, fmt.Sprintf("IncusOS_%s+%d.efi", version, tries)), uki, 0o700)
	})
}

// file returns the name of the file of an entry. The counter may have moved on.
func (p ESP) file(e Entry) (string, error) {
	names, err := p.names()
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(names, func(name string) bool {
		found, _ := parseEntry(name)
		return found.Version == e.Version
	})
	if i < 0 {
		return "", fmt.Errorf("there is no entry for version %s: %w", e.Version, fs.ErrNotExist)
	}
	return path.Join(ukiDir, names[i]), nil
}

// Remove implements Loader.
func (p ESP) Remove(e Entry) error {
	return p.mounted(func() error {
		name, err := p.file(e)
		if err != nil {
			return err
		}
		if err := p.Host.Files.Remove(name); err != nil {
			return err
		}
		return p.Host.Files.SyncDir(ukiDir)
	})
}

// Bless implements Loader.
func (p ESP) Bless(e Entry) error { return p.rename(e, "IncusOS_"+e.Version+".efi") }

// Shelve implements Loader: the boot loader takes an entry without tries left last.
func (p ESP) Shelve(e Entry) error { return p.rename(e, "IncusOS_"+e.Version+"+0-1.efi") }

func (p ESP) rename(e Entry, to string) error {
	return p.mounted(func() error {
		name, err := p.file(e)
		if err != nil {
			return err
		}
		return p.Host.Files.Rename(name, path.Join(ukiDir, to))
	})
}

// Read returns the kernel of an entry.
func (p ESP) Read(version string) (uki []byte, err error) {
	err = p.mounted(func() error {
		name, err := p.file(Entry{Version: version})
		if err != nil {
			return err
		}
		uki, err = p.Host.Files.ReadFile(name)
		return err
	})
	return uki, err
}

// kernels returns what is on the boot partition of kernels.
func (p ESP) kernels() (images [][]byte, err error) {
	err = p.mounted(func() error {
		names, err := p.names()
		if err != nil {
			return err
		}
		for _, name := range names {
			file := path.Join(ukiDir, name)
			if info, err := p.Host.Files.Stat(file); err != nil || info.Size() > maxKernel {
				continue
			}
			b, err := p.Host.Files.ReadFile(file)
			if err != nil {
				return err
			}
			images = append(images, b)
		}
		return nil
	})
	return images, err
}

// Replace writes the kernel of an entry anew. The old or the new one is there.
func (p ESP) Replace(version string, uki []byte) error {
	return p.mounted(func() error {
		name, err := p.file(Entry{Version: version})
		if err != nil {
			return err
		}
		return p.Host.Files.WriteFile(name, uki, 0o700)
	})
}
