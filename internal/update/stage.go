package update

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/incusos/incusos/internal/sets"
)

// ErrTrying reports that the version that runs is not found good yet. Until it is,
// the slot of the one before must not be touched.
var ErrTrying = errors.New("the version that runs has not been found good yet")

// ErrFailed reports a version that was tried before and did not work.
var ErrFailed = errors.New("this version was tried and did not work")

// Stage puts a release in place, to be tried with the next restart. It can be
// called again after any failure or cut. The order of its steps:
//
//  1. The phase is written down.
//  2. Entries of versions that do not run are removed from the boot loader. From
//     here on the running version is the only one, since the slot of the other is
//     about to be overwritten, and a part of two versions must never be started.
//  3. Its set is written down: which applications belong to it. The new version
//     looks there when it starts. From here on nobody removes them, and those of the
//     version that was in the slot go.
//  4. The slot is marked empty, for tools that look at the disk.
//  5. The slot is written, flushed, and verified as a whole against the root hash.
//  6. It gets the name of the version and the identity that the kernel finds it by.
//  7. Applications are stored. The running version does not look at them.
//  8. That it is staged is written down.
//  9. The disk is bound to what the new version will measure, so that it unlocks by
//     itself; the binding of the running version stays.
//  10. The entry appears in the boot loader. Without it there is no update, whatever
//     else is there.
func (u *Updater) Stage(ctx context.Context, c Contents) error {
	r, err := u.Records.Load()
	if err != nil {
		return err
	}
	if err := u.mayStage(r, c.Version()); err != nil {
		return err
	}
	if done, err := u.isStaged(r, c.Version()); done || err != nil {
		return err
	}
	r = r.clone()
	r.Phase, r.Version, r.Reason = Fetching, c.Version(), ""
	if err := u.Records.Save(r); err != nil {
		return fmt.Errorf("writing down what is about to be done: %w", err)
	}
	if err := u.removeOthers(); err != nil {
		return err
	}
	set := c.Applications()
	if err := u.Sets.Stage(u.Running, c.Version(), set); err != nil {
		return fmt.Errorf("writing down the applications of version %s: %w", c.Version(), err)
	}
	if err := u.fill(ctx, c, set); err != nil {
		return err
	}
	r.Phase = Staged
	if err := u.Records.Save(r); err != nil {
		return fmt.Errorf("writing down that version %s is staged: %w", c.Version(), err)
	}
	uki, err := c.Kernel(ctx)
	if err != nil {
		return fmt.Errorf("the kernel of version %s: %w", c.Version(), err)
	}
	if u.Bind != nil {
		if err := u.Bind(ctx, uki); err != nil {
			return fmt.Errorf("version %s would not unlock the disk: %w", c.Version(), err)
		}
	}
	if err := u.Loader.Add(c.Version(), tries, uki); err != nil {
		return fmt.Errorf("adding version %s to the boot loader: %w", c.Version(), err)
	}
	return nil
}

// mayStage reports why a version must not be staged now.
func (u *Updater) mayStage(r Record, version string) error {
	if r.Phase == Trying {
		return ErrTrying
	}
	running, ok, err := u.entry(u.Running)
	switch {
	case err != nil:
		return err
	case !ok:
		return fmt.Errorf("the boot loader has no entry for version %s, which runs; nothing is changed, since nothing could be gone back to", u.Running)
	case running.Counted:
		return ErrTrying
	}
	if f, ok := r.Failed[version]; ok {
		return fmt.Errorf("version %s: %w: %s", version, ErrFailed, f.Reason)
	}
	if version == u.Running {
		return fmt.Errorf("version %s is the one that runs", version)
	}
	return nil
}

// isStaged reports whether a version only waits for a restart.
func (u *Updater) isStaged(r Record, version string) (bool, error) {
	if r.Phase != Staged || r.Version != version {
		return false, nil
	}
	_, ok, err := u.entry(version)
	return ok, err
}

// removeOthers removes the entries of versions that do not run.
func (u *Updater) removeOthers() error {
	entries, err := u.Loader.Entries()
	if err != nil {
		return fmt.Errorf("reading the entries of the boot loader: %w", err)
	}
	for _, e := range entries {
		if e.Version == u.Running {
			continue
		}
		if err := u.Loader.Remove(e); err != nil {
			return fmt.Errorf("removing version %s from the boot loader: %w", e.Version, err)
		}
	}
	return nil
}

// fill writes the slot, and the applications that the machine does not run already.
func (u *Updater) fill(ctx context.Context, c Contents, set sets.Set) error {
	if err := u.Slots.Clear(ctx); err != nil {
		return fmt.Errorf("marking the slot empty: %w", err)
	}
	root, err := c.Slot(ctx)
	if err != nil {
		return fmt.Errorf("the file system of version %s: %w", c.Version(), err)
	}
	if err := u.Slots.Name(ctx, c.Version(), root); err != nil {
		return fmt.Errorf("naming the slot of version %s: %w", c.Version(), err)
	}
	for _, name := range slices.Sorted(maps.Keys(set)) {
		if set[name] != c.Version() {
			continue
		}
		if err := c.Application(ctx, name); err != nil {
			return fmt.Errorf("application %s of version %s: %w", name, c.Version(), err)
		}
	}
	return nil
}
