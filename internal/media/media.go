// Package media makes install media: an image with a seed in it.
//
// A built image has an empty partition labelled seed-data. What the installer
// and the first boot are told, and the applications they install without a
// network, lie in it as a ustar archive that starts at its first byte:
//
//	install.yaml, network.yaml, …            the seed, one file per section
//	applications/<name>_<version>.raw        extension images
//
// Package image builds the image; package seed reads the archive on the machine.
// The same input gives the same archive to the byte. Everything that can be
// refused is refused before the first byte is written.
package media

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/incusos/incusos/internal/sys"
)

// SeedLabel is the label of the partition that holds the archive.
const SeedLabel = "seed-data"

// Contents is what goes into the seed partition.
type Contents struct {
	// Seed is a directory with one file <section>.yaml, .yml or .json for each
	// section to seed, and nothing else. "" is no seed.
	Seed         string
	Applications []Application
}

// An Application is an extension image to put on the medium.
type Application struct {
	Name    string // such as "incus"
	Version string // such as "202611231200"
	File    string // the extension image
}

// Options say what medium to build.
type Options struct {
	Image  string // a disk image with a partition labelled seed-data; stays as it is
	Output string // the medium; replaced if it is there
	Contents
}

// Build makes a medium. The output appears under its name when it is complete
// and on disk; it can be read by its owner only, since seeds hold secrets. Holes
// in the image are holes in the medium.
func Build(ctx context.Context, o Options) error {
	image, err := os.Open(o.Image)
	if err != nil {
		return err
	}
	defer image.Close() //nolint:errcheck // only read
	part, err := seedPartition(image)
	if err != nil {
		return err
	}
	entries, err := o.entries()
	if err != nil {
		return err
	}
	if err := errors.Join(checkFit(entries, part), checkOutput(o.Output, image)); err != nil {
		return err
	}
	out, err := sys.NewDir(filepath.Dir(o.Output)).Create(filepath.Base(o.Output), 0o600)
	if err != nil {
		return fmt.Errorf("making the medium: %w", err)
	}
	if err := fill(ctx, out.File, image, entries, part); err != nil {
		return errors.Join(err, out.Abort())
	}
	if err := out.Commit(); err != nil {
		return fmt.Errorf("putting the medium in place: %w", err)
	}
	return nil
}

// checkOutput refuses to put a file where a device, a directory or the image is.
func checkOutput(name string, image *os.File) error {
	have, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !have.Mode().IsRegular() {
		return fmt.Errorf("%q is no regular file; make the medium in one and copy it to the device", name)
	}
	source, err := image.Stat()
	if err != nil {
		return err
	}
	if os.SameFile(have, source) {
		return fmt.Errorf("%q is the image itself; name another file for the medium", name)
	}
	return nil
}

func fill(ctx context.Context, out, image *os.File, entries []entry, part partition) error {
	if err := copySparse(ctx, out, image); err != nil {
		return fmt.Errorf("copying the image: %w", err)
	}
	return writeArchive(ctx, out, part, entries)
}

// WriteSeed replaces the seed of an existing medium, which may be a file or the
// device itself. With no applications in c, those on the medium are kept.
// Nothing else of the old archive stays behind. If it is cut short, the medium
// has no seed and no applications.
func WriteSeed(ctx context.Context, medium string, c Contents) error {
	f, err := os.OpenFile(medium, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(reseed(ctx, f, c), f.Close())
}

func reseed(ctx context.Context, f *os.File, c Contents) error {
	part, err := seedPartition(f)
	if err != nil {
		return err
	}
	entries, err := c.entries()
	if err != nil {
		return err
	}
	if len(c.Applications) == 0 {
		kept, spool, err := keepApplications(ctx, f, part)
		if err != nil {
			return fmt.Errorf("keeping the applications on the medium: %w", err)
		}
		defer spool.Close() //nolint:errcheck // has no name any more
		entries = append(entries, kept...)
	}
	if err := checkFit(entries, part); err != nil {
		return err
	}
	return writeArchive(ctx, f, part, entries)
}

// seedPartition returns where on disk the archive goes.
func seedPartition(disk *os.File) (partition, error) {
	part, err := findPartition(disk, SeedLabel)
	if err != nil {
		return partition{}, fmt.Errorf("%q: %w", disk.Name(), err)
	}
	size, err := disk.Seek(0, io.SeekEnd) // Stat knows no sizes of devices
	if err != nil {
		return partition{}, err
	}
	if end := part.start + part.size; end > size {
		return partition{}, fmt.Errorf("%q ends at byte %d, within partition %q; want at least %d bytes", disk.Name(), size, SeedLabel, end)
	}
	return part, nil
}
