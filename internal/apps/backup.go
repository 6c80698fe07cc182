package apps

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/incusos/incusos/api"
)

const (
	incusDir = "/var/lib/incus"
	database = "database" // in it, where Incus keeps everything it knows
)

// Backup returns what writes everything that Incus keeps, without the data of
// instances: a tar archive in gzip of its directory. What is mounted there is left
// out, as are sockets, which Incus makes anew.
func (a *Apps) Backup(ctx context.Context) (func(io.Writer) error, error) {
	root, err := os.OpenRoot(a.host.Files.Path(incusDir))
	if err != nil {
		return nil, fmt.Errorf("backing Incus up: %w", err)
	}
	snapshot, err := a.snapshot(ctx, root)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("backing Incus up: %w", err), root.Close())
	}
	return func(w io.Writer) error {
		defer root.Close()
		defer snapshot.Close()
		z := gzip.NewWriter(w)
		if _, err := io.Copy(z, snapshot); err != nil {
			return err
		}
		p := packer{tar: tar.NewWriter(z), root: root}
		if err := p.tree(".", notRuntime); err != nil {
			return err
		}
		return errors.Join(p.tar.Close(), z.Close())
	}, nil
}

// notRuntime leaves out what Incus makes when it starts, what instances keep, and
// the database, which snapshot has taken.
func notRuntime(name string) bool {
	switch top, below, _ := strings.Cut(name, "/"); top {
	case "guestapi", "shmounts", "devlxd", database, restoredMark:
		return false
	case "storage-pools":
		return !strings.Contains(below, "/") // the places where pools are mounted
	}
	return true
}

// attempts is how often the database is read until it did not change meanwhile.
const attempts = 5

// snapshot packs the database, which Incus writes to while it runs, into a file
// without a name.
func (a *Apps) snapshot(ctx context.Context, root *os.Root) (*os.File, error) {
	for range attempts {
		before, err := state(root)
		if err != nil {
			return nil, err
		}
		f, err := a.packDatabase(root)
		if err != nil {
			return nil, err
		}
		after, err := state(root)
		if err != nil || slices.Equal(before, after) {
			return f, err
		}
		if err := f.Close(); err != nil {
			return nil, err
		}
		if err := wait(ctx, time.Second); err != nil {
			return nil, err
		}
	}
	return nil, api.Errorf(api.Unavailable, "the database of Incus keeps changing; try again when less is going on")
}

func (a *Apps) packDatabase(root *os.Root) (*os.File, error) {
	f, err := os.CreateTemp(a.host.Files.Path("/var/lib/incus-os"), ".backup-*")
	if err != nil {
		return nil, err
	}
	p := packer{tar: tar.NewWriter(f), root: root, padded: true}
	err = os.Remove(f.Name())
	if err == nil {
		err = p.tree(database, func(string) bool { return true })
	}
	if err == nil {
		err = p.tar.Flush() // what follows is written by another
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// state describes the files of the database, so that a change shows.
func state(root *os.Root) ([]string, error) {
	var all []string
	err := fs.WalkDir(root.FS(), database, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := e.Info()
		if err == nil {
			all = append(all, fmt.Sprint(name, fi.Size(), fi.ModTime().UnixNano()))
		}
		return err
	})
	return all, err
}

// A packer puts files into an archive.
type packer struct {
	tar    *tar.Writer
	root   *os.Root
	prefix string // of names in the archive
	padded bool   // a file that shrinks while it is read ends in zeros, and is no error
	limit  int64  // of one file, of which the end is taken; 0: none
	left   int64  // how much may still be packed; used if there is a limit
}

// tree packs a directory as far as keep says. It stays on its file system.
func (p *packer) tree(dir string, keep func(name string) bool) error {
	top, err := p.root.Stat(dir)
	if err != nil {
		return err
	}
	return fs.WalkDir(p.root.FS(), dir, func(name string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone since it was listed
		}
		if err != nil {
			return err
		}
		fi, err := p.root.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if name != "." && !keep(name) || device(fi) != device(top) {
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		return p.entry(name, fi)
	})
}

func (p *packer) entry(name string, fi fs.FileInfo) error {
	switch {
	case name == ".":
		return nil
	case fi.Mode().IsRegular():
		return p.file(name)
	case fi.IsDir():
		return p.header(name, fi, "")
	case fi.Mode().Type() == fs.ModeSymlink:
		target, err := p.root.Readlink(name)
		if err != nil {
			return err
		}
		return p.header(name, fi, target)
	}
	return nil // a socket, a pipe or a device
}

func (p *packer) header(name string, fi fs.FileInfo, target string) error {
	h, err := tar.FileInfoHeader(fi, target)
	if err != nil {
		return err
	}
	h.Name, h.Uname, h.Gname = path.Join(p.prefix, name), "", ""
	if fi.IsDir() {
		h.Name += "/"
	}
	return p.tar.WriteHeader(h)
}

// file packs a regular file. What is one and what is opened is looked at twice,
// since names may mean something else by then.
func (p *packer) file(name string) error {
	f, err := p.root.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil || !fi.Mode().IsRegular() {
		return err
	}
	if p.limit > 0 {
		if fi, err = p.end(f, fi); err != nil {
			return err
		}
	}
	if err := p.header(name, fi, ""); err != nil {
		return err
	}
	var r io.Reader = f
	if p.padded {
		r = io.MultiReader(f, zeros{})
	}
	if _, err := io.CopyN(p.tar, r, fi.Size()); err != nil {
		return fmt.Errorf("%s changed while it was read: %w", name, err)
	}
	return nil
}

// end goes to the part of a file that is packed, and describes it as if it was
// the whole.
func (p *packer) end(f *os.File, fi fs.FileInfo) (fs.FileInfo, error) {
	size := min(fi.Size(), p.limit, p.left)
	p.left -= size
	_, err := f.Seek(fi.Size()-size, io.SeekStart)
	return sized{fi, size}, err
}

type sized struct {
	fs.FileInfo
	size int64
}

func (s sized) Size() int64 { return s.size }

// zeros is endless.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// What logs are packed up to, in bytes: the end of each, and all.
const (
	logLimit  = 16 << 20
	logsLimit = 256 << 20
)

// Logs returns what writes the logs of Incus and of its instances: a tar archive
// in gzip.
func (a *Apps) Logs() func(io.Writer) error {
	return func(w io.Writer) error {
		z := gzip.NewWriter(w)
		p := packer{tar: tar.NewWriter(z), padded: true, limit: logLimit, left: logsLimit}
		for _, dir := range []string{"/run/incus", "/var/log/incus"} {
			if err := a.packLogs(&p, dir); err != nil {
				return fmt.Errorf("packing %s: %w", dir, err)
			}
		}
		return errors.Join(p.tar.Close(), z.Close())
	}
}

func (a *Apps) packLogs(p *packer, dir string) error {
	root, err := os.OpenRoot(a.host.Files.Path(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close()
	p.root, p.prefix = root, strings.TrimPrefix(dir, "/")
	return p.tree(".", func(name string) bool {
		fi, err := root.Lstat(name)
		return err == nil && (fi.IsDir() || fi.Mode().IsRegular())
	})
}

// wait waits for a time, unless ctx ends before.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
