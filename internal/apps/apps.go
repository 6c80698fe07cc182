// Package apps installs and starts applications: extension images that are
// merged into /usr, signed and verified by the kernel as /usr itself is.
//
//	images.go   which image is active, and merging it    (systemd-sysext)
//	incus.go    the REST API of Incus, as far as needed
//	preseed.go  what Incus is set up with                (pure)
//	firststart.go  what is left of a first start that was cut
//	setup.go    setting it up, once, and going on where that was cut
//	config.go   what the operator wants of an application
//	desk.go     requests: what cannot be is refused, the rest becomes a task
//	work.go     the tasks; restore.go and reset.go have the longer ones
//	adopt.go    going on with images that an update has stored
//	backup.go   archives of what Incus keeps, and of its logs
//	unpack.go   reading such an archive                  (trusts nothing)
//	mounts.go   taking file systems off a directory before it is removed
//
// An image lies in the store and is active by a link (package sets). Which one that
// should be says the set of the version of the system that runs; package early has
// seen to it and merged it before this starts. Only the first boot, and what changes
// while the system runs, are left to do here.
//
// Incus asks this system's own API for services while it starts and waits for
// the answer. Nothing here is locked while Incus starts, except against a
// second Reconcile and against tasks.
//
// Where images come from is the business of internal/seed and internal/update;
// the ZFS pool below Incus is that of internal/storage. Areas do not know each
// other: the daemon hands a Source over.
package apps

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/change"
	"github.com/incusos/incusos/internal/incus"
	"github.com/incusos/incusos/internal/sets"
	"github.com/incusos/incusos/internal/store"
	"github.com/incusos/incusos/internal/sys"
)

// An Image is an application that a Source can supply.
type Image struct {
	Name    string // such as "incus"
	Version string // such as "202601010000"
	Size    uint64 // bytes
}

// A Source supplies the images of a machine that has none yet.
type Source interface {
	Applications() []Image
	OpenApplication(name string) (io.ReadCloser, error)
}

// Options is what the operator and the medium say about applications.
type Options struct {
	Wanted   []string       // names; none is Incus alone
	Also     []string       // names of those that are wanted if there is an image
	Source   Source         // nil: ask Seed when an image is missing
	Incus    *api.SeedIncus // nil: apply defaults
	Progress func(name string, done, total uint64)

	// Sets are those of the machine, shared with whoever updates it. Nil: they are
	// opened here.
	Sets *sets.Sets

	// Seed reads the seed again, for an image that was not wanted at first and
	// for a factory reset. Nil: there is none.
	Seed func() (Source, *api.SeedIncus, error)

	// Users returns who could not go on without an application; nil: nobody.
	Users func(name string) []string

	Gate    *change.Gate  // shared with all other documents; nil: one of its own
	Changed func()        // told when a task has changed what is installed; may be nil
	Pause   time.Duration // that the answer to a request has before Incus, which passes it on, is stopped; 0: a second
}

// Saved is the document applications.json: what the operator wants, and how far
// things have come.
type Saved struct {
	Answered    bool              `json:"answered,omitempty"`  // Incus has come up once on what it keeps
	Initialized bool              `json:"initialized"`         // Incus was set up; never again
	Version     string            `json:"version,omitempty"`   // image that was set up
	Preseeded   []string          `json:"preseeded,omitempty"` // sections of the preseed that are done
	Populated   map[string]string `json:"populated,omitempty"` // application to the image whose users and directories exist

	Installed []string                         `json:"installed,omitempty"` // all there should be; none: not known yet
	Config    map[string]api.ApplicationConfig `json:"config,omitempty"`    // by application
	Restored  map[string]time.Time             `json:"restored,omitempty"`  // when a backup of it was put back
}

const (
	incusName = "incus"
	incusUnit = "incus.service"
)

// answerTime is how long Incus may take until it answers. Its first start
// makes keys and a database, and it is slow on a busy machine.
const answerTime = 10 * time.Minute

// Apps is the applications of one machine.
type Apps struct {
	host    sys.Host
	saved   *store.Document[Saved]
	options Options

	turn   chan struct{} // full while the machine is brought to something
	looked bool          // whether Incus was cut in its first start; for who has the turn
	saving sync.Mutex    // held while saved changes

	mu       sync.Mutex // guards what follows; never held while waiting
	server   string     // version of Incus as it says itself
	warnings []string
	seed     *api.SeedIncus                                    // that Incus is set up with
	managers map[string]*change.Manager[api.ApplicationConfig] // by application
}

// New returns the applications of host. saved is the document
// "applications".
func New(host sys.Host, saved *store.Document[Saved], options Options) *Apps {
	if len(options.Wanted) == 0 {
		options.Wanted = []string{incusName}
	}
	if options.Incus == nil {
		options.Incus = &api.SeedIncus{ApplyDefaults: true}
	}
	if options.Progress == nil {
		options.Progress = func(string, uint64, uint64) {}
	}
	if options.Gate == nil {
		options.Gate = change.NewGate(nil)
	}
	if options.Users == nil {
		options.Users = func(string) []string { return nil }
	}
	if options.Changed == nil {
		options.Changed = func() {}
	}
	if options.Sets == nil {
		options.Sets = sets.Open(host.Files)
	}
	if options.Pause == 0 {
		options.Pause = time.Second
	}
	return &Apps{
		host: host, saved: saved, options: options, turn: make(chan struct{}, 1), seed: options.Incus,
		managers: make(map[string]*change.Manager[api.ApplicationConfig]),
	}
}

// Name is the area's name in health reports.
func (a *Apps) Name() string { return "applications" }

// Reconcile installs and starts what is wanted; see Apply. While a task is at
// work it does nothing: the task has that done when it ends.
func (a *Apps) Reconcile(ctx context.Context) error {
	select {
	case a.turn <- struct{}{}:
		defer a.leave()
		return a.apply(ctx)
	default:
		return nil
	}
}

// Apply installs, merges and starts the wanted applications and sets Incus up
// if that has not been done. After an interruption at any point, applying again
// continues.
func (a *Apps) Apply(ctx context.Context) error {
	if err := a.enter(ctx); err != nil {
		return err
	}
	defer a.leave()
	return a.apply(ctx)
}

// enter waits until nobody else changes the machine's applications.
func (a *Apps) enter(ctx context.Context) error {
	select {
	case a.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting until the applications are not being changed: %w", context.Cause(ctx))
	}
}

func (a *Apps) leave() { <-a.turn }

// apply is Apply for one who has entered.
func (a *Apps) apply(ctx context.Context) error {
	if err := a.clearCutStart(ctx); err != nil {
		return err
	}
	p, err := a.Plan(ctx)
	if err != nil {
		return err
	}
	if err := a.applyImages(ctx, p); err != nil {
		return err
	}
	configs := a.configure(ctx, p.names())
	if p.want[incusName] == "" {
		return configs
	}
	if err := a.startIncus(ctx); err != nil {
		return errors.Join(configs, err)
	}
	return errors.Join(configs, a.reach(ctx))
}

// startIncus starts what Incus consists of and returns once it answers.
func (a *Apps) startIncus(ctx context.Context) error {
	for _, unit := range incusUnits() {
		if err := a.host.Units.Start(ctx, unit); err != nil {
			return err
		}
	}
	version, err := version(ctx, incus.Dial(a.host.Files), answerTime)
	if err != nil {
		return err
	}
	if err := a.answered(); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.server = version
	return nil
}

// update changes the document; what others change meanwhile stays.
func (a *Apps) update(change func(*Saved)) error {
	a.saving.Lock()
	defer a.saving.Unlock()
	s := a.saved.Get()
	change(&s)
	return a.saved.Set(s)
}

// incusUnits returns what Incus consists of, in the order of starting. The last
// one starts nothing more; it is what stops instances in good order when the
// machine is turned off.
func incusUnits() []string {
	return []string{lxcfsUnit, "incus.socket", incusUnit, "incus-startup.service"}
}

// reach sets Incus up and looks at who may log in.
func (a *Apps) reach(ctx context.Context) error {
	c := incus.Dial(a.host.Files)
	setup := a.setUp(ctx, c)
	locked, err := nobodyTrusted(ctx, c)
	if err != nil {
		return errors.Join(setup, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.warnings = nil
	if locked {
		a.warnings = []string{"no client certificate was seeded; nobody can log in remotely"}
	}
	return setup
}

// Warnings returns sentences for the console, as of the last Reconcile.
func (a *Apps) Warnings() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.warnings)
}

// Documents returns what there is to say about each installed application, by
// name. It waits for nothing.
func (a *Apps) Documents() (map[string]api.Application, error) {
	active, err := a.active()
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	server := a.server
	a.mu.Unlock()
	saved := a.saved.Get()
	all := make(map[string]api.Application)
	for name, image := range active {
		versions, err := a.stored(name)
		if err != nil {
			return nil, err
		}
		s := api.ApplicationState{Initialized: true, Version: sets.VersionOf(image), FriendlyVersion: sets.VersionOf(image), AvailableVersions: versions}
		if name == incusName {
			s.IsPrimary, s.Initialized = true, saved.Initialized
			s.FriendlyVersion = strings.TrimSpace(fmt.Sprintf("%s [%s]", server, s.Version))
		}
		if when, ok := saved.Restored[name]; ok {
			s.LastRestored = &when
		}
		all[name] = api.Application{State: s, Config: a.config(name)}
	}
	return all, nil
}
