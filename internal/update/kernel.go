package update

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"

	"github.com/incusos/incusos/internal/repo"
	"github.com/incusos/incusos/internal/verity"
)

// maxKernel is the most bytes a kernel with its initrd may have: three have to fit
// on the ESP.
const maxKernel = 150 << 20

// sectionAlignment is what sections of a kernel image start at a multiple of, in bytes
// (FileAlignment of PE images, as systemd-stub has it).
const sectionAlignment = 512

// begunKernel has what was there of a kernel image when fetching it was cut off, which
// after a power cut is nothing: usually little is missing, and it is made in memory.
const begunKernel = "/var/lib/incus-os/update-kernel.part"

// Kernel implements Contents. Its command line names the root hash of the file
// system, without which it would start nothing.
func (f Fetched) Kernel(ctx context.Context) ([]byte, error) {
	usr, uki, err := f.system()
	if err != nil {
		return nil, err
	}
	b, err := f.kernel(ctx, uki)
	if err != nil {
		return nil, err
	}
	if !bytes.Contains(b, []byte("usrhash="+usr.RootHash)) {
		return nil, fmt.Errorf("%s starts another file system than %s", uki.Path, usr.Path)
	}
	return b, nil
}

// system returns the file system and the kernel image of a release.
func (f Fetched) system() (usr, uki repo.File, err error) {
	if usr, err = f.one(repo.KindUsr, "os"); err != nil {
		return usr, uki, err
	}
	uki, err = f.one(repo.KindUKI, "os")
	return usr, uki, err
}

// kernel makes a kernel image of what those on the boot partition have in common with
// it, in memory, and is sure of the whole of it.
func (f Fetched) kernel(ctx context.Context, uki repo.File) ([]byte, error) {
	if uki.Length > maxKernel {
		return nil, fmt.Errorf("%s has %d bytes; want at most %d", uki.Path, uki.Length, maxKernel)
	}
	fd, err := unix.MemfdCreate("kernel", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("making room for %s: %w", uki.Path, err)
	}
	out := os.NewFile(uintptr(fd), "kernel") //nolint:gosec // a descriptor
	defer out.Close()                        //nolint:errcheck // it is memory
	if err := out.Truncate(uki.Length); err != nil {
		return nil, err
	}
	old, err := f.ESP.kernels()
	if err != nil { // what is there is a help, no more
		slog.WarnContext(ctx, "Cannot read the kernels that are there; fetching the new one whole", "err", err)
	}
	sources := []verity.Source{verity.Zeros()}
	if begun, err := f.Files.ReadFile(begunKernel); err == nil {
		sources = append(sources, verity.Source{ReaderAt: bytes.NewReader(begun), Size: int64(len(begun))})
	}
	for _, b := range old {
		sources = append(sources, Shifted(b)...)
	}
	_, err = f.Make(ctx, uki, out, sources)
	b, readErr := io.ReadAll(io.NewSectionReader(out, 0, uki.Length))
	switch {
	case readErr != nil:
		return nil, errors.Join(err, readErr)
	case err != nil:
		return nil, errors.Join(err, f.Files.WriteFile(begunKernel, b, 0o600))
	case sha256.Sum256(b) != uki.SHA256:
		return nil, fmt.Errorf("%s: it is not what the repository signed", uki.Path)
	}
	if err := f.Files.Remove(begunKernel); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return b, nil
}

// Shifted returns a kernel image as sources: where its initrd has another size, what is
// behind it lies at another place, by some multiple of the alignment of sections.
func Shifted(image []byte) (sources []verity.Source) {
	for at := 0; at < min(verity.BlockSize, len(image)); at += sectionAlignment {
		sources = append(sources, verity.Source{ReaderAt: bytes.NewReader(image[at:]), Size: int64(len(image) - at)})
	}
	return sources
}
