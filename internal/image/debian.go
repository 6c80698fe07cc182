package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Debian returns a directory with a plain Debian trixie and some packages, making
// it if it is not there. Incus in it is that of the image, from backports. Name
// says what the tree is for; with its packages it makes the tree's own name.
func (b *Builder) Debian(ctx context.Context, name string, packages ...string) (string, error) {
	sum := sha256.Sum256([]byte(toolsKey(packages) + incusPin))
	dir := filepath.Join(b.Cache, fmt.Sprintf("%s-%x", name, sum[:6]))
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	tools, err := b.Tools(ctx)
	if err != nil {
		return "", err
	}
	unlock, err := b.lock(name)
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(dir); err == nil {
		return dir, nil // somebody else made it meanwhile
	}
	b.Log.Step("making a Debian in %s (once; a minute)", dir)
	if err := b.makeDebian(ctx, tools, dir, packages); err != nil {
		return "", fmt.Errorf("making a tree with %s: %w", strings.Join(packages, " "), err)
	}
	return dir, nil
}

// lock waits until nobody else makes trees of that name in the cache.
func (b *Builder) lock(name string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(b.Cache, "."+name+".lock"), os.O_CREATE|os.O_RDWR, 0o644) //nolint:gosec // holds nothing
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil { //nolint:gosec // a descriptor
		return nil, errors.Join(fmt.Errorf("locking %s: %w", f.Name(), err), f.Close())
	}
	return func() { _ = f.Close() }, nil // which unlocks
}

// makeDebian makes the tree beside its place, so that there is never half of it.
func (b *Builder) makeDebian(ctx context.Context, tools, dir string, packages []string) (err error) {
	a, err := archOf(b.Arch)
	if err != nil {
		return err
	}
	m, err := b.mirror()
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp(b.Cache, ".debian-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	definitions, sandbox := filepath.Join(work, "definitions"), filepath.Join(work, "sandbox")
	if err := errors.Join(os.Mkdir(definitions, 0o755), m.writeApt(filepath.Join(sandbox, "etc"))); err != nil { //nolint:gosec // not secret
		return err
	}
	args := []string{
		"--directory=" + definitions, // none: all is said here
		"--tools-tree=" + tools,
		"--distribution=debian", "--release=trixie", "--architecture=" + a.mkosi,
		"--mirror=" + m.main,
		"--sandbox-tree=" + sandbox,
		"--package-cache-dir=" + filepath.Join(b.Cache, "packages"),
		"--output-directory=" + work, "--output=tree", "--format=directory",
		"--with-recommends=no", "--with-docs=no", "--bootable=no",
		"--package=" + strings.Join(packages, ","),
	}
	if err := b.runMkosi(ctx, tools, args); err != nil {
		return err
	}
	return os.Rename(filepath.Join(work, "tree"), dir)
}
