package sys_test

import (
	"errors"
	"io/fs"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/sys/systest"
)

func TestDisks(t *testing.T) {
	m := systest.Sensible()
	m.Drives = []systest.Drive{
		{Name: "vda", ID: "virtio-0", Serial: "0", Size: 8 << 30, Partitions: []systest.Partition{{Label: "esp", Size: 1 << 20}, {Label: "_empty", Size: 2 << 20}, {Label: "two words", Size: 1 << 20}}},
		{Name: "sda", ID: "usb-stick", Bus: "usb", Model: "Stick", Size: 4 << 30, Removable: true},
		{Name: "sdb", Size: 1 << 30},
		{Name: "nvme0n1", ID: "nvme-0", Size: 2 << 30, Partitions: []systest.Partition{{Label: "esp", Size: 1 << 20}}},
		{Name: "mmcblk0", Size: 1 << 30},
		{Name: "mmcblk0boot0", Size: 1 << 20},
		{Name: "sdc", ID: "usb-reader-without-card", Size: 0},
		{Name: "sr0", Size: 1 << 30}, {Name: "loop0", Size: 1 << 30}, {Name: "dm-0", Size: 1 << 30}, {Name: "zd0", Size: 1 << 30},
	}
	got, err := sys.Disks(systest.New(t, m).Host.Files)
	if err != nil {
		t.Fatal(err)
	}
	want := []sys.Disk{
		{Name: "mmcblk0", Path: "/dev/mmcblk0", Bus: "mmc", Size: 1 << 30},
		{Name: "nvme0n1", Path: "/dev/nvme0n1", IDs: []string{"nvme-0"}, Bus: "nvme", Size: 2 << 30, Partitions: []sys.Partition{
			{Number: 1, Name: "nvme0n1p1", Path: "/dev/nvme0n1p1", Label: "esp", Start: 1 << 20, Size: 1 << 20},
		}},
		{Name: "sda", Path: "/dev/sda", IDs: []string{"usb-stick"}, Bus: "usb", Model: "Stick", Size: 4 << 30, Removable: true},
		{Name: "sdb", Path: "/dev/sdb", Bus: "scsi", Size: 1 << 30},
		{Name: "vda", Path: "/dev/vda", IDs: []string{"virtio-0"}, Bus: "virtio", Serial: "0", Size: 8 << 30, Partitions: []sys.Partition{
			{Number: 1, Name: "vda1", Path: "/dev/vda1", Label: "esp", Start: 1 << 20, Size: 1 << 20},
			{Number: 2, Name: "vda2", Path: "/dev/vda2", Label: "_empty", Start: 2 << 20, Size: 2 << 20},
			{Number: 3, Name: "vda3", Path: "/dev/vda3", Label: "two words", Start: 4 << 20, Size: 1 << 20},
		}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Disks() (-want +got):\n%s", diff)
	}
	if p, ok := got[4].Partition("_empty"); !ok || p.Number != 2 {
		t.Errorf("Partition() = %+v, %v; want the second", p, ok)
	}
}

// The attributes of a disk lie beside its partitions. Looking for "partition"
// below one of them fails because it is a file, which is not to say that the
// name is there.
func TestAttributesAreNoPartitions(t *testing.T) {
	m := systest.Sensible()
	m.Drives[0].Partitions = nil
	files := systest.New(t, m).Host.Files
	for _, name := range []string{"stat", "uevent", "queue/scheduler", "holders/x"} {
		if err := files.WriteFile("/sys/block/vda/"+name, nil, 0o444); err != nil {
			t.Fatal(err)
		}
	}
	disks, err := sys.Disks(files)
	if err != nil || len(disks) != 1 || len(disks[0].Partitions) != 0 {
		t.Errorf("Disks() = %+v, %v; want one disk without partitions", disks, err)
	}
}

func TestMachineWithoutDisks(t *testing.T) {
	if disks, err := sys.Disks(sys.NewDir(t.TempDir())); err != nil || disks != nil {
		t.Errorf("Disks() = %v, %v; want none", disks, err)
	}
}

func TestBootDisk(t *testing.T) {
	const uuid = "0bb7d9a2-51f4-4c2e-8a3d-0d3e5b7a9c01"
	m := systest.Sensible()
	m.Drives = append(m.Drives, systest.Drive{Name: "sda", Size: 1 << 30, Partitions: []systest.Partition{{Label: "esp", Size: 1 << 20}}})
	d := systest.New(t, m).Host.Files
	expect := func(want string) {
		t.Helper()
		disk, err := sys.BootDisk(d)
		if disk.Name != want || (want == "") != errors.Is(err, fs.ErrNotExist) {
			t.Errorf("BootDisk() = %q, %v; want %q", disk.Name, err, want)
		}
	}
	expect("") // the boot loader did not say
	value := []byte{6, 0, 0, 0}
	for _, c := range "0BB7D9A2-51F4-4C2E-8A3D-0D3E5B7A9C01\x00" {
		value = append(value, byte(c), 0)
	}
	if err := d.WriteFile("/sys/firmware/efi/efivars/LoaderDevicePartUUID-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f", value, 0o644); err != nil {
		t.Fatal(err)
	}
	expect("") // the kernel has not found it
	for _, name := range []string{"sda1", "vda1"} {
		if err := errors.Join(d.MkdirAll("/dev/disk/by-partuuid", 0o755), d.Symlink("../../"+name, "/dev/disk/by-partuuid/"+uuid)); err != nil {
			t.Fatal(err)
		}
		expect(name[:3])
	}
}
