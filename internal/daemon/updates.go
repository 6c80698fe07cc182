package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"reflect"
	"runtime"
	"slices"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/change"
	"github.com/incusos/incusos/internal/fetch"
	"github.com/incusos/incusos/internal/repo"
	"github.com/incusos/incusos/internal/rest"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/update"
)

const (
	// rootFile is the root of the repository that an image trusts by itself (package
	// image puts it there).
	rootFile = "/usr/lib/incus-os/update-root.json"
	// synchronized is there once a time server has set the clock
	// (systemd-timesyncd.service(8)).
	synchronized = "/run/systemd/timesync/synchronized"
)

// updates are when and from where updates are made, as resources, and the agent
// that makes them.
type updates struct {
	host      sys.Host
	config    document[api.SystemUpdateConfig]
	provider  document[api.SystemProviderConfig]
	installed func() []string // applications
	machine   func(context.Context) (api.Environment, error)
	bind      func(ctx context.Context, image io.ReaderAt, size int64) error // root to what a kernel measures
	agent     *update.Agent
}

func newUpdates(m sys.Host, config document[api.SystemUpdateConfig], provider document[api.SystemProviderConfig], installed func() []string, machine func(context.Context) (api.Environment, error), restart func(context.Context) error, bind func(context.Context, io.ReaderAt, int64) error) *updates {
	u := &updates{host: m, config: config, provider: provider, installed: installed, machine: machine, bind: bind}
	u.agent = &update.Agent{
		Records:  update.File{Files: m.Files},
		Settings: u.settings,
		Built:    func() ([]byte, error) { return m.Files.ReadFile(rootFile) },
		Machine:  u.about,
		Clock:    u.clock,
		Updater:  u.updater,
		Contents: u.contents,
		Restart:  restart,
	}
	return u
}

// settings returns what the two documents say.
func (u *updates) settings() (update.Settings, error) {
	if err := errors.Join(u.config.err, u.provider.err); err != nil {
		return update.Settings{}, err
	}
	c, p := u.config.get(), u.provider.get().Config
	every, err := c.Frequency()
	s := update.Settings{Channel: c.Channel, Every: every, AutoReboot: c.AutoReboot, Server: p.ServerURL, Token: string(p.Token)}
	if s.Channel == "" {
		s.Channel = api.DefaultChannel
	}
	if p.Root != "" {
		s.Root = []byte(p.Root)
	}
	for _, w := range c.MaintenanceWindows {
		s.Windows = append(s.Windows, update.Window{
			StartDay: w.StartDayOfWeek, StartHour: w.StartHour, StartMinute: w.StartMinute,
			EndDay: w.EndDayOfWeek, EndHour: w.EndHour, EndMinute: w.EndMinute,
		})
	}
	return s, err
}

// running returns the version that runs.
func (u *updates) running() (string, error) {
	env, err := u.machine(context.Background())
	return env.OSVersion, err
}

// about says what the choice of a release depends on.
func (u *updates) about() (repo.Machine, error) {
	env, err := u.machine(context.Background())
	return repo.Machine{ID: env.MachineID, Architecture: architecture(), Running: env.OSVersion}, err
}

// architecture is what repositories call that of this program.
func architecture() string {
	if runtime.GOARCH == "arm64" {
		return "aarch64"
	}
	return "x86_64"
}

// clock says what the machine knows of the time. Versions are the minute in which
// the image was made.
func (u *updates) clock() repo.Clock {
	c := repo.Clock{Now: time.Now(), Synchronized: u.host.Files.Exists(synchronized)}
	if version, err := u.running(); err == nil {
		c.NotBefore, _ = time.Parse("200601021504", version)
	}
	return c
}

func (u *updates) updater() (*update.Updater, error) {
	running, err := u.running()
	if err != nil {
		return nil, err
	}
	disk, err := update.FindSlots(u.host, running)
	if err != nil {
		return nil, err
	}
	return &update.Updater{
		Running: running,
		Loader:  update.ESP{Host: u.host, Device: disk.ESP.Path},
		Slots:   disk,
		Records: u.agent.Records,
		Bind:    func(ctx context.Context, uki []byte) error { return u.bind(ctx, bytes.NewReader(uki), int64(len(uki))) },
	}, nil
}

func (u *updates) contents(from *fetch.Server, r repo.Release) (update.Contents, error) {
	running, err := u.running()
	if err != nil {
		return nil, err
	}
	disk, err := update.FindSlots(u.host, running)
	if err != nil {
		return nil, err
	}
	return update.Fetched{
		Download: update.Download{Server: from, Release: r, Tally: new(fetch.Tally)},
		Files:    u.host.Files, Disk: disk, Architecture: architecture(), Installed: u.installed(),
	}, nil
}

func (u *updates) actions() map[string]rest.Action {
	return map[string]rest.Action{"/1.0/system/update/:check": u.check}
}

// check is the action that looks for updates now. What takes its time goes on after
// the answer; what cannot be is said at once.
func (u *updates) check(ctx context.Context, body []byte) error {
	var c api.UpdateCheck
	if len(body) > 0 {
		if err := json.Unmarshal(body, &c); err != nil {
			return api.Errorf(api.Invalid, "the request: %v", err)
		}
	}
	s, err := u.settings()
	if err != nil {
		return err
	}
	if s.Server == "" {
		return api.Errorf(api.Conflict, "no repository is set; name one as config.server_url of /1.0/system/provider")
	}
	if c.OSOnly {
		return u.agent.Check(ctx)
	}
	go func() {
		if err := u.agent.Check(context.WithoutCancel(ctx)); err != nil {
			slog.WarnContext(ctx, "Cannot update", "err", err)
		}
	}()
	return nil
}

// state returns how updates fare.
func (u *updates) state() (api.SystemUpdateState, error) {
	s := u.agent.Status()
	state := api.SystemUpdateState{LastCheck: s.LastCheck, Status: s.Text, NeedsReboot: s.NeedsReboot}
	r, err := u.agent.Records.Load()
	if err != nil {
		return state, err
	}
	state.Phase, state.Version = string(r.Phase), r.Version
	for _, version := range slices.Backward(slices.Sorted(maps.Keys(r.Failed))) {
		state.Failed = append(state.Failed, api.UpdateFailure{Version: version, Reason: r.Failed[version].Reason})
	}
	return state, nil
}

// resources returns the two documents as resources, which are areas too.
func (u *updates) resources(gate *change.Gate) (*managed[api.SystemUpdate, api.SystemUpdateConfig], *managed[api.SystemProvider, api.SystemProviderConfig]) {
	when := manage("system/update", u.config, onlySaved[api.SystemUpdateConfig]{"update", u.config.get}, gate,
		func(_ context.Context, c api.SystemUpdateConfig) (api.SystemUpdate, error) {
			state, err := u.state()
			return api.SystemUpdate{Config: c, State: state}, err
		})
	where := manage("system/provider", u.provider, onlySaved[api.SystemProviderConfig]{"provider", u.provider.get}, gate,
		func(_ context.Context, c api.SystemProviderConfig) (api.SystemProvider, error) {
			if c.Name == "" {
				c.Name = "images"
			}
			return api.SystemProvider{Config: c}, nil
		})
	return when, where
}

// onlySaved is the area of a document that others look at when they need it.
type onlySaved[C any] struct {
	name  string
	saved func() C
}

// Name implements Area.
func (o onlySaved[C]) Name() string { return o.name }

// Plan implements change.Target.
func (o onlySaved[C]) Plan(_ context.Context, c C) (p api.Plan, err error) {
	if !reflect.DeepEqual(c, o.saved()) {
		p.Do("save", "the configuration of "+o.name)
	}
	return p, nil
}

// Apply implements change.Target.
func (onlySaved[C]) Apply(context.Context, C) error { return nil }
