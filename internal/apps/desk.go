package apps

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sets"
	"github.com/incusos/incusos/internal/task"
)

// A Desk takes requests about applications. What cannot be is refused at once,
// what takes its time goes on as a task.
type Desk struct {
	apps  *Apps
	tasks *task.Manager
	err   error // why the document cannot be read; nil if it can

	receiving sync.Mutex // held while a backup is unpacked
}

// NewDesk returns the desk of a machine whose document says err.
func NewDesk(a *Apps, tasks *task.Manager, err error) *Desk {
	return &Desk{apps: a, tasks: tasks, err: err}
}

// soon is how long a request waits for its task, so that what is quick is done
// when it is answered.
const soon = 10 * time.Second

// Names implements rest.Family.
func (d *Desk) Names(context.Context) ([]string, error) {
	if d.err != nil {
		return nil, d.err
	}
	all, err := d.apps.Documents()
	return slices.Sorted(maps.Keys(all)), err
}

// Get implements rest.Family.
func (d *Desk) Get(_ context.Context, name string) (any, error) { return d.document(name) }

func (d *Desk) document(name string) (api.Application, error) {
	if d.err != nil {
		return api.Application{}, d.err
	}
	all, err := d.apps.Documents()
	if err != nil {
		return api.Application{}, err
	}
	doc, ok := all[name]
	if !ok {
		return doc, api.Errorf(api.NotFound, "application %q: not found; /1.0/applications lists what is installed", name)
	}
	return doc, nil
}

// Config implements rest.Family.
func (d *Desk) Config(name string) (any, error) {
	doc, err := d.document(name)
	return doc.Config, err
}

// New implements rest.Family.
func (d *Desk) New(name string) (any, error) {
	_, err := d.document(name)
	return new(api.ApplicationConfig), err
}

// Plan implements rest.Family.
func (d *Desk) Plan(ctx context.Context, name string, config any) (api.Plan, error) {
	c, err := d.decoded(name, config)
	if err != nil {
		return api.Plan{}, err
	}
	return d.apps.manager(name).Plan(ctx, *c)
}

// Try implements rest.Family.
func (d *Desk) Try(ctx context.Context, name string, config any, within time.Duration) error {
	c, err := d.decoded(name, config)
	if err != nil {
		return err
	}
	return d.apps.manager(name).Try(ctx, *c, within)
}

func (d *Desk) decoded(name string, config any) (*api.ApplicationConfig, error) {
	if _, err := d.document(name); err != nil {
		return nil, err
	}
	c, ok := config.(*api.ApplicationConfig)
	if !ok {
		return nil, fmt.Errorf("a configuration of an application is no %T", config)
	}
	return c, configTarget{d.apps, name}.check(*c)
}

// Confirm implements rest.Family.
func (d *Desk) Confirm(ctx context.Context, name string) error {
	if _, err := d.document(name); err != nil {
		return err
	}
	return d.apps.manager(name).Confirm(ctx)
}

// Add has an application installed.
func (d *Desk) Add(_ context.Context, name string) error {
	if d.err != nil {
		return d.err
	}
	active, err := d.apps.active()
	if err != nil {
		return err
	}
	if active[name] != "" {
		return api.Errorf(api.Conflict, "application %q is installed already", name)
	}
	if _, _, err := d.apps.choose(name, active); err != nil {
		return d.unknown(name)
	}
	_, err = d.tasks.Start(installKind, "install application "+name, order{Name: name})
	return err
}

// unknown refuses an application that there is no image of.
func (d *Desk) unknown(name string) error {
	known, err := d.apps.available()
	if err != nil {
		return err
	}
	has := "it has no other images either"
	if len(known) > 0 {
		has = "it has those of " + strings.Join(known, ", ")
	}
	return api.Errorf(api.NotFound, "this machine has no image of application %q; %s", name, has)
}

// Remove removes an application.
func (d *Desk) Remove(ctx context.Context, name string) error {
	doc, err := d.document(name)
	if err != nil {
		return err
	}
	if doc.State.IsPrimary {
		return api.Errorf(api.Invalid, "application %q is what this machine is for and cannot be removed; a factory reset makes it as new", name)
	}
	if users := d.apps.options.Users(name); len(users) > 0 {
		return api.Errorf(api.Conflict, "application %q is needed by %s; disable that first", name, strings.Join(users, ", "))
	}
	return d.start(ctx, removeKind, "remove application "+name, order{Name: name})
}

// start has something done and waits a while for it.
func (d *Desk) start(ctx context.Context, kind, description string, o order) error {
	t, err := d.tasks.Start(kind, description, o)
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, soon)
	defer cancel()
	t, err = d.tasks.Wait(limited, t.ID)
	if err != nil {
		return nil //nolint:nilerr // it goes on; the list of tasks tells how
	}
	if t.Status != api.TaskDone {
		return fmt.Errorf("cannot %s: %s", description, t.Error)
	}
	return nil
}

// Restart has an application restarted once the request is answered.
func (d *Desk) Restart(_ context.Context, name string) error {
	return d.onIncus(name, "has nothing that runs", restartKind, "restart application "+name)
}

// Reset has an application made as new.
func (d *Desk) Reset(_ context.Context, name string) error {
	return d.onIncus(name, "keeps nothing that could be reset", resetKind, "reset application "+name)
}

// onIncus starts a task that only Incus has a use for.
func (d *Desk) onIncus(name, others, kind, description string) error {
	if err := d.incus(name, others); err != nil {
		return err
	}
	_, err := d.tasks.Start(kind, description, order{Name: name})
	return err
}

func (d *Desk) incus(name, others string) error {
	if _, err := d.document(name); err != nil {
		return err
	}
	if name != incusName {
		return api.Errorf(api.Unsupported, "application %q %s", name, others)
	}
	return nil
}

// Switch has an application run another stored version; "" is the one before.
func (d *Desk) Switch(ctx context.Context, name, version string) error {
	doc, err := d.document(name)
	if err != nil {
		return err
	}
	versions := doc.State.AvailableVersions
	if version == "" {
		var ok bool
		if version, ok = previous(versions, sets.Path(name, doc.State.Version)); !ok {
			return api.Errorf(api.Invalid, "application %q has no version before %s; it has %s", name, doc.State.Version, strings.Join(versions, ", "))
		}
	}
	if !slices.Contains(versions, version) {
		return api.Fieldf("version", "%q is not stored; want one of %s", version, strings.Join(versions, ", "))
	}
	if version == doc.State.Version {
		return api.Fieldf("version", "%q is what runs already", version)
	}
	description, o := fmt.Sprintf("switch application %s to version %s", name, version), order{name, version}
	if name != incusName {
		return d.start(ctx, switchKind, description, o)
	}
	_, err = d.tasks.Start(switchKind, description, o)
	return err
}

// Installed reports, as an api.Error, that an application is not installed.
func (d *Desk) Installed(name string) error {
	_, err := d.document(name)
	return err
}

// Act refuses: there is no action yet that one application alone has.
func (d *Desk) Act(_ context.Context, name string, action api.ApplicationAction) error {
	if _, err := d.document(name); err != nil {
		return err
	}
	return api.Errorf(api.Unsupported, "application %q has no action %q, nor any other", name, action.Action)
}

// Logs returns what writes the archive that the debug action get-logs asks for.
func (d *Desk) Logs(name, action string) (func(io.Writer) error, error) {
	if err := d.incus(name, "has no logs of its own"); err != nil {
		return nil, err
	}
	if action != "get-logs" {
		return nil, api.Errorf(api.Unsupported, "application %q knows no debug action %q; want %q", name, action, "get-logs")
	}
	return d.apps.Logs(), nil
}

// Archive returns what writes a backup of an application.
func (d *Desk) Archive(ctx context.Context, name string) (func(io.Writer) error, error) {
	if err := d.incus(name, "keeps nothing that could be backed up"); err != nil {
		return nil, err
	}
	return d.apps.Backup(ctx)
}

// Restore reads a backup to its end, and has it put in place once the request is
// answered.
func (d *Desk) Restore(ctx context.Context, name string, archive io.Reader) error {
	if err := d.incus(name, "keeps nothing that could be restored"); err != nil {
		return err
	}
	if !d.receiving.TryLock() {
		return api.Errorf(api.Conflict, "a backup of application %q is being received; wait until that is done", name)
	}
	defer d.receiving.Unlock()
	if err := d.tasks.Busy(key(name)); err != nil {
		return err
	}
	if err := d.apps.Receive(ctx, archive); err != nil {
		return err
	}
	_, err := d.tasks.Start(restoreKind, "restore application "+name, order{Name: name})
	return err
}
