// Package install puts IncusOS on a disk of the machine, from the medium that
// the machine was booted from.
//
//	target.go     which disk                                  (pure)
//	preflight.go  whether it may and can be done               (reads only)
//	contents.go   what a disk already holds                    (pure)
//	layout.go     the partitions, as a script for sfdisk       (pure)
//	copy.go       the copying of partitions and of the ESP
//	removed.go    waiting until the medium is taken out
//
// An install may be cut at any point. The disk's first partition is named
// incusos-incomplete until everything is in place and flushed; renaming it to
// esp is the last thing done. A disk with the first name may be installed to
// again without being forced, and always from the start.
//
// What to install comes as values: package seed beside this one reads them, and
// package daemon above hands them over. That the machine has UEFI, Secure Boot
// and a TPM is for its caller to check, before this.
package install

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys"
)

// A Request says what to install, from where, and whom to tell.
type Request struct {
	Seed   api.SeedInstall // what the operator asked for, already valid
	Source sys.Disk        // the medium the machine was booted from; its ESP must not be mounted for writing

	// WriteSeed writes the tar archive for the new disk's seed partition. Nil
	// leaves it empty.
	WriteSeed func(io.Writer) error

	// Mark is the name of an empty file for the new disk's boot partition, by which the
	// early boot knows what the machine was installed without. "" makes none.
	Mark string

	// Holds returns the beginning of the id of the machine whose system a disk
	// holds; "" if it holds none that anybody has used. Nil leaves it unasked.
	Holds func(sys.Disk) (string, error)

	// Progress is told how many of total bytes a phase has done; total is 0
	// for a phase that cannot be measured. Nil is fine.
	Progress func(phase string, done, total uint64)
}

// The EFI variable that is there once an install is complete, until the
// installed system starts for the first time: a machine that starts from the
// medium again must not install again.
const (
	doneName   = "IncusOSInstallComplete"
	doneVendor = "12f075e0-2d07-493d-811a-00920a72c04c"
)

// An installer is one run.
type installer struct {
	host sys.Host
	Request
	plan plan
}

// Run installs, and returns the disk it installed to. Before it changes
// anything it checks all that can be checked. After an error it may be called
// again.
func Run(ctx context.Context, host sys.Host, r Request) (sys.Disk, error) {
	if r.Progress == nil {
		r.Progress = func(string, uint64, uint64) {}
	}
	if r.WriteSeed == nil {
		r.WriteSeed = func(io.Writer) error { return nil }
	}
	p, err := preflight(ctx, host, r)
	if err != nil {
		return sys.Disk{}, err
	}
	i := &installer{host, r, p}
	for _, step := range []func(context.Context) error{i.partition, i.copySlot, i.copyESP, i.copySeed, i.commit} {
		err := ctx.Err()
		if err == nil {
			err = step(ctx)
		}
		if err != nil {
			return sys.Disk{}, fmt.Errorf("installing to %s: %w", p.target.Path, err)
		}
	}
	return p.target, nil
}

// partition makes the new table, with the mark of an incomplete install.
func (i *installer) partition(ctx context.Context) error {
	i.Progress("partitioning", 0, 0)
	// From here on no install is complete. The variable must be gone before
	// the table: with both, the next start would take the medium for done.
	if err := sys.DeleteVariable(i.host.Files, doneName, doneVendor); err != nil {
		return err
	}
	c := sys.Command("sfdisk", "--quiet", "--wipe", "always", "--wipe-partitions", "always", i.plan.target.Path)
	c.Stdin = script(i.plan.source)
	if _, err := i.host.Exec.Run(ctx, c); err != nil {
		return fmt.Errorf("partitioning: %w", err)
	}
	last := i.node(lastPartition)
	// sfdisk made the kernel read the table; the nodes appear a little later. They
	// are the kernel's own: udev, which may have hundreds of events to go through
	// on a slow machine, is not waited for.
	ctx, cancel := context.WithTimeout(ctx, nodeTime)
	defer cancel()
	if err := sys.WaitFor(ctx, i.host.Files, last); err != nil {
		return fmt.Errorf("waiting for %s after partitioning: %w; is a partition of the disk in use?", last, err)
	}
	return nil
}

// nodeTime is many times what a kernel needs to show new partitions.
const nodeTime = time.Minute

// commit makes what was copied durable, then the install complete.
func (i *installer) commit(ctx context.Context) error {
	i.Progress("finishing", 0, 0)
	disk, err := i.host.Files.OpenDevice(i.plan.target.Path)
	if err != nil {
		return err
	}
	if err := errors.Join(disk.Sync(), disk.Close()); err != nil {
		return fmt.Errorf("flushing: %w", err)
	}
	// Four zero bytes: what matters is that it is there.
	if err := sys.WriteVariable(i.host.Files, doneName, doneVendor, make([]byte, 4)); err != nil {
		return err
	}
	if _, err := i.host.Exec.Run(ctx, sys.Command("sfdisk", "--quiet", "--part-label", i.plan.target.Path, "1", "esp")); err != nil {
		return fmt.Errorf("marking the install complete: %w", err)
	}
	return nil
}

// node returns the device of a partition of the target.
func (i *installer) node(number int) string { return partitionPath(i.plan.target, number) }

// partitionPath returns the device of a partition that may not be there yet.
// The kernel puts a "p" between a digit and the number (block/partitions/core.c).
func partitionPath(d sys.Disk, number int) string {
	if last := d.Path[len(d.Path)-1]; last >= '0' && last <= '9' {
		return fmt.Sprintf("%sp%d", d.Path, number)
	}
	return fmt.Sprintf("%s%d", d.Path, number)
}
