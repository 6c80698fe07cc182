package sys

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"unicode/utf16"

	"golang.org/x/sys/unix"
)

// efivars is where the kernel shows EFI variables, each as one file that holds
// four bytes of attributes and then the value (kernel documentation,
// filesystems/efivarfs).
const efivars = "/sys/firmware/efi/efivars/"

// keep are the attributes of variables that this machine writes: non-volatile,
// for boot services and for the running system (UEFI 2.10, section 8.2).
const keep = 0x1 | 0x2 | 0x4

// ReadVariable returns the value of an EFI variable, without its attributes.
// One that is not there, also for lack of UEFI, is fs.ErrNotExist.
func ReadVariable(d Dir, name, guid string) ([]byte, error) {
	b, err := d.ReadFile(variable(name, guid))
	if err != nil {
		return nil, fmt.Errorf("reading the EFI variable %s: %w", name, err)
	}
	if len(b) < 4 {
		return nil, fmt.Errorf("reading the EFI variable %s: %d bytes, want the 4 of its attributes at least", name, len(b))
	}
	return b[4:], nil
}

// WriteVariable sets an EFI variable that stays across reboots, and creates it
// if need be. The firmware takes attributes and value in a single write.
func WriteVariable(d Dir, name, guid string, value []byte) error {
	file := variable(name, guid)
	err := d.check("write", file)
	if err == nil {
		err = errors.Join(unlock(d.Path(file)), os.WriteFile(d.Path(file), append(binary.LittleEndian.AppendUint32(nil, keep), value...), 0o644))
	}
	if err != nil {
		return fmt.Errorf("writing the EFI variable %s: %w", name, err)
	}
	return nil
}

// UpdateVariable hands a signed update of an EFI variable to the firmware, with the
// attributes that it was signed for. The firmware checks it.
func UpdateVariable(d Dir, name, guid string, attributes uint32, update []byte) error {
	file := variable(name, guid)
	content := append(binary.LittleEndian.AppendUint32(nil, attributes), update...)
	err := d.check("write", file)
	if err == nil && d.put != nil {
		var done bool
		if done, err = d.put(file, content); done {
			return err
		}
	}
	if err == nil {
		err = errors.Join(unlock(d.Path(file)), os.WriteFile(d.Path(file), content, 0o644))
	}
	if err != nil {
		return fmt.Errorf("updating the EFI variable %s: %w", name, err)
	}
	return nil
}

// DeleteVariable removes an EFI variable. One that is not there is no error.
func DeleteVariable(d Dir, name, guid string) error {
	file := variable(name, guid)
	if !d.Exists(file) {
		return nil
	}
	if err := errors.Join(unlock(d.Path(file)), d.Remove(file)); err != nil {
		return fmt.Errorf("deleting the EFI variable %s: %w", name, err)
	}
	return nil
}

func variable(name, guid string) string { return efivars + name + "-" + guid }

// immutable is FS_IMMUTABLE_FL of linux/fs.h. The kernel sets it on variables
// it does not know, so that a slip of the hand does not brick a machine.
const immutable = 0x10

// unlock clears the immutable flag of a file of the calling system.
func unlock(name string) error {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS) //nolint:gosec // a descriptor is small
	if err != nil || flags&immutable == 0 {
		return f.Close() // a file system without flags has nothing to clear
	}
	err = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, int(flags&^immutable)) //nolint:gosec // a descriptor is small
	return errors.Join(err, f.Close())
}

// loader is the vendor of the variables of the Boot Loader Interface
// (systemd.io/BOOT_LOADER_INTERFACE).
const loader = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"

// BootPartition returns the name of the partition the boot loader was started
// from, in /dev/disk/by-partuuid. It is fs.ErrNotExist when the loader did not
// say.
func BootPartition(d Dir) (string, error) {
	raw, err := ReadVariable(d, "LoaderDevicePartUUID", loader)
	if err != nil {
		return "", err
	}
	return "/dev/disk/by-partuuid/" + path.Base(strings.ToLower(utf16Text(raw))), nil
}

// StartedImage returns the name of the kernel image that runs on the boot partition, with
// slashes, such as "/EFI/Linux/IncusOS_202601010000.efi" (systemd-stub(7),
// StubImageIdentifier). It is fs.ErrNotExist when it was started in another way.
func StartedImage(d Dir) (string, error) {
	raw, err := ReadVariable(d, "StubImageIdentifier", loader)
	if err != nil {
		return "", err
	}
	return path.Clean("/" + strings.ReplaceAll(utf16Text(raw), `\`, "/")), nil
}

// BootDisk returns the disk that the boot loader was started from. It is
// fs.ErrNotExist when the loader did not say or the disk is gone.
func BootDisk(d Dir) (Disk, error) {
	link, err := BootPartition(d)
	if err != nil {
		return Disk{}, err
	}
	target, err := d.Readlink(link)
	if err != nil {
		return Disk{}, fmt.Errorf("looking for the partition the machine was booted from: %w", err)
	}
	disks, err := Disks(d)
	if err != nil {
		return Disk{}, err
	}
	for _, disk := range disks {
		for _, p := range disk.Partitions {
			if p.Name == path.Base(target) {
				return disk, nil
			}
		}
	}
	return Disk{}, fmt.Errorf("looking for the disk of the partition %q the machine was booted from: %w", path.Base(target), fs.ErrNotExist)
}

// utf16Text decodes what EFI calls CHAR16: little endian, ended by a zero.
func utf16Text(b []byte) string {
	units := make([]uint16, 0, len(b)/2)
	for i := 0; i+1 < len(b) && !bytes.Equal(b[i:i+2], []byte{0, 0}); i += 2 {
		units = append(units, binary.LittleEndian.Uint16(b[i:]))
	}
	return string(utf16.Decode(units))
}
