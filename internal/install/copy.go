package install

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/incusos/incusos/internal/sys"
)

// chunk is how much is copied between two reports of progress.
const chunk = 4 << 20

// copySlot copies the slot of the source to slot A. What was written is not
// read back: that would come from the page cache. dm-verity checks every block
// against the signed root hash when it is read, whenever that is.
func (i *installer) copySlot(ctx context.Context) error {
	for _, c := range []struct {
		from   part
		number int
	}{{i.plan.source.sig, sigNumber}, {i.plan.source.verity, verityNumber}, {i.plan.source.usr, usrNumber}} {
		if err := i.copyPartition(ctx, c.from, i.node(c.number)); err != nil {
			return fmt.Errorf("copying %s: %w", c.from.Name, err)
		}
	}
	return nil
}

// copyPartition copies what is used of a partition, and makes the rest of what
// its hash tree may cover zeros: repart makes the tree over the whole partition,
// where behind the file system are zeros.
func (i *installer) copyPartition(ctx context.Context, from part, to string) error {
	in, err := i.host.Files.Open(from.Node)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := i.host.Files.OpenDevice(to)
	if err != nil {
		return err
	}
	defer out.Close()
	used, err := usedBytes(in, from.Size)
	if err != nil {
		return err
	}
	for done := uint64(0); done < used; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(chunk, used-done)
		if _, err := io.CopyN(out, in, int64(n)); err != nil { //nolint:gosec // at most a chunk
			return err
		}
		done += n
		i.Progress("copying "+from.Name, done, used)
	}
	if err := clearRange(out, used, from.Size-used); err != nil {
		return fmt.Errorf("clearing what is behind the file system: %w", err)
	}
	return out.Sync()
}

// usedBytes returns how much of a partition of size bytes is used: for an erofs
// what its superblock says (kernel, fs/erofs/erofs_fs.h: 1024 bytes in, the
// magic, at 12 the binary logarithm of the block size, at 36 the number of
// blocks), for all else everything.
func usedBytes(r io.ReaderAt, size uint64) (uint64, error) {
	const erofsMagic = 0xe0f5e1e2
	super := make([]byte, 40)
	_, err := r.ReadAt(super, 1024)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	if binary.LittleEndian.Uint32(super) != erofsMagic {
		return size, nil
	}
	bits, blocks := super[12], binary.LittleEndian.Uint32(super[36:])
	if bits < 9 || bits > 16 || uint64(blocks)<<bits > size || blocks == 0 {
		return 0, fmt.Errorf("its file system claims %d blocks of 2^%d bytes; the partition has %d bytes", blocks, bits, size)
	}
	return uint64(blocks) << bits, nil
}

// clearRange makes n bytes from offset on zeros, by the device itself if it can
// (fallocate(2): on a block device both modes write zeros; only the second
// works on any).
func clearRange(f *os.File, offset, n uint64) error {
	if n == 0 {
		return nil
	}
	var err error
	for _, mode := range []uint32{unix.FALLOC_FL_PUNCH_HOLE, unix.FALLOC_FL_ZERO_RANGE} {
		err = unix.Fallocate(int(f.Fd()), mode|unix.FALLOC_FL_KEEP_SIZE, int64(offset), int64(n)) //nolint:gosec // inside a partition
		if err == nil {
			return nil
		}
	}
	return err
}

// Where the two ESPs are mounted while one is copied to the other.
const (
	fromDir = "/run/incus-os/install/source"
	toDir   = "/run/incus-os/install/target"
)

// copyESP makes the file system of the ESP and copies the source's files: boot
// loader, UKI, and the keys for enrolment.
func (i *installer) copyESP(ctx context.Context) (err error) {
	i.Progress("copying the boot loader", 0, 0)
	device := i.node(espNumber)
	if _, err := i.host.Exec.Run(ctx, sys.Command("mkfs.vfat", "-F", "32", "-n", "ESP", device)); err != nil {
		return fmt.Errorf("formatting the ESP: %w", err)
	}
	for _, m := range []struct{ device, dir, mode string }{{i.plan.source.esp.Node, fromDir, "ro"}, {device, toDir, "rw"}} {
		if err := i.host.Files.MkdirAll(m.dir, 0o700); err != nil {
			return err
		}
		if err := i.mount(m.device, m.dir, m.mode); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, i.host.Mounts.Unmount(m.dir)) }()
	}
	return i.copyTree(ctx)
}

func (i *installer) mount(device, dir, mode string) error {
	var options []string
	if mode == "ro" {
		options = []string{"ro"}
	}
	return i.host.Mounts.Mount(device, dir, "vfat", append(options, "nodev", "nosuid", "noexec")...)
}

// copyTree copies a tree of directories and regular files between the two
// mounts. Both are roots that nothing in them leads out of.
func (i *installer) copyTree(ctx context.Context) error {
	from, err := os.OpenRoot(i.host.Files.Path(fromDir))
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenRoot(i.host.Files.Path(toDir))
	if err != nil {
		return err
	}
	defer to.Close()
	err = fs.WalkDir(from.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		switch {
		case errors.Join(err, ctx.Err()) != nil:
			return errors.Join(err, ctx.Err())
		case name == "." || name == randomSeed:
			return nil
		case e.IsDir():
			return to.Mkdir(name, 0o755)
		case !e.Type().IsRegular():
			return fmt.Errorf("%s is no regular file; want an install medium as it was made", name)
		}
		return copyFile(from, to, name)
	})
	if err != nil {
		return fmt.Errorf("copying the ESP: %w", err)
	}
	if i.Mark != "" {
		if err := i.host.Files.WriteFile(toDir+"/"+i.Mark, nil, 0o644); err != nil {
			return fmt.Errorf("marking the machine: %w", err)
		}
	}
	return i.host.Files.SyncDir(toDir)
}

// randomSeed is what the boot loader credits entropy from. Every machine makes
// its own: one that came on a medium would be the same on all of them.
const randomSeed = "loader/random-seed"

func copyFile(from, to *os.Root, name string) error {
	in, err := from.Open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := to.OpenFile(uncounted(name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		return errors.Join(err, out.Close())
	}
	return errors.Join(out.Sync(), out.Close())
}

// uncounted returns the name of a UKI without its boot counter, "+LEFT" or
// "+LEFT-DONE" (systemd.io/AUTOMATIC_BOOT_ASSESSMENT): there is nothing to fall
// back to on a new disk.
func uncounted(name string) string {
	if path.Dir(name) != "EFI/Linux" {
		return name
	}
	stem, isUKI := strings.CutSuffix(name, ".efi")
	if !isUKI {
		return name
	}
	return regexp.MustCompile(`\+[0-9]+(-[0-9]+)?$`).ReplaceAllString(stem, "") + ".efi"
}

// copySeed writes the seed of the new disk.
func (i *installer) copySeed(ctx context.Context) error {
	out, err := i.host.Files.OpenDevice(i.node(seedNumber))
	if err != nil {
		return err
	}
	defer out.Close()
	// A seed of an earlier install must not show through a shorter one.
	if err := clearRange(out, 0, seedSize); err != nil {
		return fmt.Errorf("clearing the seed partition: %w", err)
	}
	w := &bounded{ctx: ctx, w: out, progress: i.Progress}
	if err := i.WriteSeed(w); err != nil {
		return fmt.Errorf("writing the seed: %w", err)
	}
	return out.Sync()
}

// bounded refuses to write more than the seed partition holds.
type bounded struct {
	ctx      context.Context //nolint:containedctx // io.Writer has no room for one
	w        io.Writer
	done     uint64
	progress func(phase string, done, total uint64)
}

func (b *bounded) Write(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	if b.done+uint64(len(p)) > seedSize {
		return 0, fmt.Errorf("it does not fit; want at most %d MiB of documents and extension images", seedSize>>20)
	}
	n, err := b.w.Write(p)
	b.done += uint64(n) //nolint:gosec // never negative
	b.progress("copying the seed", b.done, 0)
	return n, err
}
