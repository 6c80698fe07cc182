package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/incusos/incusos/internal/sys"
)

// mkosiVersion is pinned: the definitions in image/ are written for it, and its
// successors read them differently. Debian's revision follows after a dash.
const mkosiVersion = "25.3"

// packages are what building and running an image takes. mkosi's own
// dependencies bring systemd's tools, erofs-utils, mtools and the rest.
func packages(a arch) []string {
	return append([]string{
		"ca-certificates", "debian-archive-keyring", "mkosi", "python3-virt-firmware",
		"qemu-utils", "swtpm", "swtpm-tools", "xz-utils", "busybox-static", "fdisk",
	}, a.qemu...)
}

// ToolsDir returns where the tools tree for the Builder's architecture is kept,
// which changes with the list of what is in it.
func (b *Builder) ToolsDir() (string, error) {
	a, err := archOf(b.Arch)
	if err != nil {
		return "", err
	}
	return filepath.Join(b.Cache, "tools-"+toolsKey(packages(a))), nil
}

// toolsKey tells tools trees apart by what is in them.
func toolsKey(packages []string) string {
	sum := sha256.Sum256([]byte("trixie " + mkosiVersion + " " + strings.Join(packages, " ")))
	return fmt.Sprintf("%x", sum[:6])
}

// Tools returns the tools tree, making it if it is not there: about 700 MB.
func (b *Builder) Tools(ctx context.Context) (string, error) {
	dir, err := b.ToolsDir()
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	mirror, err := b.mirror()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(b.Cache, 0o755); err != nil { //nolint:gosec // holds nothing secret
		return "", err
	}
	tmp, err := os.MkdirTemp(b.Cache, ".tools-")
	if err != nil {
		return "", err
	}
	b.Log.Step("making the tools tree in %s (once; a minute)", dir)
	if err := b.makeTools(ctx, tmp, mirror); err != nil {
		return "", errors.Join(fmt.Errorf("making the tools tree: %w", err), os.RemoveAll(tmp))
	}
	return dir, os.Rename(tmp, dir)
}

func (b *Builder) makeTools(ctx context.Context, root string, m mirror) error {
	if err := os.Chmod(root, 0o755); err != nil { //nolint:gosec // a root directory
		return err
	}
	a, err := archOf(b.Arch)
	if err != nil {
		return err
	}
	if err := b.run(ctx, sys.Command("debootstrap", "--variant=minbase",
		"--include=ca-certificates,debian-archive-keyring", "trixie", root, m.main)); err != nil {
		return err
	}
	if err := m.writeSources(filepath.Join(root, "etc/apt/sources.list.d/debian.sources"), "trixie trixie-updates"); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(root, "etc/apt/sources.list")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := b.chroot(ctx, root, "apt-get", "-q", "update"); err != nil {
		return err
	}
	install := append([]string{"apt-get", "install", "-q", "-y", "--no-install-recommends"}, packages(a)...)
	if err := b.chroot(ctx, root, install...); err != nil {
		return err
	}
	if err := b.checkMkosi(ctx, root); err != nil {
		return err
	}
	return b.chroot(ctx, root, "apt-get", "clean")
}

// checkMkosi refuses another mkosi than the one the definitions are for.
func (b *Builder) checkMkosi(ctx context.Context, root string) error {
	out, err := b.Exec.Run(ctx, sys.Command("chroot", root, "dpkg-query", "--show", "--showformat=${Version}", "mkosi"))
	if err != nil {
		return err
	}
	if v := string(out); v != mkosiVersion && !strings.HasPrefix(v, mkosiVersion+"-") {
		return fmt.Errorf("the mirror has mkosi %s, and image/ is written for %s; adapt image/ and mkosiVersion together", v, mkosiVersion)
	}
	return nil
}

func (b *Builder) chroot(ctx context.Context, root string, args ...string) error {
	c := sys.Command("chroot", append([]string{root}, args...)...)
	c.Env = []string{"DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8"}
	return b.run(ctx, c)
}

// run runs a program whose output belongs into the log.
func (b *Builder) run(ctx context.Context, c sys.Cmd) error {
	c.Stdout, c.Stderr = b.Log, b.Log
	defer b.Log.Follow()()
	_, err := b.Exec.Run(ctx, c)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w; install what the build needs with `make deps`", err)
	}
	if exit, ok := errors.AsType[*sys.ExecError](err); ok && b.Log != nil && ctx.Err() == nil {
		b.Log.Failed()
		return fmt.Errorf("%s ended with status %d; its last lines are above, all of them in %s", exit.Name, exit.Code, b.Log)
	}
	return err
}
