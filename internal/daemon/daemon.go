// Package daemon puts the parts together and decides in which order they run.
// It is the same code whether the machine is real or a directory.
//
//	areas.go   which parts there are, and what they need; network.go of the network
//	daemon.go  the order of the boot
//	loop.go    when areas are brought to what is wanted, and again
//	status.go  what the console shows; pages.go what can be looked at on it
//	serve.go   the unix socket
//	apps.go    what applications and tasks need
//	early.go   what the early boot left in /run
//	debug.go   what whoever searches for a fault gets to see
//	figures.go  figures for Incus and Prometheus
//	storage.go  what is done to drives
//	proxy.go    the way out, for Incus and for the daemon itself
//	updates.go  when and from where updates are made, and what they need of the machine
//	updateapi.go what can be asked of updates, and the tasks that they are
//	rescue.go   a medium with updates
//	trial.go    whether a new version is good
//
// The local API is served before anything is reconciled: it never waits for the
// network, and incusd asks it while it starts. Nothing here knows a feature.
package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	sdnotify "github.com/coreos/go-systemd/v22/daemon"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/console"
	"github.com/incusos/incusos/internal/proxy"
	"github.com/incusos/incusos/internal/rest"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/task"
	"github.com/incusos/incusos/internal/update"
)

// An Area is a part of the machine that can be brought to what is wanted.
type Area interface {
	// Name is what the operator calls it, such as "network".
	Name() string
	// Reconcile makes the machine match what is saved. It does nothing to
	// what already does, and can be called again after any error.
	Reconcile(ctx context.Context) error
}

// A Server serves the API in another way than on the unix socket, until ctx ends.
type Server interface {
	Serve(ctx context.Context, api http.Handler)
}

// Options are the parts of a daemon. Only Host must be there.
type Options struct {
	Host     sys.Host
	Socket   string           // where the API is served, in the calling system's tree; "" is /run/incus-os/unix.socket of Host
	Console  *console.Console // nil: none
	Areas    []Area           // brought up in this order
	Machine  rest.Machine     // what the API answers from
	Warnings func() []string  // what needs attention although it works
	Alarms   func() []string  // why the machine is not to be trusted like others; nil: nobody knows
	Metrics  string           // TCP address to serve figures at; "" is nowhere
	Outward  *proxy.Proxy     // the way out of the machine; nil: none
	Proxy    string           // TCP address to serve Outward at; "" is nowhere
	Tasks    *task.Manager    // stopped with the daemon; nil: none
	Wake     chan struct{}    // sent to when all areas should be reconciled soon; nil: a new one
	News     chan struct{}    // sent to when the console should be drawn anew; nil: never
	Also     []Server         // serve the same API
	Pages    []console.Page   // what can be looked at on the console
	Updates  *update.Agent    // looks for updates; nil: nobody does
	// ComeBack has the machine take its place in a cluster again, once the version
	// that runs is settled; nil: there is none.
	ComeBack func(context.Context)

	// Doctor tells whether the next start unlocks the disk; nil: nobody knows.
	Doctor func(context.Context) (api.SecureBootDoctor, error)

	// Install puts the system on a disk. It runs instead of everything else
	// when the machine was started from an install medium.
	Install func(context.Context, *console.Console) error
}

// A Daemon runs one machine.
type Daemon struct {
	Options
	identify func(context.Context) (api.Environment, error)
	loop     *loop
	figures  *figureServer // nil: none
	early    early
	ready    atomic.Bool   // every area was brought up once
	up       chan struct{} // closed when they were
	doing    atomic.Value  // string: the area that is being brought up
	began    time.Time
}

// New returns the daemon made of these parts.
func New(o Options) *Daemon {
	if o.Console == nil {
		o.Console = console.New(o.Host.Files)
	}
	d := &Daemon{Options: o, identify: o.Machine.Environment, began: time.Now(), up: make(chan struct{})}
	d.loop = newLoop(o.Areas, o.Wake, d.show)
	d.loop.news = o.News
	d.Machine.Environment = d.environment
	figures := d.newFigures()
	d.Machine.Debug = d.newLook(figures)
	if o.Metrics != "" {
		d.figures = &figureServer{address: o.Metrics, figures: figures}
		d.loop.add(d.figures)
	}
	return d
}

// Changed has all areas reconciled soon. It does not wait.
func (d *Daemon) Changed() { poke(d.loop.wake) }

// Run runs the machine until ctx ends. An error means that it could not even
// begin; trouble later on is the trouble of an area and shown as such.
func (d *Daemon) Run(ctx context.Context) error {
	early, err := readEarly(d.Host.Files)
	if err != nil {
		d.Console.Fail("cannot start", err.Error())
		return err
	}
	d.early = early
	d.Console.Listen(ctx, d.Pages...)
	if early.Mode == modeInstall {
		return d.install(ctx)
	}
	return d.run(ctx)
}

func (d *Daemon) run(ctx context.Context) error {
	var also sync.WaitGroup
	defer also.Wait()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	srv, err := d.serve(ctx, fail)
	if err != nil {
		d.Console.Fail("cannot start", err.Error())
		return err
	}
	for _, s := range d.Also {
		also.Go(func() { s.Serve(ctx, rest.Handler(d.Machine)) })
	}
	if d.Outward != nil && d.Proxy != "" {
		also.Go(func() { d.Outward.Serve(ctx, d.Proxy) })
	}
	notify(sdnotify.SdNotifyReady)
	links, err := d.Host.Links.Watch(ctx)
	if err != nil {
		slog.WarnContext(ctx, "Cannot follow network addresses; looking every ten minutes", "err", err)
	}
	also.Go(func() { d.update(ctx) }) // an area that hangs must not keep a version on trial
	d.loop.pass(ctx)
	d.ready.Store(ctx.Err() == nil)
	close(d.up)
	d.show(ctx, "")
	d.loop.run(ctx, links)

	notify(sdnotify.SdNotifyStopping)
	if err := d.closeTasks(); err != nil {
		slog.Warn("Tasks did not stop", "err", err)
	}
	stop(srv)
	if d.figures != nil {
		d.figures.stop()
	}
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// install runs the installer. What it could not do stays on the screen until
// the machine is turned off: starting over would only fail the same way.
func (d *Daemon) install(ctx context.Context) error {
	notify(sdnotify.SdNotifyReady)
	d.Warnings, d.Alarms = nil, nil // they are about an installed system
	d.show(ctx, modeInstall)
	err := errors.New("this build has no installer; use an install medium made by `incusos media`")
	if d.Install != nil {
		err = d.Install(ctx, d.Console)
	}
	if err != nil && ctx.Err() == nil {
		slog.ErrorContext(ctx, "Cannot install", "err", err)
		d.Console.Fail("cannot install", err.Error())
	}
	<-ctx.Done()
	return err
}

// environment adds to what the host area knows whether the machine is up.
func (d *Daemon) environment(ctx context.Context) (api.Environment, error) {
	if d.identify == nil {
		return api.Environment{}, nil
	}
	env, err := d.identify(ctx)
	env.SystemIsReady = d.ready.Load()
	return env, err
}

// notify tells systemd; without one it does nothing.
func notify(state string) {
	if _, err := sdnotify.SdNotify(false, state); err != nil {
		slog.Warn("Cannot notify systemd", "state", state, "err", err)
	}
}
