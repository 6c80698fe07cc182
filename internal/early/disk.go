package early

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"time"

	"github.com/incusos/incusos/internal/backup"
	"github.com/incusos/incusos/internal/seal"
	"github.com/incusos/incusos/internal/sys"
)

const (
	espLabel   = "esp"
	rootLabel  = "root"
	localLabel = "local-data"

	// diskTimeout is how long the disk that the firmware read may take to
	// appear to the kernel: large arrays need a minute or more.
	diskTimeout = 2 * time.Minute

	// smallest is the size below which a disk cannot hold the system, bytes.
	smallest = 16_000_000_000
)

// bootDisk returns the disk that systemd-boot was started from, once the kernel
// has found it.
func bootDisk(ctx context.Context, files sys.Dir) (sys.Disk, error) {
	link, err := sys.BootPartition(files)
	if errors.Is(err, fs.ErrNotExist) {
		return sys.Disk{}, errors.New("this machine was not started by systemd-boot: the firmware has no variable LoaderDevicePartUUID; start from the disk's own boot entry")
	}
	if err != nil {
		return sys.Disk{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, diskTimeout)
	defer cancel()
	if err := sys.WaitFor(ctx, files, link); err != nil {
		return sys.Disk{}, fmt.Errorf("waiting for the disk this machine started from (%s): %w", link, err)
	}
	return sys.BootDisk(files)
}

// rootPartition returns the root partition of disk. On the first boot it makes
// it and the one for the pool: systemd-repart writes the partition table last,
// so that a cut leaves a disk on which this starts over.
func rootPartition(ctx context.Context, host sys.Host, screen Console, disk sys.Disk, lacks seal.Lack) (sys.Partition, error) {
	_, hasLocal := disk.Partition(localLabel)
	p, ok := disk.Partition(rootLabel)
	if ok && hasLocal {
		return p, nil
	}
	if esp, hasESP := disk.Partition(espLabel); hasESP && !ok {
		if err := seal.Forget(host, esp.Path, lacks); err != nil {
			return sys.Partition{}, err
		}
	}
	if disk.Size < smallest {
		return sys.Partition{}, fmt.Errorf("the disk %s has %d GB and the system needs 16 GB: install to a larger disk", disk.Path, disk.Size/1e9)
	}
	screen.Say("first start: making the encrypted root partition on %s", disk.Path)
	out, err := host.Exec.Run(ctx, sys.Command("systemd-repart", "--json=short",
		"--definitions="+definitions, "--dry-run=no", "--tpm2-device=auto", "--tpm2-pcrs="+seal.FirstPCRs(lacks), disk.Path))
	if err != nil {
		return sys.Partition{}, fmt.Errorf("partitioning %s: %w", disk.Path, err)
	}
	root, err := madePartition(ctx, host.Files, out, rootLabel)
	if err != nil || hasLocal {
		return root, err
	}
	// Where a factory reset took a partition away there may be labels of the pool
	// that was there, without the signatures that systemd-repart erases.
	local, err := madePartition(ctx, host.Files, out, localLabel)
	if err != nil {
		return sys.Partition{}, err
	}
	if err := backup.EraseLabels(host.Files, local.Path); err != nil {
		return sys.Partition{}, fmt.Errorf("erasing what was in the new partition %s: %w", local.Path, err)
	}
	return root, nil
}

// madePartition finds a partition in what systemd-repart printed, a JSON
// list of partitions with label and node, and waits for its device. The kernel
// does not know the labels of partitions that were added to a disk in use.
func madePartition(ctx context.Context, files sys.Dir, printed []byte, label string) (sys.Partition, error) {
	var made []struct{ Label, Node string }
	if err := json.Unmarshal(printed, &made); err != nil {
		return sys.Partition{}, fmt.Errorf("reading what systemd-repart printed: %w", err)
	}
	for _, p := range made {
		if p.Label != label {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, diskTimeout)
		defer cancel()
		if err := sys.WaitFor(ctx, files, p.Node); err != nil {
			return sys.Partition{}, fmt.Errorf("waiting for the new partition %s: %w", label, err)
		}
		return sys.Partition{Name: path.Base(p.Node), Path: p.Node, Label: p.Label}, nil
	}
	return sys.Partition{}, fmt.Errorf("systemd-repart made no partition labelled %q", label)
}
