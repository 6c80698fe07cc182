package sys

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// A Disk is a whole block device, as sysfs describes it (kernel documentation,
// admin-guide/sysfs-rules and ABI/stable/sysfs-block).
type Disk struct {
	Name       string      // "sda"
	Path       string      // "/dev/sda"
	IDs        []string    // names in /dev/disk/by-id that lead here, sorted
	Bus        string      // "nvme", "scsi", "usb", "virtio", "mmc" or ""
	Model      string      // as the device says
	Serial     string      // as the device says
	Size       uint64      // bytes
	Removable  bool        // its medium can be taken out
	ReadOnly   bool        // the kernel refuses writes
	Partitions []Partition // by number
}

// A Partition is a part of a Disk.
type Partition struct {
	Number int
	Name   string // "sda1"
	Path   string // "/dev/sda1"
	Label  string // name in the partition table
	Start  uint64 // bytes from the start of the disk
	Size   uint64 // bytes
}

// Partition returns the partition with that label.
func (d Disk) Partition(label string) (Partition, bool) {
	i := slices.IndexFunc(d.Partitions, func(p Partition) bool { return p.Label == label })
	if i < 0 {
		return Partition{}, false
	}
	return d.Partitions[i], true
}

// sector is the unit of sizes in sysfs, whatever the device's own blocks are.
const sector = 512

// Disks returns the disks that could hold an operating system: no loop, RAM,
// floppy, optical, device-mapper, ZFS or network block devices, and none
// without a medium.
func Disks(d Dir) ([]Disk, error) {
	entries, err := d.ReadDir("/sys/block")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing disks: %w", err)
	}
	ids, err := links(d, "/dev/disk/by-id")
	if err != nil {
		return nil, fmt.Errorf("listing disk names: %w", err)
	}
	labels, err := links(d, "/dev/disk/by-partlabel")
	if err != nil {
		return nil, fmt.Errorf("listing partition labels: %w", err)
	}
	var disks []Disk
	for _, e := range entries {
		if !wholeDisk(e.Name()) {
			continue
		}
		disk := readDisk(d, e.Name(), labels)
		disk.IDs = ids[e.Name()]
		if disk.Size > 0 {
			disks = append(disks, disk)
		}
	}
	return disks, nil
}

func wholeDisk(name string) bool {
	for _, prefix := range []string{"loop", "ram", "zram", "fd", "sr", "dm-", "md", "zd", "nbd", "rbd"} {
		if strings.HasPrefix(name, prefix) {
			return false
		}
	}
	return !strings.Contains(name, "boot") && !strings.HasSuffix(name, "rpmb") // parts of an MMC
}

func readDisk(d Dir, name string, labels map[string][]string) Disk {
	dir := "/sys/block/" + name
	disk := Disk{
		Name:      name,
		Path:      "/dev/" + name,
		Bus:       bus(d, name),
		Model:     attribute(d, dir+"/device/model"),
		Serial:    cmp.Or(attribute(d, dir+"/serial"), attribute(d, dir+"/device/serial")),
		Size:      number(d, dir+"/size") * sector,
		Removable: attribute(d, dir+"/removable") == "1",
		ReadOnly:  attribute(d, dir+"/ro") == "1",
	}
	entries, _ := d.ReadDir(dir)
	for _, e := range entries {
		if p := dir + "/" + e.Name(); e.IsDir() && d.Exists(p+"/partition") {
			disk.Partitions = append(disk.Partitions, readPartition(d, p, labels[e.Name()]))
		}
	}
	slices.SortFunc(disk.Partitions, func(a, b Partition) int { return a.Number - b.Number })
	return disk
}

// readPartition takes the label from the kernel, or from udev where the kernel
// does not know it: a partition that was added while the disk was in use.
func readPartition(d Dir, dir string, labels []string) Partition {
	name := path.Base(dir)
	label := ""
	if len(labels) > 0 {
		label = labels[0]
	}
	for line := range strings.Lines(attribute(d, dir+"/uevent")) {
		if v, ok := strings.CutPrefix(line, "PARTNAME="); ok {
			label = strings.TrimSpace(v)
		}
	}
	return Partition{
		Number: int(number(d, dir+"/partition")), //nolint:gosec // at most 128
		Name:   name,
		Path:   "/dev/" + name,
		Label:  label,
		Start:  number(d, dir+"/start") * sector,
		Size:   number(d, dir+"/size") * sector,
	}
}

// bus tells how a disk is attached, from where sysfs keeps its device.
func bus(d Dir, name string) string {
	where, _ := d.Readlink("/sys/block/" + name)
	switch {
	case strings.HasPrefix(name, "nvme"):
		return "nvme"
	case strings.HasPrefix(name, "mmcblk"):
		return "mmc"
	case strings.Contains(where, "/usb"):
		return "usb"
	case strings.HasPrefix(name, "vd"):
		return "virtio"
	case strings.HasPrefix(name, "sd"):
		return "scsi"
	}
	return ""
}

// links maps kernel names of devices to their names in a directory of symlinks
// that udev keeps.
func links(d Dir, dir string) (map[string][]string, error) {
	entries, err := d.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names := make(map[string][]string)
	for _, e := range entries {
		if target, err := d.Readlink(path.Join(dir, e.Name())); err == nil {
			dev := path.Base(target)
			names[dev] = append(names[dev], e.Name())
		}
	}
	return names, nil
}

func attribute(d Dir, name string) string {
	b, err := d.ReadFile(name)
	if err != nil {
		return "" // not every device has every attribute
	}
	return strings.TrimSpace(string(b))
}

func number(d Dir, name string) uint64 {
	n, err := strconv.ParseUint(attribute(d, name), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
