package update_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/incusos/incusos/internal/fetch"
	"github.com/incusos/incusos/internal/repo"
	"github.com/incusos/incusos/internal/sets"
	"github.com/incusos/incusos/internal/update"
)

// agent returns one for a bench whose machine runs a version.
func (b *bench) agent(running string, s *update.Settings, healthy error) (*update.Agent, *int) {
	restarts := new(int)
	return &update.Agent{
		Records:  update.File{Files: b.Host.Files},
		Settings: func() (update.Settings, error) { return *s, nil },
		Built:    func() ([]byte, error) { return b.root, nil },
		Machine: func() (repo.Machine, error) {
			return repo.Machine{ID: "a machine", Architecture: "x86_64", Running: running}, nil
		},
		Clock:    func() repo.Clock { return repo.Clock{Now: time.Now(), Synchronized: true} },
		Updater:  func() (*update.Updater, error) { u, _ := b.updater(running); return u, nil },
		Contents: b.contents(running),
		Repairs: func(from *fetch.Server, r repo.Release, amount func(done, total uint64)) (update.Repair, error) {
			_, c := b.updater(running)
			c.Server, c.Release, c.Amount = from, r, amount
			var err error
			if c.Wish.Runs, err = sets.Open(b.Host.Files).Of(r.Version); err != nil {
				return update.Repair{}, err
			}
			if r.Version == running {
				c.Disk.Other, c.Disk.Running = c.Disk.Running, c.Disk.Other
			}
			return update.Repair{Fetched: c}, nil
		},
		Applications: update.Applications{
			Wish: func() (update.Wish, error) {
				runs, err := sets.Open(b.Host.Files).Of(running)
				return update.Wish{Installed: []string{"incus"}, Runs: runs}, err
			},
			Coming: func(running string, next sets.Set) error { return sets.Open(b.Host.Files).Coming(running, next) },
			Adopt:  func(context.Context, sets.Set) error { return errors.New("nobody asked for other applications") },
		},
		Healthy: func(context.Context) error { return healthy },
		Restart: func(context.Context) error { *restarts++; return nil },
	}, restarts
}

// contents returns releases to be written to the machine while a version runs.
func (b *bench) contents(running string) func(*fetch.Server, repo.Release, func(done, total uint64)) (update.Contents, error) {
	return func(from *fetch.Server, r repo.Release, amount func(done, total uint64)) (update.Contents, error) {
		_, c := b.updater(running)
		c.Server, c.Release, c.Amount = from, r, amount
		return c, nil
	}
}

// The whole life of an update, from a check to the next check.
func TestAgentUpdates(t *testing.T) {
	b := newBench(t)
	s := &update.Settings{Channel: "stable", Server: b.address, AutoReboot: true}
	old, restarts := b.agent(from, s, nil)
	if err := old.Check(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if st := old.Status(); !st.NeedsReboot || *restarts != 1 || st.Text != "Version "+to+" is staged; restart the machine" || st.LastCheck.IsZero() {
		t.Errorf("after the check: %+v, %d restarts", st, *restarts)
	}
	next, restarts := b.agent(to, s, nil)
	if err := next.Settle(t.Context()); err != nil || next.Status().Text != "Version "+to+" was found good" {
		t.Errorf("after the restart: %+v (%v)", next.Status(), err)
	}
	if err := next.Check(t.Context(), nil); err != nil || next.Status().Text != "Version "+to+" is the newest in channel \"stable\"" || *restarts != 0 {
		t.Errorf("after the next check: %+v (%v)", next.Status(), err)
	}
}

// A version that is not good restarts until the old one is back, which says why and
// does not try it again.
func TestAgentGoesBack(t *testing.T) {
	b := newBench(t)
	s := &update.Settings{Channel: "stable", Server: b.address}
	old, restarts := b.agent(from, s, nil)
	if err := old.Check(t.Context(), nil); err != nil || *restarts != 0 {
		t.Fatal(err, *restarts)
	}
	next, restarts := b.agent(to, s, errors.New("the pool local is not imported"))
	if err := next.Settle(t.Context()); err != nil || *restarts != 1 {
		t.Errorf("%d restarts (%v)", *restarts, err)
	}
	b.exhaust()
	if err := old.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := old.Status().Text; got != "The last update did not work, and version "+from+" is back: the pool local is not imported" {
		t.Errorf("it says %q", got)
	}
	if err := old.Check(t.Context(), nil); err != nil || old.Status().Text != "Version "+to+" was tried and did not work; it is tried again when asked for" {
		t.Errorf("after the next check: %+v (%v)", old.Status(), err)
	}
}

// exhaust uses up the tries of the new version, as the boot loader does.
func (b *bench) exhaust() {
	b.t.Helper()
	const mounted = "/run/esp"
	if err := b.Host.Files.MkdirAll(mounted, 0o700); err != nil {
		b.t.Fatal(err)
	}
	if err := b.Host.Mounts.Mount(b.part(1).Path, mounted, "vfat"); err != nil {
		b.t.Fatal(err)
	}
	dir := b.Host.Files.Path(mounted + "/EFI/Linux")
	if err := os.Rename(filepath.Join(dir, "IncusOS_"+to+"+3.efi"), filepath.Join(dir, "IncusOS_"+to+"+0-3.efi")); err != nil {
		b.t.Fatal(err)
	}
	if err := b.Host.Mounts.Unmount(mounted); err != nil {
		b.t.Fatal(err)
	}
}

func TestAgentSaysWhatIsWrong(t *testing.T) {
	b := newBench(t)
	other := newBench(t)
	tests := map[string]struct {
		change func(*update.Agent, *update.Settings)
		want   string
	}{
		"no repository": {func(_ *update.Agent, s *update.Settings) { s.Server = "" }, "no repository is set"},
		"no root": {func(a *update.Agent, _ *update.Settings) {
			a.Built = func() ([]byte, error) { return nil, os.ErrNotExist }
		}, "this image came without the root of a repository"},
		"another repository": {func(_ *update.Agent, s *update.Settings) { s.Root = other.root }, "metadata/timestamp.json cannot be accepted"},
		"a broken disk": {func(a *update.Agent, _ *update.Settings) {
			a.Updater = func() (*update.Updater, error) { return nil, errors.New("no disk") }
		}, "no disk"},
		"no address": {func(_ *update.Agent, s *update.Settings) { s.Server = "ftp://x" }, "is no address of a repository"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := &update.Settings{Channel: "stable", Server: b.address}
			a, _ := b.agent(from, s, nil)
			tt.change(a, s)
			err := a.Check(t.Context(), nil)
			if err == nil || !strings.Contains(err.Error(), tt.want) || a.Status().Text != "Failed to update: "+err.Error() {
				t.Errorf("it said %v, want %q; status %q", err, tt.want, a.Status().Text)
			}
		})
	}
}
