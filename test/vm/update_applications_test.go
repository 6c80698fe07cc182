//go:build vm

package vm_test

import (
	"strings"
	"testing"
	"time"

	"github.com/incusos/incusos/api"
)

// TestUpdateOfApplications gives a machine a newer Incus under the system that it
// runs: without a restart, with its container running on, after a start too, and
// with the one before to go back to.
func TestUpdateOfApplications(t *testing.T) {
	s := newSite(t)
	newContainer(t, s.r, s.c)
	old := belongs(t, s.r, s.c, s.version)
	version := s.u.applications(t, "incus")
	s.check(t)
	reached(t, s.r, s.c, "Incus to be "+version, func(u api.SystemUpdateState) bool {
		return strings.Contains(u.Status, "runs with incus "+version)
	})
	s.runsOn(t, version)
	s.restart(t)
	s.up(t)
	if s.version != old.Version {
		t.Fatalf("version %s is up, want %s", s.version, old.Version)
	}
	s.runsOn(t, version)
	if err := s.c.Post(within(t, s.r, time.Minute), "/os/1.0/applications/incus/:switch-version", api.ApplicationSwitch{}, nil); err != nil {
		t.Fatal(err)
	}
	ctx := within(t, s.r, 2*time.Minute)
	err := retry(ctx, func() error {
		var app api.Application
		if err := s.c.Get(ctx, "/os/1.0/applications/incus", &app); err != nil || app.State.Version == old.Version {
			return err
		}
		return errStill(version)
	})
	if err != nil {
		t.Fatal(err)
	}
	s.runsOn(t, old.Version)
}

// An errStill is a version of Incus that runs on.
type errStill string

func (e errStill) Error() string { return "Incus still runs from the image of " + string(e) }

// runsOn expects Incus to be of a version, and the container to run.
func (s *site) runsOn(t *testing.T, version string) {
	t.Helper()
	trusted(t, s.r, s.c)
	belongs(t, s.r, s.c, version)
	ctx := within(t, s.r, 2*time.Minute)
	if err := retry(ctx, func() error { return running(ctx, s.c) }); err != nil {
		t.Fatalf("the container does not run: %v", err)
	}
	works(t, ctx, s.c)
}
