package update

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"

	"github.com/incusos/incusos/internal/repo"
	"github.com/incusos/incusos/internal/sets"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/verity"
)

// maxSignature is the size of a slot's signature partition, in bytes.
const maxSignature = 16 << 10

// Fetched is a release that is written to this machine's disk as it is fetched.
type Fetched struct {
	Download
	Files        sys.Dir
	Disk         Disk
	ESP          ESP    // has kernels of which a new one is made
	Architecture string // as repositories call it
	Wish         Wish   // which applications to take from the release
}

// Version implements Contents.
func (f Fetched) Version() string { return f.Release.Version }

// Applications implements Contents.
func (f Fetched) Applications() sets.Set { return f.Wish.set(f.Release, f.Architecture) }

// one returns the only file of a kind for a component.
func (f Fetched) one(kind, component string) (repo.File, error) {
	var found []repo.File
	for _, file := range f.Release.For(f.Architecture) {
		if file.Kind == kind && file.Component == component {
			found = append(found, file)
		}
	}
	if len(found) != 1 {
		return repo.File{}, fmt.Errorf("release %s has %d files %q of %s for %s; want one", f.Release.Version, len(found), kind, component, f.Architecture)
	}
	return found[0], nil
}

// Slot implements Contents. The tree is not fetched but made from what was written,
// which proves that both belong to the root hash.
func (f Fetched) Slot(ctx context.Context) (verity.Digest, error) {
	usr, err := f.one(repo.KindUsr, "os")
	if err != nil {
		return verity.Digest{}, err
	}
	signature, err := f.one(repo.KindSignature, "os")
	if err != nil {
		return verity.Digest{}, err
	}
	if room := f.Disk.Other.Usr.Size; uint64(usr.Length) > room { //nolint:gosec // not negative
		return verity.Digest{}, fmt.Errorf("%s has %d bytes and the slot has room for %d", usr.Path, usr.Length, room)
	}
	sig, err := f.Server.File(ctx, signature, maxSignature)
	if err != nil {
		return verity.Digest{}, err
	}
	if !bytes.Contains(sig, []byte(usr.RootHash)) {
		return verity.Digest{}, fmt.Errorf("%s does not sign the root hash %s", signature.Path, usr.RootHash)
	}
	tree, err := f.device(f.Disk.Other.Usr, func(out *os.File) (*verity.Tree, error) {
		old, done, err := f.sources(f.Disk.Running.Usr.Path)
		defer done()
		if err != nil {
			return nil, err
		}
		return f.Make(ctx, usr, out, old)
	})
	if err != nil {
		return verity.Digest{}, err
	}
	for part, b := range map[sys.Partition][]byte{f.Disk.Other.Tree: tree.Bytes(), f.Disk.Other.Signature: sig} {
		if uint64(len(b)) > part.Size {
			return verity.Digest{}, fmt.Errorf("partition %s has %d bytes; want %d", part.Path, part.Size, len(b))
		}
		if _, err := f.device(part, func(out *os.File) (*verity.Tree, error) {
			_, err := out.WriteAt(b, 0)
			return nil, err
		}); err != nil {
			return verity.Digest{}, err
		}
	}
	return tree.Root, nil
}

// device lets do write to a partition, and flushes it.
func (f Fetched) device(p sys.Partition, do func(*os.File) (*verity.Tree, error)) (*verity.Tree, error) {
	out, err := f.Files.OpenDevice(p.Path)
	if err != nil {
		return nil, err
	}
	tree, err := do(out)
	if err == nil {
		err = flush(out)
	}
	return tree, errors.Join(err, out.Close())
}

// sources opens files in which blocks of an image may be. Those that are not there
// are left out.
func (f Fetched) sources(names ...string) (list []verity.Source, done func(), err error) {
	var open []*os.File
	done = func() {
		for _, file := range open {
			file.Close() //nolint:errcheck // only read
		}
	}
	list = append(list, verity.Zeros())
	for _, name := range names {
		file, err := f.Files.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, done, err
		}
		open = append(open, file)
		size, err := file.Seek(0, 2) // Stat knows no sizes of devices
		if err != nil {
			return nil, done, err
		}
		list = append(list, verity.Source{ReaderAt: file, Size: size})
	}
	return list, done, nil
}

// Application implements Contents. The image gets its name when it is whole; until
// then it is kept beside it, to be gone on with. One that a version before has as well
// is stored once.
func (f Fetched) Application(ctx context.Context, name string) error {
	image, err := f.one(repo.KindApp, name)
	if err != nil {
		return err
	}
	final := sets.Path(name, f.Release.Version)
	if f.Files.Exists(final) {
		return nil
	}
	if err := f.Files.MkdirAll(path.Dir(final), 0o700); err != nil {
		return err
	}
	if shared, err := f.share(image, final); shared || err != nil {
		return err
	}
	part := final + sets.Part
	out, err := os.OpenFile(f.Files.Path(part), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	err = f.fillApplication(ctx, image, out)
	if err = errors.Join(err, out.Close()); err != nil {
		return err
	}
	return f.Files.Rename(part, final)
}

// share gives an image that is stored under another version, whole, its name under this
// one too. Nobody writes to an image that has its name, so that it stays what both
// versions want until each of them drops it.
func (f Fetched) share(image repo.File, final string) (shared bool, err error) {
	for _, name := range f.stored(image.Component) {
		if sum, err := f.sum(name, image.Length); err == nil && sum == image.SHA256 {
			return true, errors.Join(f.Files.Link(name, final), f.Files.RemoveAll(final+sets.Part))
		}
	}
	return false, nil
}

// sum is the SHA-256 of a file that has so many bytes.
func (f Fetched) sum(name string, length int64) (sum [32]byte, err error) {
	file, err := f.Files.Open(name)
	if err != nil {
		return sum, err
	}
	defer file.Close() //nolint:errcheck // only read
	info, err := file.Stat()
	if err == nil && info.Size() != length {
		err = fmt.Errorf("%s has %d bytes; want %d", name, info.Size(), length)
	}
	if err != nil {
		return sum, err
	}
	h := sha256.New()
	if _, err := io.Copy(h, file); err != nil {
		return sum, err
	}
	return [32]byte(h.Sum(nil)), nil
}

func (f Fetched) fillApplication(ctx context.Context, image repo.File, out *os.File) error {
	if err := out.Truncate(image.Length); err != nil {
		return err
	}
	old, done, err := f.sources(f.stored(image.Component)...)
	defer done()
	if err != nil {
		return err
	}
	_, err = f.Make(ctx, image, out, old)
	return err
}

// stored returns the images of an application that the machine has, the newest
// first.
func (f Fetched) stored(name string) (files []string) {
	versions, err := f.Files.ReadDir(sets.Store)
	if err != nil {
		return nil
	}
	for _, v := range slices.Backward(versions) {
		if file := sets.Path(name, v.Name()); f.Files.Exists(file) {
			files = append(files, file)
		}
	}
	return files
}
