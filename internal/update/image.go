package update

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/incusos/incusos/internal/fetch"
	"github.com/incusos/incusos/internal/repo"
	"github.com/incusos/incusos/internal/verity"
)

// A Download makes images of a release out of what the machine has and what the
// server has.
type Download struct {
	Server  *fetch.Server
	Release repo.Release
	Tally   *fetch.Tally
	Amount  func(done, total uint64) // is told how many bytes of an image were fetched; nil: nobody is
}

// Most bytes of a compact index and of a tree: those of an image of 16 GiB.
const (
	maxIndex = 32 << 20
	maxTree  = 144 << 20
)

// Make makes out, which is open for reading and writing and has room, the image f.
// Blocks that are in it already, from before or from an attempt that was cut short,
// are left alone; those in old are copied; the rest is fetched. It returns the tree
// of what is there then, which has the root hash that the repository signed.
func (d Download) Make(ctx context.Context, f repo.File, out *os.File, old []verity.Source) (*verity.Tree, error) {
	root, err := verity.ParseDigest(f.RootHash)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Path, err)
	}
	index, err := d.index(ctx, f)
	if err != nil {
		return nil, err
	}
	tree, err := d.make(ctx, f, index, out, old)
	if err != nil {
		return nil, err
	}
	if tree.Root == root {
		return tree, nil
	}
	// Two blocks that an index takes for the same, or a disk that did not keep
	// what was written. The whole tree tells them apart.
	whole, err := d.tree(ctx, f, root)
	if err != nil {
		return nil, err
	}
	if tree, err = d.make(ctx, f, whole.Index(), out, old); err != nil {
		return nil, err
	}
	if tree.Root != root {
		return nil, fmt.Errorf("%s has the root hash %v after it was written; want %v: the disk does not keep what is written to it", f.Path, tree.Root, root)
	}
	return tree, nil
}

// make writes the image that index describes and reads it back.
func (d Download) make(ctx context.Context, f repo.File, index *verity.Index, out *os.File, old []verity.Source) (*verity.Tree, error) {
	if index.Blocks != verity.BlocksOf(f.Length) {
		return nil, fmt.Errorf("the index of %s is for %d blocks; it has %d", f.Path, index.Blocks, verity.BlocksOf(f.Length))
	}
	target := verity.Target{ReaderAt: out, WriterAt: out, Size: f.Length}
	plan, err := verity.MakePlan(ctx, index, target, old)
	if err != nil {
		return nil, err
	}
	if err := plan.Copy(ctx, index, target, old); err != nil {
		return nil, err
	}
	stop := d.report(plan.Missing, f.Length)
	err = d.Server.Blocks(ctx, f, index, target, plan.Missing, d.Tally)
	stop()
	if err != nil {
		return nil, err
	}
	if err := flush(out); err != nil {
		return nil, err
	}
	return verity.Build(ctx, index.Superblock, io.NewSectionReader(out, 0, f.Length))
}

// reportEvery is how often it is said how much was fetched.
const reportEvery = 500 * time.Millisecond

// report says how much was fetched of what an image with so many bytes lacks, until
// stop is called.
func (d Download) report(missing []verity.Range, length int64) (stop func()) {
	var total uint64
	for _, r := range missing {
		total += uint64(min((r.First+r.Blocks)*verity.BlockSize, length) - r.First*verity.BlockSize) //nolint:gosec // not negative
	}
	if d.Amount == nil || total == 0 {
		return func() {}
	}
	began := d.Tally.Bytes.Load()
	say := func() {
		d.Amount(min(uint64(d.Tally.Bytes.Load()-began), total), total) //nolint:gosec // it only grows
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(reportEvery)
		defer tick.Stop()
		for {
			say()
			select {
			case <-tick.C:
			case <-done:
				say()
				return
			}
		}
	}()
	return func() { close(done); <-ended }
}

// flush brings what was written to the disk, and lets the kernel forget it, so that
// it is read from there next.
func flush(f *os.File) error {
	if err := f.Sync(); err != nil {
		return err
	}
	err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) //nolint:gosec // a descriptor
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	return nil
}

// index fetches the compact index of a file.
func (d Download) index(ctx context.Context, f repo.File) (*verity.Index, error) {
	file, ok := d.Release.File(f.Index)
	if !ok {
		return nil, fmt.Errorf("%s has no index in the repository", f.Path)
	}
	b, err := d.Server.File(ctx, file, maxIndex)
	if err != nil {
		return nil, err
	}
	d.Tally.Bytes.Add(int64(len(b)))
	d.Tally.Requests.Add(1)
	return verity.ParseIndex(b)
}

// tree fetches the whole tree of a file.
func (d Download) tree(ctx context.Context, f repo.File, root verity.Digest) (*verity.Tree, error) {
	file, ok := d.Release.File(f.Tree)
	if !ok {
		return nil, fmt.Errorf("%s has no tree in the repository", f.Path)
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(d.Server.Stream(ctx, file, w)) }()
	t, err := verity.ReadTree(r, root, maxTree)
	r.CloseWithError(errors.New("enough was read"))
	d.Tally.Bytes.Add(file.Length)
	d.Tally.Requests.Add(1)
	return t, err
}
