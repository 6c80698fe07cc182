package apps

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/task"
)

const (
	dataset = zfsPool + "/incus"    // where the pool that Incus is set up with keeps instances
	goneDir = "/var/lib/incus.gone" // what is being removed
)

// setUpPhase is the phase after which nothing is wiped any more.
const setUpPhase = "setting Incus up"

// stopIncus stops instances in good order, then the socket that would start Incus
// again, then Incus.
func (a *Apps) stopIncus(ctx context.Context) error {
	for _, unit := range []string{"incus-startup.service", "incus.socket", incusUnit} {
		if err := a.host.Units.Stop(ctx, unit); err != nil {
			return err
		}
	}
	return a.clear(incusDir)
}

// reset makes Incus as it was first set up. What it kept is lost, but for pools
// other than its first one.
func (a *Apps) reset(ctx context.Context, _ order, p *task.Progress) error {
	if p.Resumed() != setUpPhase {
		if err := a.wipeOut(ctx, p); err != nil {
			return err
		}
	}
	if err := p.Phase(setUpPhase); err != nil {
		return err
	}
	return a.apply(ctx)
}

// wipeOut stops Incus and removes what it keeps. The seed is read first: without
// it, nobody could log in afterwards.
func (a *Apps) wipeOut(ctx context.Context, p *task.Progress) error {
	if err := a.readSeed(); err != nil {
		return err
	}
	if err := p.Phase("stopping instances and Incus"); err != nil {
		return err
	}
	if err := wait(ctx, a.options.Pause); err != nil {
		return err
	}
	if err := a.stopIncus(ctx); err != nil {
		return errors.Join(err, a.apply(context.WithoutCancel(ctx)))
	}
	if err := p.Phase("removing what Incus keeps"); err != nil {
		return err
	}
	if err := a.destroyDataset(ctx); err != nil {
		return errors.Join(err, a.apply(context.WithoutCancel(ctx)))
	}
	err := a.update(func(s *Saved) {
		s.Answered, s.Initialized, s.Preseeded, s.Version = false, false, nil, ""
		delete(s.Populated, incusName) // directories are made again
		delete(s.Restored, incusName)
	})
	if err != nil {
		return err
	}
	return a.removeAll()
}

// removeAll removes the directories of Incus. The one that matters goes at once:
// half of it would be worse than all or nothing.
func (a *Apps) removeAll() error {
	if err := a.remove(goneDir); err != nil {
		return err
	}
	err := a.host.Files.Rename(incusDir, goneDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing %s: %w", incusDir, err)
	}
	for _, dir := range []string{goneDir, "/var/log/incus", "/var/cache/incus"} {
		if err := a.remove(dir); err != nil {
			return err
		}
	}
	return nil
}

// readSeed has Incus set up with what the seed says now.
func (a *Apps) readSeed() error {
	if a.options.Seed == nil {
		return nil
	}
	_, seed, err := a.options.Seed()
	if err != nil {
		return fmt.Errorf("reading the seed that Incus would be set up with; nothing was reset: %w", err)
	}
	if seed == nil {
		seed = &api.SeedIncus{ApplyDefaults: true}
	}
	if _, err := parse(*seed); err != nil {
		return fmt.Errorf("the seed that Incus would be set up with; nothing was reset: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seed = seed
	return nil
}

// destroyDataset destroys the instances, images and volumes of the first pool.
func (a *Apps) destroyDataset(ctx context.Context) error {
	if !a.host.Files.Exists(zfsShown) {
		return nil // the pool is not imported, or there is none
	}
	_, err := a.host.Exec.Run(ctx, sys.Command("zfs", "destroy", "-r", "-f", dataset))
	if exit, ok := errors.AsType[*sys.ExecError](err); ok && strings.Contains(exit.Stderr, "does not exist") {
		return nil
	}
	if err != nil {
		return fmt.Errorf("destroying %s: %w", dataset, err)
	}
	return nil
}
