package update

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/incusos/incusos/internal/fetch"
	"github.com/incusos/incusos/internal/repo"
	"github.com/incusos/incusos/internal/sets"
	"github.com/incusos/incusos/internal/verity"
)

// ErrOther reports a release that is another build than the one on the machine.
var ErrOther = errors.New("the repository has another build of this version than the machine")

// A Repair brings one version that a machine has back to what was released: its
// slot, the images of its applications, and its kernel.
//
// What is right is left alone, and what is written is checked against the root hash
// that the kernel of this version was built with, so that it is safe for the version
// that runs too: a block of its slot is either right, or nobody could read it.
type Repair struct {
	Fetched // its disk has the slot to repair as the other one

	// Bind is an Updater's. A kernel that is damaged measures something else, so that a
	// start meanwhile has taken away what the whole one unlocked the disk by.
	Bind func(ctx context.Context, uki []byte) error
}

// Run repairs, and returns what it found damaged, in words.
func (r Repair) Run(ctx context.Context, m Meter) (found []string, err error) {
	usr, uki, err := r.system()
	if err != nil {
		return nil, err
	}
	has, err := r.ESP.Read(r.Version())
	if err != nil {
		return nil, err
	}
	whole := sha256.Sum256(has) == uki.SHA256
	if !bytes.Contains(has, []byte("usrhash="+usr.RootHash)) {
		return nil, fmt.Errorf("version %s: %w; nothing was changed", r.Version(), ErrOther)
	}
	if err := m.Phase("checking the slot of version " + r.Version()); err != nil {
		return nil, err
	}
	if found, err = r.slot(ctx, usr); err != nil {
		return found, err
	}
	more, err := r.applications(ctx, m)
	if found = append(found, more...); err != nil {
		return found, err
	}
	if !whole {
		if has, err = r.Kernel(ctx); err != nil {
			return found, err
		}
	}
	if r.Bind != nil {
		if err := r.Bind(ctx, has); err != nil {
			return found, fmt.Errorf("version %s would not unlock the disk: %w", r.Version(), err)
		}
	}
	if whole {
		return found, nil
	}
	return append(found, "the kernel"), r.ESP.Replace(r.Version(), has)
}

// slot repairs the file system, its tree and the signature of that.
func (r Repair) slot(ctx context.Context, usr repo.File) (found []string, err error) {
	parts := r.Disk.Other
	whole, err := r.holds(ctx, usr, parts.Usr.Path, parts.Tree.Path)
	if err != nil {
		return nil, err
	}
	signed, err := r.signed(ctx, parts.Signature.Path)
	if whole && signed || err != nil {
		return nil, err
	}
	_, err = r.Slot(ctx)
	return []string{"the file system"}, err
}

// holds reports whether a partition has the image and another its tree.
func (r Repair) holds(ctx context.Context, usr repo.File, image, hashes string) (bool, error) {
	root, err := verity.ParseDigest(usr.RootHash)
	if err != nil {
		return false, err
	}
	treeFile, ok := r.Release.File(usr.Tree)
	if !ok {
		return false, fmt.Errorf("%s has no tree in the repository", usr.Path)
	}
	files := make([]*os.File, 0, 2)
	defer func() {
		for _, f := range files {
			f.Close() //nolint:errcheck // only read
		}
	}()
	for _, name := range []string{image, hashes} {
		f, err := r.Files.Open(name)
		if err != nil {
			return false, err
		}
		files = append(files, f)
	}
	tree, err := verity.ReadTree(io.LimitReader(files[1], treeFile.Length), root, maxTree)
	if err != nil {
		return false, nil //nolint:nilerr // that is what it is there to find out
	}
	got, err := verity.Build(ctx, tree.Index().Superblock, io.NewSectionReader(files[0], 0, usr.Length))
	return err == nil && got.Root == root, ctx.Err()
}

// signed reports whether a partition has the signature of the root hash.
func (r Repair) signed(ctx context.Context, partition string) (bool, error) {
	signature, err := r.one(repo.KindSignature, "os")
	if err != nil {
		return false, err
	}
	want, err := r.Server.File(ctx, signature, maxSignature)
	if err != nil {
		return false, err
	}
	f, err := r.Files.Open(partition)
	if err != nil {
		return false, err
	}
	defer f.Close()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(f, got); err != nil {
		return false, nil //nolint:nilerr // what cannot be read is written
	}
	return bytes.Equal(got, want), nil
}

// applications repairs the images that belong to the version.
func (r Repair) applications(ctx context.Context, m Meter) (found []string, err error) {
	for name, version := range r.Applications() {
		if version != r.Version() {
			continue // another release has it
		}
		image, err := r.one(repo.KindApp, name)
		if err != nil {
			return found, err
		}
		if err := m.Phase("checking application " + name); err != nil {
			return found, err
		}
		final := sets.Path(name, version)
		if sum, err := r.sum(final, image.Length); err == nil && sum == image.SHA256 {
			continue
		}
		found = append(found, "application "+name)
		if err := r.rewrite(ctx, image, final); err != nil {
			return found, err
		}
	}
	return found, nil
}

// rewrite makes an image beside the one that is there, and has it take its place:
// what is merged from the old one goes on until the next start.
func (r Repair) rewrite(ctx context.Context, image repo.File, final string) error {
	if err := r.Files.MkdirAll(path.Dir(final), 0o700); err != nil {
		return err
	}
	part := final + sets.Part
	out, err := os.OpenFile(r.Files.Path(part), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(r.fillApplication(ctx, image, out), out.Close()); err != nil {
		return err
	}
	return r.Files.Rename(part, final)
}

// Repair looks for damage in what the machine has of the version that runs and of
// the one before, and mends it from the repository. Meter may be nil.
func (a *Agent) Repair(ctx context.Context, meter Meter) error {
	done, err := a.turn.try()
	if err != nil {
		return err
	}
	defer done()
	if meter == nil {
		meter = silent{}
	}
	a.Say("Looking for damage")
	text, err := a.repair(ctx, meter)
	if err != nil {
		text = "Failed to repair: " + err.Error()
	}
	a.note(func(s *Status) { s.Text, s.Done, s.Total = text, 0, 0 })
	return err
}

func (a *Agent) repair(ctx context.Context, meter Meter) (string, error) {
	s, err := a.Settings()
	if err != nil {
		return "", err
	}
	if s.Server == "" {
		return "", errors.New("no repository is set; name one in the configuration of the provider")
	}
	catalog, m, from, err := a.open(ctx, s, s.Server)
	if err != nil {
		return "", err
	}
	u, err := a.Updater()
	if err != nil {
		return "", err
	}
	entries, err := u.Loader.Entries()
	if err != nil {
		return "", err
	}
	text := "Found no damage"
	for _, e := range entries {
		release, ok := catalog.Release(e.Version)
		if !ok && e.Version == m.Running {
			return "", fmt.Errorf("version %s is not in the repository any more; update to a newer one", m.Running)
		}
		if !ok || e.Counted {
			continue // staged ones were verified, and old ones cannot be fetched any more
		}
		found, err := a.repairOne(ctx, from, release, meter)
		if err != nil {
			return "", err
		}
		if len(found) > 0 {
			text = fmt.Sprintf("Mended of version %s: %s", e.Version, strings.Join(found, ", "))
		}
	}
	return text, nil
}

func (a *Agent) repairOne(ctx context.Context, from *fetch.Server, release repo.Release, meter Meter) ([]string, error) {
	r, err := a.Repairs(from, release, a.amounts(meter))
	if err != nil {
		return nil, err
	}
	return r.Run(ctx, meter)
}
