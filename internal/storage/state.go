package storage

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys"
)

const byID = "/dev/disk/by-id/"

// drives lists the disks that have a lasting name, by that name.
func (s *Storage) drives(disks []sys.Disk, pools []api.StoragePool) []api.StorageDrive {
	boot, _ := s.bootDisk()
	drives := []api.StorageDrive{}
	for _, d := range disks {
		id := driveID(d)
		if id == "" || virtualMedium(id) {
			continue
		}
		drive := api.StorageDrive{
			ID: id, ModelName: d.Model, SerialNumber: d.Serial, Bus: d.Bus, Capacity: d.Size,
			Boot: d.Name == boot.Name, Removable: d.Removable, WWN: wwn(d), WWNID: wwnID(d),
			MemberPool: memberOf(id, pools),
		}
		if name := nameOf(d); s.host.Files.Exists(keyOf(name)) {
			drive.Encrypted, drive.EncryptedID = true, mapper+opened+name
			drive.MemberPool = memberOf(drive.EncryptedID, pools)
		}
		drives = append(drives, drive)
	}
	slices.SortFunc(drives, func(a, b api.StorageDrive) int { return strings.Compare(a.ID, b.ID) })
	return drives
}

// virtualMedium reports whether a drive is what a management controller shows
// when somebody may plug in an image over the network.
func virtualMedium(id string) bool {
	return slices.ContainsFunc([]string{
		"usb-Linux_Virtual_", "usb-Generic-_SD_MMC_CRW", "usb-Cisco_", "usb-AMI_Virtual_", "usb-iDRAC_Virtual_",
	}, func(prefix string) bool { return strings.HasPrefix(id, byID+prefix) })
}

// driveID prefers a name that says model and serial number, as printed on the
// drive, over one made of numbers only. It is "" if there is none.
func driveID(d sys.Disk) string {
	if len(d.IDs) == 0 {
		return ""
	}
	i := slices.IndexFunc(d.IDs, func(id string) bool {
		return !strings.HasPrefix(id, "wwn-") && !strings.HasPrefix(id, "nvme-eui.") && !strings.HasPrefix(id, "nvme-nvme.")
	})
	return byID + d.IDs[max(i, 0)]
}

func wwnID(d sys.Disk) string {
	for _, id := range d.IDs {
		if strings.HasPrefix(id, "wwn-") || strings.HasPrefix(id, "nvme-eui.") {
			return byID + id
		}
	}
	return ""
}

func wwn(d sys.Disk) string {
	id := strings.TrimPrefix(wwnID(d), byID)
	return strings.TrimPrefix(strings.TrimPrefix(id, "wwn-"), "nvme-")
}

// memberOf returns the pool that the drive, or a partition of it, belongs to.
func memberOf(id string, pools []api.StoragePool) string {
	for _, p := range pools {
		for _, d := range slices.Concat(p.Devices, p.Cache, p.Log) {
			if d == id || strings.HasPrefix(d, id+"-part") {
				return p.Name
			}
		}
	}
	return ""
}

func (s *Storage) statePools(ctx context.Context, disks []sys.Disk) ([]api.StoragePool, error) {
	list, err := s.pools(ctx)
	if err != nil {
		return nil, err
	}
	states, err := s.statuses(ctx)
	if err != nil {
		return nil, err
	}
	datasets, err := s.datasets(ctx)
	if err != nil {
		return nil, err
	}
	ids := lastingNames(disks)
	pools := []api.StoragePool{}
	for _, name := range slices.Sorted(maps.Keys(list)) {
		p := describe(name, list[name], datasets)
		s.topology(&p, states[name], ids)
		p.Managed = s.host.Files.Exists(keyDir + "/zpool." + name + ".key")
		pools = append(pools, p)
	}
	return pools, nil
}

// describe fills in what zpool list and zfs list know about a pool.
func describe(name string, l listed, datasets map[string]dataset) api.StoragePool {
	own := datasets[name].Properties
	p := api.StoragePool{
		Name: name, State: l.State, EncryptionKeyStatus: own.KeyStatus.Value,
		RawSize: uint64(l.Properties.Size.Value), Allocated: uint64(l.Properties.Allocated.Value),
		UsableSize: uint64(own.Used.Value + own.Available.Value),
		Volumes:    []api.PoolVolume{},
	}
	for _, n := range slices.Sorted(maps.Keys(datasets)) {
		volume, below := strings.CutPrefix(n, name+"/")
		if !below {
			continue
		}
		v := datasets[n].Properties
		p.Volumes = append(p.Volumes, api.PoolVolume{
			Name: volume, Usage: uint64(v.Used.Value), Quota: uint64(v.Quota.Value), Use: strings.TrimPrefix(v.Use.Value, "-"),
		})
	}
	return p
}

// topology fills in what zpool status knows about a pool. ids maps kernel names
// of devices to lasting ones.
func (s *Storage) topology(p *api.StoragePool, st status, ids map[string]string) {
	p.Type = layout(st.Vdevs[p.Name])
	p.Devices, p.DevicesDegraded = s.leaves(st.Vdevs, ids)
	p.Log, p.LogDegraded = s.leaves(st.Logs, ids)
	p.Cache, p.CacheDegraded = s.leaves(st.Cache, ids)
	if st.Special != nil {
		special := &api.PoolSpecial{Type: layout(vdev{Vdevs: st.Special})}
		special.Devices, p.SpecialDegraded = s.leaves(st.Special, ids)
		p.Special = special
	}
	if st.Scan != nil && st.Scan.Function == "SCRUB" {
		p.LastScrub = scrub(*st.Scan)
	}
}

// layout names the kind of pool that root is: plain disks, one mirror, several
// mirrors, or parity.
func layout(root vdev) string {
	mirrors, kind := 0, "zfs-raid0"
	for _, v := range root.Vdevs {
		switch {
		case v.Type == "mirror":
			mirrors++
			kind = "zfs-raid1"
		case v.Type == "raidz":
			level, _, _ := strings.Cut(strings.TrimPrefix(v.Name, "raidz"), "-")
			kind = "zfs-raidz" + level
		}
	}
	if mirrors > 1 {
		return "zfs-raid10"
	}
	return kind
}

// leaves returns the devices below vdevs, sorted, and those among them that are
// not in order.
func (s *Storage) leaves(vdevs map[string]vdev, ids map[string]string) (all, degraded []string) {
	for _, name := range slices.Sorted(maps.Keys(vdevs)) {
		v := vdevs[name]
		if len(v.Vdevs) > 0 {
			a, d := s.leaves(v.Vdevs, ids)
			all, degraded = append(all, a...), append(degraded, d...)
			continue
		}
		if v.Path == "" {
			continue // a mirror of nothing, or a spare's place
		}
		device := v.Path
		if id, ok := ids[s.kernelName(v.Path)]; ok {
			device = id
		}
		all = append(all, device)
		if v.State != "ONLINE" {
			degraded = append(degraded, device)
		}
	}
	return all, degraded
}

// kernelName follows a link below /dev to the device's own name.
func (s *Storage) kernelName(device string) string {
	if target, err := s.host.Files.Readlink(device); err == nil {
		return path.Base(target)
	}
	return path.Base(device)
}

// lastingNames maps the kernel names of disks and partitions to lasting names,
// whether or not udev has made links for the partitions.
func lastingNames(disks []sys.Disk) map[string]string {
	ids := make(map[string]string)
	for _, d := range disks {
		id := driveID(d)
		if id == "" {
			continue
		}
		ids[d.Name] = id
		for _, p := range d.Partitions {
			ids[p.Name] = fmt.Sprintf("%s-part%d", id, p.Number)
		}
	}
	return ids
}

// scrub translates the words of ZFS. The end of one that is not finished is not
// known, and given as its start since clients want a time.
func scrub(s scan) *api.PoolScrub {
	start := time.Unix(s.Start, 0).UTC()
	out := &api.PoolScrub{State: "UNKNOWN", StartTime: start, EndTime: start, Progress: "0.00%", Errors: uint64(s.Errors)}
	switch s.State {
	case "FINISHED":
		out.State, out.Progress, out.EndTime = "FINISHED", "100.00%", time.Unix(s.End, 0).UTC()
	case "SCANNING":
		out.State = "IN_PROGRESS"
		if s.ToDo > 0 {
			out.Progress = fmt.Sprintf("%.2f%%", min(99.99, 100*float64(s.Done)/float64(s.ToDo)))
		}
	}
	return out
}
