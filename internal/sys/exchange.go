package sys

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Exchange gives each of two files or directories the name of the other, at
// once and durably: after a cut at any point both are there, under one name or
// the other.
func (d Dir) Exchange(a, b string) error {
	if err := d.check("rename", b); err != nil {
		return err
	}
	if err := unix.Renameat2(unix.AT_FDCWD, d.Path(a), unix.AT_FDCWD, d.Path(b), unix.RENAME_EXCHANGE); err != nil {
		return fmt.Errorf("exchanging %s and %s: %w", a, b, err)
	}
	return errors.Join(d.SyncDir(filepath.Dir(a)), d.SyncDir(filepath.Dir(b)))
}

// SyncTree flushes everything on the file system that holds name, which for many
// files is quicker than flushing each.
func (d Dir) SyncTree(name string) error {
	f, err := os.Open(d.Path(name))
	if err != nil {
		return err
	}
	if err := unix.Syncfs(int(f.Fd())); err != nil { //nolint:gosec // a descriptor
		return errors.Join(fmt.Errorf("flushing what holds %s: %w", name, err), f.Close())
	}
	return f.Close()
}
