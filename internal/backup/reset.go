package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"strconv"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys"
)

// Partitions that the first boot makes, and that a reset takes away.
const (
	rootLabel  = "root"
	localLabel = "local-data"
	seedLabel  = "seed-data"
)

// FactoryReset makes the next start a first boot with the given seed. It
// returns before that; the machine has to be restarted.
//
// The seed is written first, which changes nothing: a machine that is set up
// does not read it. What makes the reset happen is one change of the partition
// table, in which both partitions go; package early makes new ones where they
// are missing. A cut before that leaves the machine as it was, a cut after it
// one that starts for the first time. The volumes in use stay as they are until
// the restart, since the kernel is not told.
//
// The key of root is in the header of its partition, sealed by the TPM, which
// keeps no part of it: with the header gone there is nothing to clear in the TPM.
func (b *Backup) FactoryReset(ctx context.Context, r api.SystemReset) error {
	b.turn.Lock()
	defer b.turn.Unlock()
	if err := r.Validate(); err != nil {
		return err
	}
	disk, gone, err := b.systemDisk()
	if err != nil {
		return err
	}
	write, err := b.Seed(r.Seeds, r.WipeExistingSeeds)
	if err != nil {
		return err
	}
	if err := write(); err != nil {
		return fmt.Errorf("writing the new seed: %w", err)
	}
	if err := b.drop(ctx, disk, gone); err != nil {
		return err
	}
	slog.WarnContext(ctx, "Factory reset: the next start is a first start", "disk", disk.Path)
	// From here on an error changes nothing: the next start makes all of it anew.
	if err := errors.Join(flush(b.host.Files, disk.Path), eraseHeader(b.host.Files, gone[0].Path), EraseLabels(b.host.Files, gone[1].Path)); err != nil {
		slog.WarnContext(ctx, "Cannot erase what a factory reset took away", "err", err)
	}
	return nil
}

// systemDisk returns the disk that the machine was started from and the
// partitions on it that go. Where the boot loader did not say, it is the only
// disk that has them and a seed.
func (b *Backup) systemDisk() (sys.Disk, []sys.Partition, error) {
	disk, err := sys.BootDisk(b.host.Files)
	if errors.Is(err, fs.ErrNotExist) {
		disk, err = b.onlySystem()
	}
	if err != nil {
		return sys.Disk{}, nil, err
	}
	var gone []sys.Partition
	for _, label := range []string{rootLabel, localLabel} {
		p, ok := disk.Partition(label)
		if !ok {
			return sys.Disk{}, nil, api.Errorf(api.Conflict, "the disk %s has no partition labelled %q; has it been reset already, and waits for a restart?", disk.Path, label)
		}
		gone = append(gone, p)
	}
	return disk, gone, nil
}

func (b *Backup) onlySystem() (sys.Disk, error) {
	disks, err := sys.Disks(b.host.Files)
	if err != nil {
		return sys.Disk{}, err
	}
	var found []sys.Disk
	for _, d := range disks {
		_, root := d.Partition(rootLabel)
		_, seed := d.Partition(seedLabel)
		if root && seed {
			found = append(found, d)
		}
	}
	if len(found) != 1 {
		return sys.Disk{}, api.Errorf(api.Conflict, "cannot tell which disk to reset: the boot loader did not say which it started from, and %d disks hold a system", len(found))
	}
	return found[0], nil
}

// drop removes partitions in one change of the table. The disk is in use, which
// is why the kernel is not told: it would refuse.
func (b *Backup) drop(ctx context.Context, disk sys.Disk, gone []sys.Partition) error {
	args := []string{"--quiet", "--no-reread", "--no-tell-kernel", "--delete", disk.Path}
	for _, p := range gone {
		args = append(args, strconv.Itoa(p.Number))
	}
	if _, err := b.host.Exec.Run(ctx, sys.Command("sfdisk", args...)); err != nil {
		return fmt.Errorf("removing the partitions of the system: %w", err)
	}
	return nil
}

// What is erased tells what a partition holds and how to open it, and is not
// touched by the volumes that are still in use: the header of LUKS 2 with all its
// key slots, and the four labels of ZFS, two at each end (OpenZFS,
// include/sys/vdev_impl.h). Signatures alone would not do: zpool also takes a
// label for a pool that has lost all of them.
const (
	luksHeader = 16 << 20
	zfsLabel   = 256 << 10
)

func eraseHeader(files sys.Dir, device string) error {
	return zero(files, device, func(size int64) [][2]int64 { return [][2]int64{{0, min(luksHeader, size)}} })
}

// EraseLabels removes what a ZFS pool left on a partition. The second pair of
// labels ends at the last multiple of their size.
func EraseLabels(files sys.Dir, device string) error {
	return zero(files, device, func(size int64) [][2]int64 {
		return [][2]int64{{0, min(2*zfsLabel, size)}, {max(size/zfsLabel*zfsLabel-2*zfsLabel, 0), size}}
	})
}

func flush(files sys.Dir, device string) error {
	return zero(files, device, func(int64) [][2]int64 { return nil })
}

// zero makes ranges of a device zeros, each from its first byte up to another.
func zero(files sys.Dir, device string, ranges func(size int64) [][2]int64) error {
	f, err := files.OpenDevice(device)
	if err != nil {
		return err
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err == nil {
		for _, r := range ranges(size) {
			_, werr := f.WriteAt(make([]byte, r[1]-r[0]), r[0])
			err = errors.Join(err, werr)
		}
	}
	return errors.Join(err, f.Sync(), f.Close())
}
