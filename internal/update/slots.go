package update

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/verity"
)

// A Disk is the disk that was booted from, with two slots of three partitions each,
// labelled as systemd-sysupdate has it: IncusOS_VERSION, or _empty.
type Disk struct {
	Exec    sys.Runner
	Path    string // such as "/dev/sda"
	ESP     sys.Partition
	Running Parts
	Other   Parts
}

// Parts are the partitions of a slot, in the order in which they are on the disk.
type Parts struct{ Signature, Tree, Usr sys.Partition }

// emptySlot is the label of the partitions of a slot without a version.
const emptySlot = "_empty"

// Numbers of the ESP and of the first partitions of the slots (package install makes
// them).
const espNumber, firstSlot, secondSlot = 1, 3, 6

// FindSlots finds the slots of the disk that a machine was booted from. The labels
// of the running one say which it is; those of the other may be anything.
func FindSlots(host sys.Host, running string) (Disk, error) {
	disk, err := sys.BootDisk(host.Files)
	if err != nil {
		return Disk{}, err
	}
	d := Disk{Exec: host.Exec, Path: disk.Path}
	for _, p := range disk.Partitions {
		if p.Number == espNumber {
			d.ESP = p
		}
	}
	found := 0
	for _, first := range []int{firstSlot, secondSlot} {
		parts, ok := partsOf(disk, first)
		if !ok {
			return Disk{}, fmt.Errorf("disk %s lacks partitions %d to %d of a slot", disk.Path, first, first+2)
		}
		if parts.Usr.Label == "IncusOS_"+running {
			d.Running = parts
			found++
		} else {
			d.Other = parts
		}
	}
	if found != 1 {
		return Disk{}, fmt.Errorf("disk %s has %d slots with version %s, which runs; want one", disk.Path, found, running)
	}
	return d, nil
}

func partsOf(disk sys.Disk, first int) (p Parts, ok bool) {
	found := 0
	for _, part := range disk.Partitions {
		switch part.Number {
		case first:
			p.Signature = part
		case first + 1:
			p.Tree = part
		case first + 2:
			p.Usr = part
		default:
			continue
		}
		found++
	}
	return p, found == 3
}

// Clear implements Slots.
func (d Disk) Clear(ctx context.Context) error {
	return d.label(ctx, emptySlot, emptySlot, emptySlot)
}

// Name implements Slots. The kernel finds file system and tree by their UUIDs, which
// are the two halves of the root hash (Discoverable Partitions Specification). The
// labels come last: tools take what has one for whole.
func (d Disk) Name(ctx context.Context, version string, root verity.Digest) error {
	for part, id := range map[sys.Partition][]byte{d.Other.Usr: root[:16], d.Other.Tree: root[16:]} {
		if err := d.set(ctx, "--part-uuid", part, uuid(id)); err != nil {
			return err
		}
	}
	name := "IncusOS_" + version
	return d.label(ctx, name+"_verity_sig", name+"_verity", name)
}

func (d Disk) label(ctx context.Context, signature, tree, usr string) error {
	return errors.Join(
		d.set(ctx, "--part-label", d.Other.Signature, signature),
		d.set(ctx, "--part-label", d.Other.Tree, tree),
		d.set(ctx, "--part-label", d.Other.Usr, usr))
}

// set changes one thing about a partition. The disk is in use, so the kernel is not
// asked to read the table again: it has no need to before the next start.
func (d Disk) set(ctx context.Context, what string, p sys.Partition, value string) error {
	_, err := d.Exec.Run(ctx, sys.Command("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", what, d.Path, strconv.Itoa(p.Number), value))
	if err != nil {
		return fmt.Errorf("partition %s: %w", p.Path, err)
	}
	return nil
}

// uuid writes 16 bytes as a UUID.
func uuid(b []byte) string {
	s := fmt.Sprintf("%x", b)
	return strings.ToUpper(s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:])
}
