package sys

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

type kernelMounts struct{}

func (kernelMounts) Mount(source, target, fstype string, options ...string) error {
	flags, data := mountFlags(options)
	if err := unix.Mount(source, target, fstype, flags, data); err != nil {
		return fmt.Errorf("mounting %s on %s: %w", source, target, err)
	}
	return nil
}

// mountFlags splits options into the flags of mount(2) and the text that goes
// to the file system.
func mountFlags(options []string) (flags uintptr, data string) {
	var rest []string
	for _, o := range options {
		switch o {
		case "ro":
			flags |= unix.MS_RDONLY
		case "nodev":
			flags |= unix.MS_NODEV
		case "nosuid":
			flags |= unix.MS_NOSUID
		case "noexec":
			flags |= unix.MS_NOEXEC
		case "nosymfollow":
			flags |= unix.MS_NOSYMFOLLOW
		case "bind":
			flags |= unix.MS_BIND
		default:
			rest = append(rest, o)
		}
	}
	return flags, strings.Join(rest, ",")
}

func (kernelMounts) Unmount(target string) error {
	if err := unix.Unmount(target, 0); err != nil {
		return fmt.Errorf("unmounting %s: %w", target, err)
	}
	return nil
}

func (kernelMounts) Usage(name string) (size, free uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(name, &st); err != nil {
		return 0, 0, fmt.Errorf("measuring the file system at %s: %w", name, err)
	}
	unit := uint64(st.Bsize) //nolint:gosec // a block size is small and positive
	return st.Blocks * unit, st.Bavail * unit, nil
}
