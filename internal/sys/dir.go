package sys

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A Dir is the machine's file tree, rooted at a directory of the calling
// system. Names are absolute paths as the machine sees them, such as
// "/etc/hostname".
//
// Dir is not built on os.Root because the real tree has absolute symlinks
// (/var/run), which os.Root refuses. Use os.Root for trees that somebody else
// wrote: seeds, backups and downloaded archives.
type Dir struct {
	root  string
	fault func(op, name string) error
	put   func(name string, data []byte) (done bool, err error)
	trace func(Step)
}

// NewDir returns the file tree below root.
func NewDir(root string) Dir { return Dir{root: root} }

// WithFault returns the same tree, in which an operation that changes something
// first asks fault and fails with what it returns. For tests: op is "write",
// "remove", "rename", "mkdir", "symlink" or "open".
func (d Dir) WithFault(fault func(op, name string) error) Dir {
	d.fault = fault
	return d
}

// WithKernel returns the same tree, in which PutFile asks put before it writes
// to a file. For pretend machines: a kernel notices what is written to it.
func (d Dir) WithKernel(put func(name string, data []byte) (done bool, err error)) Dir {
	d.put = put
	return d
}

// Path returns the name under which a program outside the tree finds name.
func (d Dir) Path(name string) string { return filepath.Join(d.root, filepath.Clean("/"+name)) }

// ReadFile returns the content of name.
func (d Dir) ReadFile(name string) ([]byte, error) { return os.ReadFile(d.Path(name)) }

// ReadDir returns the entries of the directory name, sorted.
func (d Dir) ReadDir(name string) ([]fs.DirEntry, error) { return os.ReadDir(d.Path(name)) }

// Readlink returns where the symlink name points, as written in it.
func (d Dir) Readlink(name string) (string, error) { return os.Readlink(d.Path(name)) }

// Stat describes name, following symlinks.
func (d Dir) Stat(name string) (fs.FileInfo, error) { return os.Stat(d.Path(name)) }

// Exists reports whether name is there. An error other than its absence counts
// as there, so that nothing is overwritten by mistake.
func (d Dir) Exists(name string) bool {
	_, err := os.Lstat(d.Path(name))
	return !errors.Is(err, fs.ErrNotExist)
}

// Open opens name for reading.
func (d Dir) Open(name string) (*os.File, error) { return os.Open(d.Path(name)) }

// OpenDevice opens a device, or a file that stands for one, for reading and
// writing. It never creates it.
func (d Dir) OpenDevice(name string) (*os.File, error) {
	if err := d.check("open", name); err != nil {
		return nil, err
	}
	return os.OpenFile(d.Path(name), os.O_RDWR, 0)
}

// MkdirAll creates the directory name and its parents durably.
func (d Dir) MkdirAll(name string, perm fs.FileMode) error {
	if err := d.check("mkdir", name); err != nil {
		return err
	}
	return d.mkdirs(filepath.Clean("/"+name), perm)
}

// mkdirs makes a directory and flushes it into the one it is in: without that, a
// cut takes what is written into it away too.
func (d Dir) mkdirs(name string, perm fs.FileMode) error {
	if fi, err := d.Stat(name); err == nil && fi.IsDir() {
		return nil
	}
	if name == "/" {
		return os.MkdirAll(d.Path(name), perm)
	}
	parent := filepath.Dir(name)
	if err := d.mkdirs(parent, perm); err != nil {
		return err
	}
	err := os.Mkdir(d.Path(name), perm)
	if fi, statErr := d.Stat(name); errors.Is(err, fs.ErrExist) && statErr == nil && fi.IsDir() {
		return nil // somebody else was faster
	}
	if err != nil {
		return err
	}
	d.told(StepMkdir, name, "")
	if err := d.SyncDir(parent); !errors.Is(err, unix.EINVAL) {
		return err
	}
	return nil // fsync(2): a file system of the kernel's own has no disk
}

// Remove removes a file or an empty directory.
func (d Dir) Remove(name string) error {
	if err := d.check("remove", name); err != nil {
		return err
	}
	if err := os.Remove(d.Path(name)); err != nil {
		return err
	}
	d.told(StepRemove, name, "")
	return nil
}

// RemoveAll removes name and what it contains.
func (d Dir) RemoveAll(name string) error {
	if err := d.check("remove", name); err != nil {
		return err
	}
	if err := os.RemoveAll(d.Path(name)); err != nil {
		return err
	}
	d.told(StepRemove, name, "")
	return nil
}

// Rename renames a file durably; an existing newname is replaced atomically.
func (d Dir) Rename(oldname, newname string) error {
	if err := d.check("rename", newname); err != nil {
		return err
	}
	return d.rename(oldname, newname)
}

func (d Dir) rename(oldname, newname string) error {
	if err := os.Rename(d.Path(oldname), d.Path(newname)); err != nil {
		return err
	}
	d.told(StepRename, oldname, newname)
	return d.SyncDir(filepath.Dir(newname))
}

// Link gives a file another name durably. There must be none of that name.
func (d Dir) Link(oldname, newname string) error {
	if err := d.check("link", newname); err != nil {
		return err
	}
	if err := os.Link(d.Path(oldname), d.Path(newname)); err != nil {
		return err
	}
	d.told(StepLink, oldname, newname)
	return d.SyncDir(filepath.Dir(newname))
}

// Symlink makes name a symlink to target, atomically replacing what is there.
func (d Dir) Symlink(target, name string) error {
	if err := d.check("symlink", name); err != nil {
		return err
	}
	tmp := d.Path(name) + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(target, tmp); err != nil {
		return err
	}
	d.told(StepMake, name+".new", "")
	return d.rename(name+".new", name)
}

// WriteFile replaces name atomically and durably: after a cut at any point the
// old or the new content is there, whole. Missing parents are created 0755.
func (d Dir) WriteFile(name string, data []byte, perm fs.FileMode) error {
	f, err := d.Create(name, perm)
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return errors.Join(err, f.Abort())
	}
	return f.Commit()
}

// PutFile writes name in place, for kernel interfaces such as sysfs, where
// renaming is not possible.
func (d Dir) PutFile(name string, data []byte) error {
	if err := d.check("write", name); err != nil {
		return err
	}
	if d.put != nil {
		if done, err := d.put(name, data); done || err != nil {
			return err
		}
	}
	f, err := os.OpenFile(d.Path(name), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// SyncDir flushes a directory, which makes renames in it durable.
func (d Dir) SyncDir(name string) error {
	f, err := os.Open(d.Path(name))
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	d.told(StepFlushDir, filepath.Clean("/"+name), "")
	return nil
}

func (d Dir) check(op, name string) error {
	if d.fault == nil {
		return nil
	}
	if err := d.fault(op, name); err != nil {
		return &fs.PathError{Op: op, Path: name, Err: err}
	}
	return nil
}

// SetGroup gives the file called name to the group called group, if the tree has
// one of that name in /etc/group (group(5)).
func (d Dir) SetGroup(name, group string) error {
	if err := d.check("chown", name); err != nil {
		return err
	}
	b, err := os.ReadFile(d.Path("/etc/group"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for line := range strings.Lines(string(b)) {
		fields := strings.Split(line, ":")
		if len(fields) < 3 || fields[0] != group {
			continue
		}
		gid, err := strconv.Atoi(fields[2])
		if err != nil {
			return fmt.Errorf("/etc/group: group %s: %w", group, err)
		}
		return os.Chown(d.Path(name), -1, gid)
	}
	return nil
}
