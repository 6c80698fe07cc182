// Package image builds IncusOS from the definitions in image/ with mkosi.
//
// The work is cut along what can be kept between builds:
//
//	Tools    a tree of Debian trixie with mkosi, QEMU, OVMF and swtpm, so that the
//	         age of the build host does not matter; keyed by its package list
//	sandbox  what mkosi needs to know of this host and these keys, written anew
//	Build    our own programs, then mkosi, whose caches live beside the tools
//
// Keys come from package keys; package media turns the result into an install
// medium and package vm runs it.
package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/incusos/incusos/internal/sys"
)

// A Builder builds images from one checkout.
type Builder struct {
	Exec   sys.Runner
	Source string   // root of the checkout
	Cache  string   // directory that outlives checkouts; may be absent
	Keys   string   // directory of the trust root, see package keys
	Output string   // directory for the result
	Mirror string   // Debian mirror; "" takes the one this host uses
	Arch   string   // as Go says it; "" is this machine's
	Dev    bool     // with a root shell; never for release
	With   []string // extension images that are not made unless asked for
	Root   []byte   // of the update repository that the image trusts; nil: of none
	Log    *Log     // progress and the output of the tools; nil: neither
}

// A Result names what a build made, all in the Builder's Output directory.
type Result struct {
	Version  string   // twelve digits, YYYYMMDDhhmm in UTC
	Disk     string   // whole disk, from which media are made
	UKI      string   // kernel, initrd and command line, signed
	Incus    string   // extension image of Incus
	Others   []string // further extension images, sorted
	Manifest string   // packages and versions in the base image, JSON
}

// versionPattern is what an image version looks like on the wire and in names.
var versionPattern = regexp.MustCompile(`^[0-9]{12}$`)

// Build builds the disk image and the extension images. Epoch is the time every
// file gets (SOURCE_DATE_EPOCH) and makes the version unless one is given.
func (b *Builder) Build(ctx context.Context, version string, epoch time.Time) (Result, error) {
	if version == "" {
		version = epoch.UTC().Format("200601021504")
	}
	if !versionPattern.MatchString(version) {
		return Result{}, fmt.Errorf("version %q does not have the form YYYYMMDDhhmm, such as 202611231200", version)
	}
	a, err := archOf(b.Arch)
	if err != nil {
		return Result{}, err
	}
	if err := b.checkWith(); err != nil {
		return Result{}, err
	}
	tools, err := b.Tools(ctx)
	if err != nil {
		return Result{}, err
	}
	if err := b.clear(); err != nil {
		return Result{}, err
	}
	work, err := os.MkdirTemp("", "incusos-image-")
	if err != nil {
		return Result{}, err
	}
	defer os.RemoveAll(work)
	if err := b.compile(ctx, a, work, version, epoch); err != nil {
		return Result{}, err
	}
	if err := b.trust(work, epoch); err != nil {
		return Result{}, err
	}
	if err := b.sandbox(work); err != nil {
		return Result{}, err
	}
	if err := b.mkosi(ctx, tools, work, a, version, epoch); err != nil {
		return Result{}, err
	}
	return b.result(version)
}

// optional are the extension images that are made on request: each is of use to few
// machines and costs every build a minute.
func optional() []string { return []string{"incus-ceph", "ovn"} }

func (b *Builder) checkWith() error {
	for _, name := range b.With {
		if !slices.Contains(optional(), name) {
			return fmt.Errorf("there is no extension image %q that is made on request; want %s", name, strings.Join(optional(), " or "))
		}
	}
	return nil
}

// clear removes what an earlier build left: partitions have their UUID in the
// name, so that those of another build would lie beside the new ones, and an image
// that this build does not make would be taken for one of its own.
func (b *Builder) clear() error {
	old, err := filepath.Glob(filepath.Join(b.Output, "IncusOS_*"))
	if err != nil {
		return err
	}
	for _, name := range optional() {
		old = append(old, filepath.Join(b.Output, name), filepath.Join(b.Output, name+".raw"), filepath.Join(b.Output, name+".manifest"))
	}
	for _, name := range append(old, filepath.Join(b.Output, "version")) {
		if err := os.RemoveAll(name); err != nil {
			return err
		}
	}
	return nil
}

// compile builds the daemon for the image, without anything of this host in it, and
// what mkosi runs of ours, which is for this host.
func (b *Builder) compile(ctx context.Context, a arch, work, version string, epoch time.Time) error {
	b.Log.Step("compiling incus-osd")
	dest := filepath.Join(work, "extra/usr/bin/incus-osd")
	if err := b.goBuild(ctx, "./cmd/incus-osd", dest, a.name); err != nil {
		return err
	}
	if err := b.goBuild(ctx, "./image/split", filepath.Join(work, "tools/split"), runtime.GOARCH); err != nil {
		return err
	}
	return os.Chtimes(dest, epoch, epoch)
}

// goBuild builds a program of the checkout for an architecture, as Go says it.
func (b *Builder) goBuild(ctx context.Context, program, dest, arch string) error {
	c := sys.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", dest, program)
	c.Dir = b.Source
	c.Env = []string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=" + arch}
	if err := b.run(ctx, c); err != nil {
		return fmt.Errorf("compiling %s: %w", program, err)
	}
	return nil
}

// rootFile is where the image has the root of the repository that it trusts (package
// daemon reads it).
const rootFile = "usr/lib/incus-os/update-root.json"

// trust puts the root of the update repository into the image.
func (b *Builder) trust(work string, epoch time.Time) error {
	if b.Root == nil {
		return nil
	}
	dest := filepath.Join(work, "extra", rootFile)
	if err := write(dest, b.Root); err != nil {
		return err
	}
	return os.Chtimes(dest, epoch, epoch)
}

// result checks that mkosi made what it was asked for.
func (b *Builder) result(version string) (Result, error) {
	base := filepath.Join(b.Output, "IncusOS_"+version)
	r := Result{
		Version:  version,
		Disk:     base + ".raw",
		UKI:      base + ".efi",
		Incus:    filepath.Join(b.Output, "incus.raw"),
		Manifest: filepath.Join(b.Output, "base.manifest"),
	}
	for _, name := range append([]string{"storage"}, optional()...) {
		file := filepath.Join(b.Output, name+".raw")
		if _, err := os.Stat(file); err == nil || name == "storage" || slices.Contains(b.With, name) {
			r.Others = append(r.Others, file)
		}
	}
	slices.Sort(r.Others)
	for _, name := range append([]string{r.Disk, r.UKI, r.Incus, r.Manifest}, r.Others...) {
		if _, err := os.Stat(name); err != nil {
			return Result{}, fmt.Errorf("mkosi ended well but did not make %s", name)
		}
	}
	return r, os.WriteFile(filepath.Join(b.Output, "version"), []byte(version+"\n"), 0o644) //nolint:gosec // not a secret
}

// Latest returns the result of the newest build in dir.
func Latest(dir string) (Result, error) {
	b, err := os.ReadFile(filepath.Join(dir, "version"))
	if errors.Is(err, os.ErrNotExist) {
		return Result{}, fmt.Errorf("there is no image in %s yet; build one with `make image`", dir)
	}
	if err != nil {
		return Result{}, err
	}
	if len(b) != 13 || !versionPattern.Match(b[:12]) {
		return Result{}, fmt.Errorf("%s holds %q, not a version; build again with `make image`", filepath.Join(dir, "version"), b)
	}
	return (&Builder{Output: dir}).result(string(b[:12]))
}
