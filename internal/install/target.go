package install

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys"
)

// virtualMedia are how the names of disks begin that a management controller
// pretends to have. They are not there at the next start.
func virtualMedia() []string {
	return []string{"usb-Linux_Virtual_", "usb-Generic-_SD_MMC_CRW", "usb-Cisco_", "usb-AMI_Virtual_", "usb-iDRAC_Virtual_"}
}

// Select returns the disk that want describes, out of those that can be
// installed to. Without a description there must be exactly one. The error of a
// choice that cannot be made lists what there is.
func Select(disks []sys.Disk, source string, want *api.SeedInstallTarget) (sys.Disk, error) {
	able, excuses := candidates(disks, source)
	if len(able) == 0 {
		return sys.Disk{}, errors.New("there is no disk to install to" + excuses)
	}
	if want == nil {
		if len(able) > 1 {
			return sys.Disk{}, fmt.Errorf("there are %d disks to install to; choose one by `target` in the install seed:%s", len(able), list(able))
		}
		return able[0], nil
	}
	matches, err := filter(able, *want)
	if err != nil {
		return sys.Disk{}, err
	}
	switch {
	case len(matches) == 0:
		return sys.Disk{}, fmt.Errorf("no disk is what `target` in the install seed describes (%s); there are:%s", describe(*want), list(able))
	case len(matches) > 1 && want.SortOrder == "":
		return sys.Disk{}, fmt.Errorf("%d disks are what `target` in the install seed describes (%s); set its `sort_order` to smallest or largest, or narrow it:%s",
			len(matches), describe(*want), list(matches))
	}
	return first(matches, want.SortOrder), nil
}

// candidates returns the disks that can be installed to, and says of the
// others why not.
func candidates(disks []sys.Disk, source string) (able []sys.Disk, excuses string) {
	for _, d := range disks {
		reason := unfit(d, source)
		if reason == "" {
			able = append(able, d)
			continue
		}
		excuses += fmt.Sprintf("\n  %s: %s", d.Path, reason)
	}
	return able, excuses
}

func unfit(d sys.Disk, source string) string {
	switch {
	case d.Name == source:
		return "is the medium this machine was booted from"
	case d.ReadOnly:
		return "is read-only"
	case len(d.IDs) == 0:
		return "has no name in /dev/disk/by-id"
	case slices.ContainsFunc(d.IDs, virtual):
		return "is a virtual medium of the management controller"
	}
	return ""
}

func virtual(id string) bool {
	return slices.ContainsFunc(virtualMedia(), func(prefix string) bool { return strings.HasPrefix(id, prefix) })
}

func filter(disks []sys.Disk, want api.SeedInstallTarget) ([]sys.Disk, error) {
	least, most := uint64(0), ^uint64(0)
	var err error
	if want.MinSize != "" {
		if least, err = api.ParseSize(want.MinSize); err != nil {
			return nil, err
		}
	}
	if want.MaxSize != "" {
		if most, err = api.ParseSize(want.MaxSize); err != nil {
			return nil, err
		}
	}
	var out []sys.Disk
	for _, d := range disks {
		if (want.Bus == "" || d.Bus == want.Bus) && hasID(d, want.ID) && least <= d.Size && d.Size <= most {
			out = append(out, d)
		}
	}
	return out, nil
}

// hasID reports whether id is the path of the disk, or a part of one of its
// names; upper and lower case differ.
func hasID(d sys.Disk, id string) bool {
	if strings.HasPrefix(id, "/") {
		name, byID := strings.CutPrefix(id, "/dev/disk/by-id/")
		return id == d.Path || byID && slices.Contains(d.IDs, name)
	}
	return slices.ContainsFunc(d.IDs, func(name string) bool { return strings.Contains(name, id) })
}

// first returns the smallest or largest disk; of several of that size, the one
// whose name comes first, so that every start chooses the same.
func first(disks []sys.Disk, order string) sys.Disk {
	return slices.MinFunc(disks, func(a, b sys.Disk) int {
		bySize := cmp.Compare(a.Size, b.Size)
		if order == "largest" {
			bySize = -bySize
		}
		return cmp.Or(bySize, slices.Compare(a.IDs, b.IDs))
	})
}

// list shows disks, a line each, indented below the error that they end.
func list(disks []sys.Disk) string {
	var b strings.Builder
	for _, d := range disks {
		fmt.Fprintf(&b, "\n  id %s, size %s, bus %s, model %q", d.IDs[0], gigabytes(d.Size), cmp.Or(d.Bus, "unknown"), d.Model)
	}
	return b.String()
}

// describe shows what was asked of a disk.
func describe(want api.SeedInstallTarget) string {
	var parts []string
	for _, p := range [][2]string{{"bus", want.Bus}, {"id", want.ID}, {"min_size", want.MinSize}, {"max_size", want.MaxSize}} {
		if p[1] != "" {
			parts = append(parts, p[0]+" "+p[1])
		}
	}
	return cmp.Or(strings.Join(parts, ", "), "any disk")
}

// gigabytes shows a size the way it is printed on a disk.
func gigabytes(n uint64) string { return fmt.Sprintf("%.1f GB", float64(n)/1e9) }
