// Package systest provides pretend machines that live in a directory.
//
// A pretend machine has the same seams as a real one: its file tree is a real
// directory filled by Populate (sysfs, EFI variables, devices as sparse files),
// and its programs, services, mounts and network devices are small models that
// keep state, so that tests assert what the machine became and not which calls
// were made. Tests use New; `incus-osd --pretend` uses Pretend.
package systest

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/incusos/incusos/internal/sys"
)

// A Rig holds the models behind a pretend Host.
type Rig struct {
	Host     sys.Host
	Programs *Programs
	Units    *Units
	Mounts   *Mounts
	Links    *Links
	Power    *Power

	kernel *kernel
	lacks  string // as Machine has it
}

// New returns the rig of machine m in a temporary directory.
func New(t testing.TB, m Machine) *Rig {
	t.Helper()
	rig, err := Pretend(InMemory(t), m)
	if err != nil {
		t.Fatal(err)
	}
	return rig
}

// Pretend returns the rig of machine m in the directory root, which may hold
// what an earlier run of the same machine left.
func Pretend(root string, m Machine) (*Rig, error) {
	if err := Populate(root, m); err != nil {
		return nil, fmt.Errorf("setting up the pretend machine in %s: %w", root, err)
	}
	k := &kernel{tree: root, native: m.drivers()}
	files := sys.NewDir(root).WithKernel(k.put)
	rig := &Rig{
		Programs: &Programs{},
		Units:    &Units{states: make(map[string]string), fail: make(map[string]error), models: make(map[string]unit), watched: make(map[string][]chan struct{})},
		Mounts:   &Mounts{files: files},
		Links:    newLinks(m),
		Power:    &Power{},
		kernel:   k,
		lacks:    m.Lacks,
	}
	rig.Host = sys.Host{Files: files, Exec: rig.Programs, Units: rig.Units, Mounts: rig.Mounts, Links: rig.Links, Power: rig.Power, TPM: &TPM{files}}
	k.programs(rig)
	rig.networkd(m)
	return rig, nil
}

// A Program is the model of a program: what it does with its arguments and
// what it prints.
type Program func(ctx context.Context, c sys.Cmd) (stdout []byte, err error)

// Programs is a sys.Runner of models. A program without a model succeeds and
// prints nothing.
type Programs struct {
	mu     sync.Mutex
	ran    []string
	models map[string]Program
	fail   map[string]error
	log    io.Writer // nil: none
}

// Model makes name behave as p.
func (r *Programs) Model(name string, p Program) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.models == nil {
		r.models = make(map[string]Program)
	}
	r.models[name] = p
}

// Fail makes command lines starting with prefix fail with err; nil ends that.
func (r *Programs) Fail(prefix string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail == nil {
		r.fail = make(map[string]error)
	}
	r.fail[prefix] = err
}

// Ran returns what was run, a command line each.
func (r *Programs) Ran() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.ran)
}

// Run implements sys.Runner.
func (r *Programs) Run(ctx context.Context, c sys.Cmd) ([]byte, error) {
	model, err := r.begin(c)
	if err != nil || model == nil {
		return nil, err
	}
	return model(ctx, c)
}

func (r *Programs) begin(c sys.Cmd) (Program, error) {
	line := strings.Join(append([]string{filepath.Base(c.Name)}, c.Args...), " ")
	r.mu.Lock()
	defer r.mu.Unlock()
	r.note(line)
	for prefix, err := range r.fail {
		if err != nil && strings.HasPrefix(line, prefix) {
			return nil, err
		}
	}
	return r.models[filepath.Base(c.Name)], nil
}

// Start implements sys.Runner: the model runs at once, and Wait returns its
// result.
func (r *Programs) Start(ctx context.Context, c sys.Cmd) (sys.Process, error) {
	_, err := r.Run(ctx, c)
	return ended{err}, nil
}

type ended struct{ err error }

func (e ended) Wait() error          { return e.err }
func (ended) Signal(os.Signal) error { return os.ErrProcessDone }
func (ended) PID() int               { return 0 }

// Units is a service manager in which every unit exists and starts.
type Units struct {
	mu      sync.Mutex
	states  map[string]string
	fail    map[string]error
	models  map[string]unit
	reloads int
	watched map[string][]chan struct{}
}

// A unit is the model of a unit: what happens when it is started and stopped.
type unit struct{ start, stop func() error }

// Model makes a unit do something when it starts and when it stops.
func (u *Units) Model(name string, start, stop func() error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.models[name] = unit{start, stop}
}

// Fail makes starting unit fail with err; nil ends that.
func (u *Units) Fail(unit string, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.fail[unit] = err
}

// Reloads returns how often the manager was told to read unit files again.
func (u *Units) Reloads() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.reloads
}

// Start implements sys.Units.
func (u *Units) Start(_ context.Context, unit string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	err := u.fail[unit]
	if m := u.models[unit]; err == nil && m.start != nil && u.states[unit] != "active" {
		err = m.start()
	}
	if err != nil {
		u.become(unit, "failed")
		return err
	}
	u.become(unit, "active")
	return nil
}

// Restart implements sys.Units.
func (u *Units) Restart(ctx context.Context, unit string) error {
	if err := u.Stop(ctx, unit); err != nil {
		return err
	}
	return u.Start(ctx, unit)
}

// Queue implements sys.Units.
func (u *Units) Queue(ctx context.Context, unit string) error { return u.Start(ctx, unit) }

// Stop implements sys.Units.
func (u *Units) Stop(_ context.Context, unit string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	m, was := u.models[unit], u.states[unit]
	u.become(unit, "inactive")
	if m.stop != nil && was == "active" {
		return m.stop()
	}
	return nil
}

// Reload implements sys.Units.
func (u *Units) Reload(context.Context) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.reloads++
	return nil
}

// State implements sys.Units.
func (u *Units) State(_ context.Context, unit string) (string, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if s, ok := u.states[unit]; ok {
		return s, nil
	}
	return "inactive", nil
}

// List implements sys.Units: those whose state was ever set.
func (u *Units) List(context.Context) ([]sys.Unit, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	units := []sys.Unit{}
	for _, name := range slices.Sorted(maps.Keys(u.states)) {
		units = append(units, sys.Unit{Name: name, Active: u.states[name], Sub: u.states[name]})
	}
	return units, nil
}

// Mounts is a sys.Mounter that only keeps a table.
type Mounts struct {
	files sys.Dir
	mu    sync.Mutex
	table []string
}

// Table returns the mounts in force, as "source target fstype options" lines.
func (m *Mounts) Table() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.table)
}

// Mount implements sys.Mounter. The target must be a directory of the tree, or be
// a file as the source is.
func (m *Mounts) Mount(source, target, fstype string, options ...string) error {
	onto, err := m.files.Stat(target)
	if err != nil {
		return fmt.Errorf("mounting %s on %s: %w", source, target, err)
	}
	if from, err := m.files.Stat(source); !onto.IsDir() && (err != nil || from.IsDir()) {
		return fmt.Errorf("mounting %s on %s: the target is no directory", source, target)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.table = append(m.table, strings.TrimSpace(strings.Join([]string{source, target, fstype, strings.Join(options, ",")}, " ")))
	return nil
}

// Unmount implements sys.Mounter.
func (m *Mounts) Unmount(target string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := len(m.table) - 1; i >= 0; i-- {
		if strings.Fields(m.table[i])[1] == target {
			m.table = slices.Delete(m.table, i, i+1)
			return nil
		}
	}
	return fmt.Errorf("unmounting %s: not mounted", target)
}

// Usage implements sys.Mounter: every file system is 25 GiB, 20 of it free.
func (m *Mounts) Usage(string) (size, free uint64, err error) { return 25 << 30, 20 << 30, nil }

// Power is a sys.Power that only counts.
type Power struct {
	mu       sync.Mutex
	restarts int
}

// Restarts returns how often the machine was restarted at once.
func (p *Power) Restarts() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.restarts
}

// Pin implements sys.Power.
func (*Power) Pin() error { return nil }

// Restart implements sys.Power.
func (p *Power) Restart() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.restarts++
	return nil
}
