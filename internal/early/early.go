// Package early is the part of the boot that runs in the initrd, from /usr once
// dm-verity has checked it: it refuses machines that cannot be trusted, makes
// the root partition on the first boot, unlocks and mounts it, and says exactly
// why when it cannot.
//
// What a machine may lack, and why it is refused, is in refuse.go.
//
// It composes seal (unlocking, the recovery key) with the screen of console.
// What it found out is left in /run/incus-os/early.json for the daemon, which
// goes on where this ends; see package daemon.
package early

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/incusos/incusos/internal/install"
	"github.com/incusos/incusos/internal/seal"
	"github.com/incusos/incusos/internal/sys"
)

// A Console is the screen as far as the early boot needs it.
type Console interface {
	Say(format string, args ...any)
	Fail(title string, lines ...string)
	// Ask shows prompt on every console and returns the first line typed on
	// any of them, without echo.
	Ask(ctx context.Context, prompt string) (string, error)
}

// Names in the file trees of the initrd and of the machine.
const (
	sysroot     = "/sysroot"
	definitions = "/sysusr/usr/lib/incus-os/repart.d"
	recoveryKey = sysroot + "/var/lib/incus-os/recovery.root.key"
	resultFile  = "/run/incus-os/early.json"
)

// A Result is what the early boot tells the daemon.
type Result struct {
	Mode       string `json:"mode"`                  // "run" or "install"
	BootDisk   string `json:"boot_disk"`             // device the machine started from, such as "/dev/sda"
	Root       string `json:"root,omitempty"`        // device of the encrypted root, such as "/dev/sda9"
	UnlockedBy string `json:"unlocked_by,omitempty"` // "tpm" or "recovery key"

	// Lacks is what the machine does without because it was installed so; on a medium,
	// what the seed has to allow.
	Lacks seal.Lack `json:"lacks,omitempty"`

	Warnings []string `json:"warnings,omitempty"` // sentences for the operator
}

// A RefusedError is a condition that only a person before the machine can
// change. It has been shown on the console.
type RefusedError struct{ Problems []seal.Problem }

func (e *RefusedError) Error() string {
	return fmt.Sprintf("this machine does not meet the requirements: %s", e.Problems[0].What)
}

// Run brings the machine to the point where the initrd hands over: a root file
// system with /usr and /etc is mounted at /sysroot.
func Run(ctx context.Context, host sys.Host, screen Console) error {
	problems := seal.Check(host.Files)
	if len(problems) > 1 || len(problems) == 1 && problems[0].Lack == "" {
		return refuse(screen, problems)
	}
	disk, err := bootDisk(ctx, host.Files)
	if err != nil {
		return err
	}
	var lacks seal.Lack
	if len(problems) > 0 {
		lacks = problems[0].Lack
		if problems, err = tolerate(host, disk, problems); err != nil {
			return err
		}
		if len(problems) > 0 {
			return refuse(screen, problems)
		}
	}
	if err := host.Files.MkdirAll(sysroot, 0o755); err != nil {
		return err
	}
	res := Result{Mode: "run", BootDisk: disk.Path, Lacks: lacks}
	if isMedium(disk) {
		res.Mode = "install"
		err = host.Mounts.Mount("tmpfs", sysroot, "tmpfs", "mode=0755", "size=50%", "nodev", "nosuid")
	} else {
		err = mountRoot(ctx, host, screen, disk, &res)
	}
	if err != nil {
		return err
	}
	if err := assemble(host); err != nil {
		return err
	}
	if err := merge(ctx, host); err != nil {
		res.Warnings = append(res.Warnings, err.Error())
	}
	if err := seal.LeaveInitrd(host); err != nil {
		return err
	}
	return save(host.Files, res)
}

// installedPartitions is how many partitions a disk has from the moment it is
// installed: ESP, seed and two slots of three.
const installedPartitions = 8

// isMedium tells an install medium from an installed disk: the medium has
// neither a second slot nor a root partition. A disk has the former even when a
// factory reset took the latter away, and by then an update may have filled it.
func isMedium(d sys.Disk) bool {
	_, root := d.Partition(rootLabel)
	return !root && len(d.Partitions) < installedPartitions
}

// mountRoot unlocks the root partition, making it first if this is the first
// boot, and mounts it at /sysroot. What it finds out is noted in res.
func mountRoot(ctx context.Context, host sys.Host, screen Console, disk sys.Disk, res *Result) error {
	if err := standIn(ctx, host, screen, disk, res); err != nil {
		return err
	}
	root, err := rootPartition(ctx, host, screen, disk, res.Lacks)
	if err != nil {
		return err
	}
	res.Root = root.Path
	ask := mediumFirst(ctx, host, screen)
	if err := install.Forget(host.Files); err != nil {
		res.Warnings = append(res.Warnings, err.Error())
	}
	res.UnlockedBy, err = seal.Unlock(ctx, host, root.Path, ask)
	if err != nil {
		return fmt.Errorf("unlocking %s: %w", root.Path, err)
	}
	if err := check(ctx, host); err != nil {
		return err
	}
	if err := host.Mounts.Mount("/dev/mapper/root", sysroot, "ext4", "nodev", "nosuid", "noexec"); err != nil {
		return err
	}
	if err := seal.ConfirmLack(host.Files, sysroot, res.Lacks); err != nil {
		return err
	}
	if err := seal.EnsureRecoveryKey(ctx, host, root.Path, recoveryKey); err != nil {
		res.Warnings = append(res.Warnings, fmt.Sprintf("there is no recovery key yet: %v; it is made at the next boot that the TPM unlocks", err))
	}
	return nil
}

// check repairs what a cut may have left in the file system (e2fsck(8), exit
// status: 1 repaired, 2 wants a restart, 4 and up could not repair).
func check(ctx context.Context, host sys.Host) error {
	_, err := host.Exec.Run(ctx, sys.Command("e2fsck", "-p", "/dev/mapper/root"))
	exit, ok := errors.AsType[*sys.ExecError](err)
	if err == nil || ok && exit.Code == 1 {
		return nil
	}
	return fmt.Errorf("checking the root file system: %w", err)
}

// assemble puts /usr and the defaults of /etc in place below /sysroot.
func assemble(host sys.Host) error {
	for _, dir := range []string{"/etc", "/usr", "/var/lib/etc-overlay/upper", "/var/lib/etc-overlay/work"} {
		if err := host.Files.MkdirAll(sysroot+dir, 0o755); err != nil {
			return err
		}
	}
	if err := host.Mounts.Mount("/sysusr/usr", sysroot+"/usr", "", "bind"); err != nil {
		return err
	}
	return host.Mounts.Mount("overlay", sysroot+"/etc", "overlay",
		"lowerdir="+sysroot+"/usr/share/factory/etc",
		"upperdir="+sysroot+"/var/lib/etc-overlay/upper",
		"workdir="+sysroot+"/var/lib/etc-overlay/work")
}

func save(files sys.Dir, res Result) error {
	b, err := json.Marshal(res)
	if err != nil {
		return err
	}
	if err := files.MkdirAll("/run/incus-os", 0o700); err != nil {
		return err
	}
	return files.WriteFile(resultFile, append(b, '\n'), 0o600)
}
