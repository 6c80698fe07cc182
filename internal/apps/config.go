package apps

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/change"
)

const (
	lxcfsUnit   = "lxcfs.service"
	lxcfsDropIn = "/etc/systemd/system/lxcfs.service.d/50-incus-os.conf"

	// lxcfsStamp says which drop-in is in force. It lies in /run since a boot
	// starts from what is in /etc.
	lxcfsStamp = "/run/incus-os/apps.lxcfs"

	controlGroups = "/sys/fs/cgroup"
	container     = "lxc.payload." // with which the control group of a running container begins
)

// waits is what a plan says where lxcfs cannot be restarted.
const waits = "containers are running and would lose parts of /proc; lxcfs goes on as it is until the machine restarts or none runs"

// config returns the configuration of an application in force.
func (a *Apps) config(name string) api.ApplicationConfig {
	c := a.manager(name).Config()
	if name == incusName && c.LXCFS == nil {
		c.LXCFS = &api.ApplicationLXCFS{} // so that it can be seen and edited
	}
	return c
}

// Pinned returns the applications that stay as they are whatever there is to be had.
func (a *Apps) Pinned() (names []string) {
	for _, name := range a.saved.Get().Installed {
		if a.config(name).PinCurrentVersions {
			names = append(names, name)
		}
	}
	return names
}

// manager returns what owns the configuration of one application.
func (a *Apps) manager(name string) *change.Manager[api.ApplicationConfig] {
	a.mu.Lock()
	defer a.mu.Unlock()
	m, ok := a.managers[name]
	if !ok {
		m = change.New("applications/"+name, part{a, name}, configTarget{a, name}, a.options.Gate)
		a.managers[name] = m
	}
	return m
}

// configure brings applications to their configurations in force.
func (a *Apps) configure(ctx context.Context, names []string) error {
	var all []error
	for _, name := range names {
		if err := a.manager(name).Reconcile(ctx); err != nil {
			all = append(all, fmt.Errorf("configuring application %q: %w", name, err))
		}
	}
	return errors.Join(all...)
}

// A part is the configuration of one application in the document of all.
type part struct {
	apps *Apps
	name string
}

func (p part) Get() api.ApplicationConfig { return p.apps.saved.Get().Config[p.name] }

func (p part) Set(c api.ApplicationConfig) error {
	return p.apps.update(func(s *Saved) {
		s.Config = maps.Clone(s.Config)
		if s.Config == nil {
			s.Config = make(map[string]api.ApplicationConfig)
		}
		s.Config[p.name] = c
	})
}

// A configTarget brings one application to a configuration. That a version is
// pinned is for those who look for newer ones; here, only lxcfs has to know.
type configTarget struct {
	apps *Apps
	name string
}

func (t configTarget) Plan(ctx context.Context, c api.ApplicationConfig) (api.Plan, error) {
	if err := t.check(c); err != nil || t.name != incusName {
		return api.Plan{}, err
	}
	s, err := t.apps.lxcfs(ctx, c)
	if err != nil {
		return api.Plan{}, err
	}
	return s.plan(), nil
}

func (t configTarget) Apply(ctx context.Context, c api.ApplicationConfig) error {
	if err := t.check(c); err != nil || t.name != incusName {
		return err
	}
	s, err := t.apps.lxcfs(ctx, c)
	if err != nil {
		return err
	}
	return t.apps.applyLXCFS(ctx, s)
}

func (t configTarget) check(c api.ApplicationConfig) error {
	if c.LXCFS != nil && t.name != incusName {
		return api.Fieldf("config.lxcfs", "belongs to Incus; application %q has nothing of the kind", t.name)
	}
	return nil
}

// lxcfsState is how lxcfs is and should be: three drop-ins, "" for none.
type lxcfsState struct {
	want, file string
	stamp      lxcfsStamped
	stamped    bool // stamp is from a file
	active     bool // it runs
	busy       bool // containers use it
}

type lxcfsStamped struct {
	Loaded  string `json:"loaded"`  // as systemd knows it
	Running string `json:"running"` // that lxcfs was started with
}

// dropIn returns the file that has lxcfs started as c wants it.
func dropIn(c *api.ApplicationLXCFS) string {
	if c == nil || *c == (api.ApplicationLXCFS{}) {
		return ""
	}
	command := []string{"/usr/bin/lxcfs"}
	if c.CPUShares {
		command = append(command, "--enable-cfs")
	}
	if c.LoadAverage {
		command = append(command, "--enable-loadavg")
	}
	command = append(command, "/var/lib/lxcfs")
	return "# Written by incus-osd from the configuration of the application incus.\n[Service]\nExecStart=\nExecStart=" + strings.Join(command, " ") + "\n"
}

func (a *Apps) lxcfs(ctx context.Context, c api.ApplicationConfig) (lxcfsState, error) {
	s := lxcfsState{want: dropIn(c.LXCFS)}
	file, err := a.readOptional(lxcfsDropIn)
	if err != nil {
		return s, err
	}
	s.file = string(file)
	stamp, err := a.readOptional(lxcfsStamp)
	if err != nil {
		return s, err
	}
	if s.stamped = len(stamp) > 0; s.stamped {
		err = json.Unmarshal(stamp, &s.stamp)
	} else { // nobody has changed it since the start of the machine, when systemd read it
		s.stamp = lxcfsStamped{Loaded: s.file, Running: s.file}
	}
	if err != nil {
		return s, fmt.Errorf("reading %s: %w", lxcfsStamp, err)
	}
	if s.done() {
		return s, nil
	}
	state, err := a.host.Units.State(ctx, lxcfsUnit)
	if err != nil {
		return s, err
	}
	s.active = state == "active"
	s.busy, err = a.containersRun()
	return s, err
}

func (a *Apps) readOptional(name string) ([]byte, error) {
	b, err := a.host.Files.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// containersRun reports whether there is a control group of a container.
func (a *Apps) containersRun() (bool, error) {
	entries, err := a.host.Files.ReadDir(controlGroups)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return strings.HasPrefix(e.Name(), container) }), err
}

func (s lxcfsState) done() bool {
	return s.file == s.want && s.stamp.Loaded == s.want && s.stamp.Running == s.want
}

func (s lxcfsState) plan() (p api.Plan) {
	if s.file != s.want {
		action := "write"
		if s.want == "" {
			action = "remove"
		}
		p.Do(action, lxcfsDropIn)
	}
	if s.stamp.Loaded != s.want {
		p.Do("reload", "systemd")
	}
	if s.active && s.stamp.Running != s.want {
		p.Risk("restart", lxcfsUnit, s.risk())
	}
	return p
}

func (s lxcfsState) risk() string {
	if s.busy {
		return waits
	}
	return ""
}

// applyLXCFS makes what s says. Lxcfs that serves containers is not restarted:
// its file systems in them would go, and come back with the containers only.
func (a *Apps) applyLXCFS(ctx context.Context, s lxcfsState) error {
	if s.done() {
		return nil
	}
	if !s.stamped { // a cut after the next step must not pass for a start of the machine
		if err := a.stampLXCFS(s.stamp); err != nil {
			return err
		}
	}
	if err := a.putDropIn(s); err != nil {
		return err
	}
	if s.stamp.Loaded != s.want {
		if err := a.host.Units.Reload(ctx); err != nil {
			return err
		}
		s.stamp.Loaded = s.want
		if err := a.stampLXCFS(s.stamp); err != nil {
			return err
		}
	}
	if s.stamp.Running == s.want || s.active && s.busy {
		return nil
	}
	if s.active {
		if err := a.host.Units.Stop(ctx, lxcfsUnit); err != nil {
			return err
		}
		if err := a.host.Units.Start(ctx, lxcfsUnit); err != nil {
			return err
		}
	}
	s.stamp.Running = s.want // at its next start, if it does not run
	return a.stampLXCFS(s.stamp)
}

func (a *Apps) putDropIn(s lxcfsState) (err error) {
	switch {
	case s.file == s.want:
		return nil
	case s.want == "":
		err = a.host.Files.Remove(lxcfsDropIn)
	default:
		err = a.host.Files.WriteFile(lxcfsDropIn, []byte(s.want), 0o644)
	}
	if err != nil {
		return fmt.Errorf("configuring lxcfs: %w", err)
	}
	return nil
}

func (a *Apps) stampLXCFS(s lxcfsStamped) error {
	b, err := json.Marshal(s)
	if err == nil {
		err = a.host.Files.WriteFile(lxcfsStamp, b, 0o644)
	}
	if err != nil {
		return fmt.Errorf("recording how lxcfs was started: %w", err)
	}
	return nil
}
