package update

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/incusos/incusos/internal/fetch"
	"github.com/incusos/incusos/internal/repo"
	"github.com/incusos/incusos/internal/sets"
)

// A Wish is what a machine wants of the applications in releases.
type Wish struct {
	Installed []string    // names of what it has
	Pinned    []string    // of those, what stays as it is
	Runs      sets.System // what the version that runs has them at
}

// takes reports whether an application is to become a version. Nothing goes back
// by itself: what Incus keeps only moves forward.
func (w Wish) takes(name, version string) bool {
	return slices.Contains(w.Installed, name) && !slices.Contains(w.Pinned, name) &&
		version > w.Runs.Now[name] && version != w.Runs.Refused[name]
}

// set returns the set of a release of the system. What it does not have goes on with
// the image that runs.
func (w Wish) set(r repo.Release, architecture string) sets.Set {
	set := make(sets.Set)
	for _, name := range w.Installed {
		if version := w.Runs.Now[name]; version != "" {
			set[name] = version
		}
	}
	for _, name := range appsOf(r, architecture) {
		if w.takes(name, r.Version) || set[name] == "" && slices.Contains(w.Installed, name) {
			set[name] = r.Version
		}
	}
	return set
}

// next returns the newest applications in releases that the version which runs shall
// have, by the version of the release. Releases are the newest first.
func (w Wish) next(releases []repo.Release, architecture string) sets.Set {
	next := make(sets.Set)
	for _, r := range releases {
		for _, name := range appsOf(r, architecture) {
			if w.takes(name, r.Version) && next[name] == "" {
				next[name] = r.Version
			}
		}
	}
	return next
}

// appsOf returns the names of the applications in a release.
func appsOf(r repo.Release, architecture string) (names []string) {
	for _, f := range r.For(architecture) {
		if f.Kind == repo.KindApp {
			names = append(names, f.Component)
		}
	}
	return names
}

// Applications are what an Agent needs to update applications alone.
type Applications struct {
	Wish func() (Wish, error)
	// Coming writes down what is about to be stored for the version that runs: it
	// stays until something else is coming.
	Coming func(running string, next sets.Set) error
	// Adopt has the version that runs go on with images that are stored, or with
	// those it had if they do not work.
	Adopt func(ctx context.Context, next sets.Set) error
}

// applications brings the version that runs newer applications, if the repository
// has some for it.
func (a *Agent) applications(ctx context.Context, l look, from *fetch.Server, catalog *repo.Catalog, m repo.Machine) error {
	r, err := a.Records.Load()
	if err != nil || l.system || r.Phase == Trying { // what is tried must not change meanwhile
		return err
	}
	wish, err := a.Applications.Wish()
	if err != nil {
		return err
	}
	releases := catalog.Applications(m)
	next := wish.next(releases, m.Architecture)
	if len(next) == 0 {
		return nil
	}
	if !l.person && !slices.ContainsFunc(releases, l.settings.urgent) && Allowed(l.settings.Windows, time.Now()) > 0 {
		a.Say("Applications wait for a maintenance window: %s", listed(next))
		return nil
	}
	return a.watched(ctx, l, "update "+listed(next), func(ctx context.Context, meter Meter) error {
		return a.adopt(ctx, from, releases, m.Running, next, meter)
	})
}

// adopt stores images out of releases and has the version that runs go on with
// them.
func (a *Agent) adopt(ctx context.Context, from *fetch.Server, releases []repo.Release, running string, next sets.Set, meter Meter) error {
	if err := a.Applications.Coming(running, next); err != nil {
		return fmt.Errorf("writing down what is about to be stored: %w", err)
	}
	names := slices.Sorted(maps.Keys(next))
	a.Say("Downloading %s", listed(next))
	for _, name := range names {
		if err := a.fetchApplication(ctx, from, releases, name, next[name], meter); err != nil {
			return fmt.Errorf("application %s %s: %w", name, next[name], err)
		}
	}
	a.Say("Starting %s", listed(next))
	if err := meter.Phase("starting the applications"); err != nil {
		return err
	}
	if err := a.Applications.Adopt(ctx, next); err != nil {
		return err
	}
	a.Say("Version %s runs with %s", running, listed(next))
	return nil
}

// fetchApplication stores the image of an application out of the release of its
// version.
func (a *Agent) fetchApplication(ctx context.Context, from *fetch.Server, releases []repo.Release, name, version string, meter Meter) error {
	i := slices.IndexFunc(releases, func(r repo.Release) bool { return r.Version == version })
	c, err := a.Contents(from, releases[i], a.amounts(meter))
	if err != nil {
		return err
	}
	return metered{c, meter}.Application(ctx, name)
}

// listed names the images of a set.
func listed(set sets.Set) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(set)) {
		list = append(list, name+" "+set[name])
	}
	return strings.Join(list, ", ")
}
