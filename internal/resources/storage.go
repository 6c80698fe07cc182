package resources

import (
	"cmp"
	"path"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys"
)

// storage returns the drives that package sys takes for such.
func (m machine) storage() api.ResourcesStorage {
	out := api.ResourcesStorage{Disks: []api.ResourcesStorageDisk{}}
	disks, err := sys.Disks(m.files)
	if err != nil {
		return out // nothing can be said of them
	}
	paths := m.names("/dev/disk/by-path")
	for _, d := range disks {
		out.Disks = append(out.Disks, m.disk(d, paths[d.Name]))
	}
	return out
}

func (m machine) disk(d sys.Disk, byPath string) api.ResourcesStorageDisk {
	dir := "/sys/block/" + d.Name
	p := m.where(m.real(dir))
	out := api.ResourcesStorageDisk{
		ID: d.Name, Device: m.text(dir + "/dev"), Model: d.Model, Type: d.Bus, ReadOnly: d.ReadOnly, Size: d.Size,
		Removable: d.Removable, WWN: cmp.Or(m.text(dir+"/wwid"), m.text(dir+"/device/wwid")), NUMANode: m.number(p.pci + "/numa_node"),
		DevicePath: byPath, BlockSize: cmp.Or(m.number(dir+"/queue/logical_block_size"), 512),
		FirmwareVersion: cmp.Or(m.text(dir+"/device/firmware_rev"), m.text(dir+"/device/rev")),
		RPM:             m.number(dir + "/queue/rotational"), Serial: d.Serial, PCIAddress: p.addr, USBAddress: m.usbAddress(p),
		Partitions: []api.ResourcesStorageDiskPartition{},
	}
	if len(d.IDs) > 0 {
		out.DeviceID = d.IDs[0]
	}
	for _, part := range d.Partitions {
		out.Partitions = append(out.Partitions, api.ResourcesStorageDiskPartition{
			ID: part.Name, Device: m.text(dir + "/" + part.Name + "/dev"), ReadOnly: m.text(dir+"/"+part.Name+"/ro") == "1",
			Size: part.Size, Partition: uint64(part.Number), //nolint:gosec // counted from 1
		})
	}
	return out
}

// names returns the first name in a directory of symlinks of each device.
func (m machine) names(dir string) map[string]string {
	out := make(map[string]string)
	for _, name := range m.list(dir) {
		if device := m.link(path.Join(dir, name)); out[device] == "" {
			out[device] = name
		}
	}
	return out
}
