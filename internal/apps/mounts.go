package apps

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// mountTable lists the mounts of this process (proc(5), mountinfo).
const mountTable = "/proc/self/mountinfo"

// clear makes sure that nothing is mounted below a directory: what is removed
// there would be removed from what is mounted.
func (a *Apps) clear(dir string) error {
	table, err := a.readOptional(mountTable)
	if err != nil {
		return err
	}
	for _, target := range mountsBelow(string(table), dir) {
		if err := a.host.Mounts.Unmount(target); err != nil {
			return fmt.Errorf("%s is in use, and nothing below %s may be: %w", target, dir, err)
		}
	}
	return nil
}

// mountsBelow returns the mount points below dir, dir itself left out, in the
// order in which they can be unmounted.
func mountsBelow(table, dir string) []string {
	var below []string
	for line := range strings.Lines(table) {
		if fields := strings.Fields(line); len(fields) > 4 {
			if target := unescape(fields[4]); strings.HasPrefix(target, dir+"/") {
				below = append(below, target)
			}
		}
	}
	slices.Reverse(below)
	return below
}

// unescape undoes what the kernel does to blanks: \ and three octal digits.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// remove removes a directory that lies on one file system.
func (a *Apps) remove(dir string) error {
	if err := a.clear(dir); err != nil {
		return err
	}
	if err := a.oneFilesystem(dir); err != nil {
		return err
	}
	if err := a.host.Files.RemoveAll(dir); err != nil {
		return fmt.Errorf("removing %s: %w", dir, err)
	}
	return nil
}

// oneFilesystem refuses a tree that something is mounted in which the table of
// mounts did not tell.
func (a *Apps) oneFilesystem(dir string) error {
	fi, err := a.host.Files.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return a.onDevice(dir, device(fi))
}

func (a *Apps) onDevice(dir string, dev uint64) error {
	entries, err := a.host.Files.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		name := dir + "/" + e.Name()
		fi, err := e.Info()
		if err != nil {
			return err
		}
		if device(fi) != dev {
			return fmt.Errorf("%s is another file system; unmount it before what is around it can be removed", name)
		}
		if err := a.onDevice(name, dev); err != nil {
			return err
		}
	}
	return nil
}

// device returns the file system that a file is on.
func device(fi fs.FileInfo) uint64 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return st.Dev
	}
	return 0
}
