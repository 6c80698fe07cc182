package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/debug"
	"github.com/incusos/incusos/internal/fetch"
	"github.com/incusos/incusos/internal/repo"
	"github.com/incusos/incusos/internal/rolling"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/task"
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
	host     sys.Host
	config   document[api.SystemUpdateConfig]
	provider document[api.SystemProviderConfig]
	apps     installed
	machine  func(context.Context) (api.Environment, error)
	bind     func(ctx context.Context, image io.ReaderAt, size int64) error // root to what a kernel measures
	unlocks  func(image io.ReaderAt, size int64) error                      // says why root would not with a kernel
	agent    *update.Agent
	changed  func() // has the console drawn anew
	member   *rolling.Member
	queues   atomic.Bool // waits for its turn to restart
	tasks    *task.Manager
	pending  chan func(context.Context, update.Meter) error // what the next task does
}

func newUpdates(m sys.Host, config document[api.SystemUpdateConfig], provider document[api.SystemProviderConfig], apps installed) *updates {
	u := &updates{host: m, config: config, provider: provider, apps: apps, changed: func() {}, pending: make(chan func(context.Context, update.Meter) error, 1)}
	u.agent = &update.Agent{
		Records:  update.File{Files: m.Files},
		Settings: u.settings,
		Built:    func() ([]byte, error) { return m.Files.ReadFile(rootFile) },
		Machine:  u.about,
		Clock:    u.clock,
		Updater:  u.updater,
		Contents: u.contents,
		Turn:     u.takeTurn,
		Repairs:  u.repairs,
		Medium:   func() (string, func(), error) { return rescueMedium(m) },
		Boot:     func() string { return bootID(m.Files) },
		Log:      debug.New(m).FailedStarts,
		AsTask:   u.asTask,
		Applications: update.Applications{
			Wish:   u.wish,
			Coming: apps.sets.Coming,
			Adopt:  apps.apps.Adopt,
		},
	}
	u.member = newMember(m, u)
	u.agent.Remember() // the console has it from the start
	return u
}

// settings returns what the two documents say.
func (u *updates) settings() (update.Settings, error) {
	if err := errors.Join(u.config.err, u.provider.err); err != nil {
		return update.Settings{}, err
	}
	c, p := u.config.get(), u.provider.get().Config
	every, err := c.Frequency()
	s := update.Settings{Channel: c.Channel, Every: every, AutoReboot: c.AutoReboot, UrgentFrom: c.UrgentFrom, Paused: c.Paused, Server: p.ServerURL, Token: string(p.Token)}
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

// disk returns the disk of the machine, and the version that runs.
func (u *updates) disk() (update.Disk, string, error) {
	running, err := u.running()
	if err != nil {
		return update.Disk{}, "", err
	}
	disk, err := update.FindSlots(u.host, running)
	return disk, running, err
}

func (u *updates) wish() (update.Wish, error) {
	running, err := u.running()
	if err != nil {
		return update.Wish{}, err
	}
	return u.apps.wish(running)
}

func (u *updates) updater() (*update.Updater, error) {
	disk, running, err := u.disk()
	if err != nil {
		return nil, err
	}
	return &update.Updater{
		Running: running,
		Loader:  update.ESP{Host: u.host, Device: disk.ESP.Path},
		Slots:   disk,
		Records: u.agent.Records,
		Sets:    u.apps.sets,
		Bind:    u.provide,
		Unlocks: func(version string) error {
			uki, err := update.ESP{Host: u.host, Device: disk.ESP.Path}.Read(version)
			if err != nil {
				return err
			}
			return u.unlocks(bytes.NewReader(uki), int64(len(uki)))
		},
	}, nil
}

func (u *updates) provide(ctx context.Context, uki []byte) error {
	return u.bind(ctx, bytes.NewReader(uki), int64(len(uki)))
}

func (u *updates) contents(from *fetch.Server, r repo.Release, amount func(done, total uint64)) (update.Contents, error) {
	disk, running, err := u.disk()
	if err != nil {
		return nil, err
	}
	return u.fetched(disk, from, r, running, amount)
}

// repairs returns what repairs the slot that has a release.
func (u *updates) repairs(from *fetch.Server, r repo.Release, amount func(done, total uint64)) (update.Repair, error) {
	disk, running, err := u.disk()
	if err != nil {
		return update.Repair{}, err
	}
	if r.Version == running {
		disk.Running, disk.Other = disk.Other, disk.Running
	}
	if want := "IncusOS_" + r.Version; disk.Other.Usr.Label != want {
		return update.Repair{}, fmt.Errorf("partition %s is called %q; want %q: it cannot be repaired, but an update writes it anew", disk.Other.Usr.Path, disk.Other.Usr.Label, want)
	}
	fetched, err := u.fetched(disk, from, r, r.Version, amount)
	return update.Repair{Fetched: fetched, Bind: u.provide}, err
}

// fetched returns a release with the applications that a version of the system would
// take from it.
func (u *updates) fetched(disk update.Disk, from *fetch.Server, r repo.Release, system string, amount func(done, total uint64)) (update.Fetched, error) {
	wish, err := u.apps.wish(system)
	return update.Fetched{
		Download: update.Download{Server: from, Release: r, Tally: new(fetch.Tally), Amount: amount},
		Files:    u.host.Files, Disk: disk, ESP: update.ESP{Host: u.host, Device: disk.ESP.Path}, Architecture: architecture(), Wish: wish,
	}, err
}

// bootID is the id of this start as the journal writes it (random(4)); "" if that
// cannot be told.
func bootID(files sys.Dir) string {
	b, err := files.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.ReplaceAll(strings.TrimSpace(string(b)), "-", "")
}
