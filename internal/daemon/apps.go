package daemon

import (
	"context"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/apps"
	"github.com/incusos/incusos/internal/change"
	"github.com/incusos/incusos/internal/console"
	"github.com/incusos/incusos/internal/rest"
	"github.com/incusos/incusos/internal/service"
	"github.com/incusos/incusos/internal/sets"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/task"
	"github.com/incusos/incusos/internal/update"
)

// newApps returns the applications of a machine. First reads the seed again, for
// images and for a factory reset. Services say what they need.
func newApps(m sys.Host, doc document[apps.Saved], belongs *sets.Sets, seed First, services *service.Services, first func() (First, error), screen *console.Console, gate *change.Gate, wake chan struct{}) *apps.Apps {
	return apps.New(m, doc.saved, apps.Options{
		Wanted: seed.Applications, Also: services.Applications(seed.Services), Users: services.Users, Source: seed.Images, Incus: seed.Incus,
		Progress: func(name string, done, total uint64) { screen.Progress("installing "+name, done, total) },
		Sets:     belongs,
		Seed: func() (apps.Source, *api.SeedIncus, error) {
			again, err := first()
			return again.Images, again.Incus, err
		},
		Gate:    gate,
		Changed: func() { poke(wake) },
	})
}

// installed is what updates have to do with applications.
type installed struct {
	doc  document[apps.Saved]
	apps *apps.Apps
	sets *sets.Sets
}

// wish returns what a version of the system that runs wants of releases.
func (i installed) wish(running string) (update.Wish, error) {
	if i.doc.err != nil {
		return update.Wish{}, i.doc.err
	}
	system, err := i.sets.Of(running)
	return update.Wish{Installed: i.doc.get().Installed, Pinned: i.apps.Pinned(), Runs: system}, err
}

// appKinds are the tasks of applications; none if nobody knows what is wanted of
// them.
func appKinds(doc document[apps.Saved], a *apps.Apps) []task.Kind {
	if doc.err != nil {
		return nil
	}
	return a.Kinds()
}

// desk answers for applications over the API.
type desk struct {
	*apps.Desk
	look func(context.Context, api.UpdateCheck) error // for updates
}

// CheckUpdate looks for updates of everything: what is newer of one application is so in
// a release, whose images belong together.
func (d desk) CheckUpdate(ctx context.Context, name string) error {
	if err := d.Installed(name); err != nil {
		return err
	}
	return d.look(ctx, api.UpdateCheck{})
}

func (d desk) Debug(_ context.Context, name, action string) (rest.Stream, error) {
	write, err := d.Logs(name, action)
	return rest.Stream{MediaType: "application/octet-stream", Write: write}, err
}

// Backup holds everything whether or not it is complete: of what Incus keeps,
// nothing could be fetched again for sure.
func (d desk) Backup(ctx context.Context, name string, _ bool) (rest.Stream, error) {
	write, err := d.Archive(ctx, name)
	return rest.Stream{MediaType: "application/gzip", Write: write}, err
}

var _ rest.Applications = desk{}

// newTasks returns the tasks of a machine, and an area that tells what of the past
// could not be read.
func newTasks(m sys.Host, screen *console.Console, kinds []task.Kind) (*task.Manager, Area) {
	tasks, err := task.Open(m.Files, func(t api.Task) { showTask(screen, t) }, kinds...)
	return tasks, tasksArea{err}
}

// tasksArea is degraded when tasks of an earlier start could not be read.
type tasksArea struct{ err error }

func (tasksArea) Name() string                      { return "tasks" }
func (t tasksArea) Reconcile(context.Context) error { return t.err }

// showTask tells the console how a task is getting on.
func showTask(screen *console.Console, t api.Task) {
	switch {
	case t.Ended != nil && t.Error != "":
		screen.Say("%s: %s: %s", t.Description, t.Status, t.Error)
	case t.Ended != nil:
		screen.Say("%s: %s", t.Description, t.Status)
	case t.Done == 0 && t.Total == 0:
		screen.Say("%s: %s", t.Description, t.Phase)
	default:
		screen.Progress(t.Description+": "+t.Phase, t.Done, t.Total)
	}
}

// closeTime is how long tasks may take to stop with the daemon, which systemd
// gives a minute.
const closeTime = 30 * time.Second

// closeTasks stops tasks. Those that may be resumed are, at the next start.
func (d *Daemon) closeTasks() error {
	if d.Tasks == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	return d.Tasks.Close(ctx)
}
