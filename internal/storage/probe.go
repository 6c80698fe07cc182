package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/incusos/incusos/internal/sys"
)

// partition is the label of the partition that holds the pool.
const partition = "local-data"

// bootDisk returns the disk the machine was booted from: what the boot loader
// says, else the one with what udev calls the root partition. The latter is
// ambiguous on a machine with two installed disks.
func (s *Storage) bootDisk() (sys.Disk, error) {
	boot, err := sys.BootDisk(s.host.Files)
	if !errors.Is(err, fs.ErrNotExist) {
		return boot, err
	}
	target, err := s.host.Files.Readlink("/dev/disk/by-partlabel/root")
	if err != nil {
		return sys.Disk{}, errors.New("cannot tell which drive was booted from: the boot loader did not say, and no partition is labelled \"root\"")
	}
	disks, err := sys.Disks(s.host.Files)
	if err != nil {
		return sys.Disk{}, err
	}
	i := slices.IndexFunc(disks, func(d sys.Disk) bool { return hasPartition(d, path.Base(target)) })
	if i < 0 {
		return sys.Disk{}, fmt.Errorf("cannot tell which drive was booted from: %s is on none", target)
	}
	return disks[i], nil
}

func hasPartition(d sys.Disk, name string) bool {
	return slices.ContainsFunc(d.Partitions, func(p sys.Partition) bool { return p.Name == name })
}

// device returns the name of the partition for the pool, by its unique id if
// it has one, since kernel names change from boot to boot.
func (s *Storage) device() (string, error) {
	boot, err := s.bootDisk()
	if err != nil {
		return "", err
	}
	p, ok := boot.Partition(partition)
	if !ok {
		return "", fmt.Errorf("%s has no partition labelled %q; install again to have one", boot.Path, partition)
	}
	return s.stable(p), nil
}

func (s *Storage) stable(p sys.Partition) string {
	const dir = "/dev/disk/by-partuuid/"
	entries, err := s.host.Files.ReadDir(dir)
	if err != nil {
		return p.Path
	}
	for _, e := range entries {
		if target, err := s.host.Files.Readlink(dir + e.Name()); err == nil && path.Base(target) == p.Name {
			return dir + e.Name()
		}
	}
	return p.Path
}

// What a partition can hold.
const (
	holdsNothing = iota // no known signature
	holdsPool           // the pool, ready to be imported
	holdsHalf           // a ZFS label for which there is no pool
	holdsOther          // anything else
)

type content struct {
	kind int
	text string // what it is, for people
}

// probe looks at what is on device and changes nothing.
func (s *Storage) probe(ctx context.Context, device string) (content, error) {
	out, err := s.host.Exec.Run(ctx, sys.Command("blkid", "--probe", "--output", "export", device))
	if exit, ok := errors.AsType[*sys.ExecError](err); ok && exit.Code == 2 {
		return content{kind: holdsNothing}, nil // blkid(8): nothing was found
	}
	if err != nil {
		return content{}, fmt.Errorf("looking at what is on %s: %w", device, err)
	}
	kind, label := signature(out)
	switch kind {
	case "zfs_member":
		return s.probePool(ctx, device, label)
	case "":
		return content{kind: holdsNothing}, nil // only the partition itself was described
	}
	return content{holdsOther, "data of another kind (" + kind + ")"}, nil
}

// probePool tells what the ZFS label on device belongs to. blkid names that
// pool label.
func (s *Storage) probePool(ctx context.Context, device, label string) (content, error) {
	found, err := s.importable(ctx, device)
	if err != nil {
		return content{}, err
	}
	switch {
	case slices.Contains(found, pool):
		return content{kind: holdsPool}, nil
	case len(found) > 0:
		return content{holdsOther, "another ZFS pool, " + strings.Join(found, ", ")}, nil
	case label != "" && label != pool:
		return content{holdsOther, "part of another ZFS pool, " + label}, nil
	}
	return content{holdsHalf, "a ZFS label for which there is no whole pool"}, nil
}

// signature reads TYPE and LABEL from the output of blkid --output export.
func signature(out []byte) (kind, label string) {
	for line := range strings.Lines(string(out)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch key {
		case "TYPE", "PTTYPE":
			kind = value
		case "LABEL":
			label = value
		}
	}
	return kind, label
}

// importable lists the pools on device that could be imported. `zpool import`
// has no JSON; its exit status for "none" differs between releases.
func (s *Storage) importable(ctx context.Context, device string) ([]string, error) {
	out, err := s.host.Exec.Run(ctx, sys.Command("zpool", "import", "-d", device))
	if err != nil && !strings.Contains(err.Error(), "no pools available") {
		return nil, fmt.Errorf("looking for pools on %s: %w", device, err)
	}
	var names []string
	for line := range strings.Lines(string(out)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "pool: "); ok {
			names = append(names, name)
		}
	}
	return names, nil
}
