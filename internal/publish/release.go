package publish

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/incusos/incusos/internal/repo"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/verity"
)

// Terms are what is said of a release beside its files.
type Terms struct {
	Channel   string
	Percent   int // of machines that may take it
	Severity  string
	Origin    string
	Changelog []byte // text for people
	Floor     string // the oldest version that may be installed from now on; "" for no change
}

// maxChangelog is the most bytes a changelog may have.
const maxChangelog = 1 << 20

// Publish stores the files of a build in the repository in dir, and adds the
// release to it.
func Publish(ctx context.Context, dir string, a *repo.Author, b Build, t Terms, now time.Time) error {
	if _, err := a.Release(b.Version); err == nil {
		return fmt.Errorf("release %s is in the repository already; build a new version", b.Version)
	}
	if len(t.Changelog) > maxChangelog {
		return fmt.Errorf("the changelog has %d bytes; want at most %d", len(t.Changelog), maxChangelog)
	}
	m := maker{ctx: ctx, out: sys.NewDir(dir), prefix: b.Version + "/" + b.Architecture + "/", arch: b.Architecture}
	r := repo.Release{
		Version: b.Version, Published: now.UTC().Truncate(time.Second), Origin: t.Origin, Severity: t.Severity,
		Channels: map[string]repo.Phase{t.Channel: {Percent: t.Percent}}, Floor: t.Floor,
	}
	var err error
	if r.Changelog, err = m.bytes(repo.File{Path: repo.ChangelogPath(b.Version), Kind: repo.KindChangelog, Component: "os"}, t.Changelog); err != nil {
		return err
	}
	if err := m.system(b); err != nil {
		return err
	}
	if err := m.measurements(b); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(b.Applications)) {
		if err := m.image(name+"/"+name+".raw", repo.KindApp, name, b.Applications[name]); err != nil {
			return err
		}
	}
	r.Files = m.files
	return a.Add(r)
}

// A maker makes the files of a release and stores them.
type maker struct {
	ctx    context.Context
	out    sys.Dir
	prefix string // of paths
	arch   string
	files  []repo.File
}

// system adds what a slot and the boot loader need, if the build has a system.
func (m *maker) system(b Build) error {
	if b.Usr == "" {
		return nil
	}
	if err := m.slot(b); err != nil {
		return fmt.Errorf("the slot of %s: %w", b.Version, err)
	}
	return m.image("os/kernel.efi", repo.KindUKI, "os", b.UKI)
}

// slot adds the file system of a slot, with the tree that the image brings. That
// the three parts belong together is checked, or no machine could use them.
func (m *maker) slot(b Build) error {
	root, err := rootHash(b.Signature)
	if err != nil {
		return err
	}
	f, err := os.Open(b.Tree)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	tree, err := verity.ReadTree(f, root, 1<<30)
	if err != nil {
		return fmt.Errorf("%q: %w", b.Tree, err)
	}
	data, err := os.Open(b.Usr)
	if err != nil {
		return err
	}
	defer data.Close() //nolint:errcheck // only read
	again, err := verity.Build(m.ctx, tree.Superblock, data)
	if err != nil {
		return err
	}
	if again.Root != root {
		return fmt.Errorf("%q has the root hash %v; want %v, as %q says", b.Usr, again.Root, root, b.Signature)
	}
	sig, err := os.ReadFile(b.Signature)
	if err != nil {
		return err
	}
	if _, err := m.add("os/usr.signature", repo.File{Kind: repo.KindSignature, Component: "os"}, bytes.NewReader(sig), int64(len(sig))); err != nil {
		return err
	}
	return m.withTree("os/usr.raw", repo.File{Kind: repo.KindUsr, Component: "os"}, data, tree.DataSize(), tree)
}

// image adds a file with a tree that is made for it. Its salt comes from the file,
// so that the same file always makes the same tree.
func (m *maker) image(path, kind, component, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Size() == 0 {
		return fmt.Errorf("%q is empty, or no file", name)
	}
	sum, err := hash(f, info.Size())
	if err != nil {
		return err
	}
	tree, err := verity.Build(m.ctx, verity.Superblock{Blocks: verity.BlocksOf(info.Size()), Salt: sum[:]}, f)
	if err != nil {
		return fmt.Errorf("%q: %w", name, err)
	}
	return m.withTree(path, repo.File{Kind: kind, Component: component}, f, info.Size(), tree)
}

// withTree adds a file, its tree and its compact index.
func (m *maker) withTree(path string, f repo.File, data io.ReaderAt, size int64, tree *verity.Tree) error {
	compact := tree.Index().Compact()
	index, err := m.add(path+".index", repo.File{Kind: repo.KindIndex, Component: f.Component}, bytes.NewReader(compact), int64(len(compact)))
	if err != nil {
		return err
	}
	whole, err := m.add(path+".tree", repo.File{Kind: repo.KindTree, Component: f.Component}, bytes.NewReader(tree.Bytes()), int64(len(tree.Bytes())))
	if err != nil {
		return err
	}
	f.RootHash, f.Index, f.Tree = tree.Root.String(), index.Path, whole.Path
	_, err = m.add(path, f, data, size)
	return err
}

// bytes stores a file that belongs to no architecture and is not listed.
func (m *maker) bytes(f repo.File, b []byte) (repo.File, error) {
	f.Length, f.SHA256 = int64(len(b)), sha256.Sum256(b)
	return f, m.store(f, bytes.NewReader(b))
}

// add stores a file and lists it.
func (m *maker) add(path string, f repo.File, data io.ReaderAt, size int64) (repo.File, error) {
	sum, err := hash(data, size)
	if err != nil {
		return repo.File{}, fmt.Errorf("%s: %w", path, err)
	}
	f.Path, f.Architecture, f.Length, f.SHA256 = m.prefix+path, m.arch, size, sum
	if err := m.store(f, data); err != nil {
		return repo.File{}, fmt.Errorf("%s: %w", path, err)
	}
	m.files = append(m.files, f)
	return f, nil
}

func hash(data io.ReaderAt, size int64) (sum [32]byte, err error) {
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(data, 0, size)); err != nil {
		return sum, err
	}
	return [32]byte(h.Sum(nil)), nil
}

// store writes a file under its hash, unless it is there.
func (m *maker) store(f repo.File, data io.ReaderAt) error {
	return put(m.out, f, func(w io.Writer) error {
		if err := m.ctx.Err(); err != nil {
			return err
		}
		n, err := io.Copy(w, io.NewSectionReader(data, 0, f.Length))
		if err == nil && n != f.Length {
			return io.ErrUnexpectedEOF
		}
		return err
	})
}

// put lets fill write a file that appears when it is whole. What is there already
// has its hash in its name and was whole when it got it.
func put(out sys.Dir, f repo.File, fill func(io.Writer) error) error {
	if info, err := out.Stat(f.Name()); err == nil && info.Size() == f.Length {
		return nil
	}
	w, err := out.Create(f.Name(), 0o644)
	if err != nil {
		return err
	}
	if err := fill(w); err != nil {
		return errors.Join(err, w.Abort())
	}
	return w.Commit()
}
