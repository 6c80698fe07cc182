package seal

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/incusos/incusos/internal/luks"
	"github.com/incusos/incusos/internal/sys"
)

// What the early boot says of this start; its form is package early's.
type earlyBoot struct {
	UnlockedBy string `json:"unlocked_by"`
	Lacks      Lack   `json:"lacks"`
	BootDisk   string `json:"boot_disk"`
	Root       string `json:"root"`
}

// early returns what the early boot left; nothing if that is not to be had.
func (s *Seal) early() earlyBoot {
	var e earlyBoot
	b, err := s.host.Files.ReadFile(earlyResult)
	if err != nil || json.Unmarshal(b, &e) != nil {
		return earlyBoot{}
	}
	return e
}

// unlockedBy returns how the early boot opened root, "" when it did not or when
// nothing is known about it.
func (s *Seal) unlockedBy() string { return s.early().UnlockedBy }

// disk returns the disk that the system is on: the one it was started from, else
// the one that has a root partition.
func (s *Seal) disk() (sys.Disk, error) {
	disks, err := sys.Disks(s.host.Files)
	if err != nil {
		return sys.Disk{}, err
	}
	from := s.early().BootDisk
	for _, d := range disks {
		_, hasRoot := d.Partition("root")
		if d.Path == from || from == "" && hasRoot {
			return d, nil
		}
	}
	return sys.Disk{}, fmt.Errorf("looking for the disk of the system: %w", fs.ErrNotExist)
}

// rootDevice returns the encrypted partition of root. On the first boot the kernel
// does not know its label, but the early boot does.
func (s *Seal) rootDevice() (string, error) {
	if root := s.early().Root; root != "" {
		return root, nil
	}
	d, err := s.disk()
	if err != nil {
		return "", err
	}
	p, ok := d.Partition("root")
	if !ok {
		return "", fmt.Errorf("%s has no partition labelled root", d.Path)
	}
	return p.Path, nil
}

// readHeader returns who can open an encrypted device.
func readHeader(files sys.Dir, device string) (h luks.Header, err error) {
	f, err := files.Open(device)
	if err != nil {
		return h, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if h, err = luks.Read(f); err != nil {
		return h, fmt.Errorf("%s: %w", device, err)
	}
	return h, nil
}

// root returns the encrypted partition of root, and who can open it.
func (s *Seal) root() (string, luks.Header, error) {
	device, err := s.rootDevice()
	if err != nil {
		return "", luks.Header{}, err
	}
	h, err := readHeader(s.host.Files, device)
	return device, h, err
}
