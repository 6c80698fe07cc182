package sys_test

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"testing"
	"unicode/utf16"

	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/sys/systest"
)

const vendor = "12f075e0-2d07-493d-811a-00920a72c04c"

func TestVariableLives(t *testing.T) {
	files := systest.New(t, systest.Sensible()).Host.Files
	if _, err := sys.ReadVariable(files, "Test", vendor); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before it was written, ReadVariable() = %v, want ErrNotExist", err)
	}
	for _, value := range []string{"longer", "short"} {
		if err := sys.WriteVariable(files, "Test", vendor, []byte(value)); err != nil {
			t.Fatal(err)
		}
		if got, err := sys.ReadVariable(files, "Test", vendor); err != nil || string(got) != value {
			t.Errorf("ReadVariable() = %q, %v; want %q", got, err, value)
		}
	}
	raw, err := files.ReadFile("/sys/firmware/efi/efivars/Test-" + vendor)
	if err != nil || string(raw) != "\x07\x00\x00\x00short" {
		t.Errorf("the file holds %q, %v; want attributes 7 before the value", raw, err)
	}
	for range 2 {
		if err := sys.DeleteVariable(files, "Test", vendor); err != nil {
			t.Errorf("DeleteVariable() = %v", err)
		}
	}
}

func TestVariableNeedsFirmware(t *testing.T) {
	m := systest.Sensible()
	m.SecureBoot = "absent"
	if err := sys.WriteVariable(systest.New(t, m).Host.Files, "Test", vendor, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("WriteVariable() = %v, want ErrNotExist", err)
	}
}

func TestBootDiskIsWhereTheLoaderCameFrom(t *testing.T) {
	m := systest.Sensible()
	stick := m.Drives[0]
	stick.Name, stick.ID = "vdb", "virtio-stick"
	m.Drives = append(m.Drives, stick)
	files := systest.New(t, m).Host.Files
	if _, err := sys.BootDisk(files); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without the variable, BootDisk() = %v, want ErrNotExist", err)
	}
	if err := files.MkdirAll("/dev/disk/by-partuuid", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := files.Symlink("../../vdb1", "/dev/disk/by-partuuid/0000abcd"); err != nil {
		t.Fatal(err)
	}
	var value []byte
	for _, u := range utf16.Encode([]rune("0000ABCD\x00")) {
		value = binary.LittleEndian.AppendUint16(value, u)
	}
	if err := sys.WriteVariable(files, "LoaderDevicePartUUID", "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f", value); err != nil {
		t.Fatal(err)
	}
	if disk, err := sys.BootDisk(files); err != nil || disk.Name != "vdb" {
		t.Errorf("BootDisk() = %q, %v; want vdb", disk.Name, err)
	}
}
