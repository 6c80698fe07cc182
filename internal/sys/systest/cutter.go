package systest

import (
	"context"
	"errors"
	"sync"

	"github.com/incusos/incusos/internal/sys"
)

// ErrCut is what an effect fails with that was cut.
var ErrCut = errors.New("cut")

// A Cutter cuts effects on a machine short: writes, programs that are run, units
// that are started and so on, mounts. Tests count At up until Over.
type Cutter struct {
	At    int  // the number of the effect that is cut, from 1; 0 none
	Power bool // all that come after it are cut too, as if the power had failed
	Late  bool // a program that is cut at At has done its work

	mu    sync.Mutex
	count int
}

// Host returns host, on which c cuts.
func (c *Cutter) Host(host sys.Host) sys.Host { return faulty(host, c, c.Fault) }

// Faulty returns host, on which every effect first asks fault.
func Faulty(host sys.Host, fault func(op, name string) error) sys.Host {
	return faulty(host, nil, fault)
}

func faulty(host sys.Host, c *Cutter, fault func(op, name string) error) sys.Host {
	host.Files = host.Files.WithFault(fault)
	host.Exec = faultyRunner{host.Exec, c, fault}
	host.Units = faultyUnits{host.Units, fault}
	host.Mounts = faultyMounts{host.Mounts, fault}
	host.Links = faultyLinks{host.Links, fault}
	return host
}

// Fault counts an effect, and cuts it if its turn has come.
func (c *Cutter) Fault(string, string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count++
	if c.count == c.At || c.Power && c.At > 0 && c.count > c.At {
		return ErrCut
	}
	return nil
}

// Over reports that there were fewer effects than At.
func (c *Cutter) Over() bool { return c.At > c.Count() }

// Count returns how many effects there were.
func (c *Cutter) Count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count
}

type faultyRunner struct {
	sys.Runner
	cutter *Cutter // nil: none that may be late
	fault  func(op, name string) error
}

func (f faultyRunner) Run(ctx context.Context, c sys.Cmd) ([]byte, error) {
	err := f.fault("run", c.Name)
	if err == nil {
		return f.Runner.Run(ctx, c)
	}
	if f.cutter == nil || !f.cutter.Late || f.cutter.Count() > f.cutter.At {
		return nil, err
	}
	out, _ := f.Runner.Run(ctx, c) // it did what it could
	return out, err
}

type faultyUnits struct {
	sys.Units
	fault func(op, name string) error
}

func (f faultyUnits) Start(ctx context.Context, unit string) error {
	if err := f.fault("start", unit); err != nil {
		return err
	}
	return f.Units.Start(ctx, unit)
}

func (f faultyUnits) Stop(ctx context.Context, unit string) error {
	if err := f.fault("stop", unit); err != nil {
		return err
	}
	return f.Units.Stop(ctx, unit)
}

func (f faultyUnits) Restart(ctx context.Context, unit string) error {
	if err := f.fault("restart", unit); err != nil {
		return err
	}
	return f.Units.Restart(ctx, unit)
}

func (f faultyUnits) Reload(ctx context.Context) error {
	if err := f.fault("reload", ""); err != nil {
		return err
	}
	return f.Units.Reload(ctx)
}

type faultyMounts struct {
	sys.Mounter
	fault func(op, name string) error
}

func (f faultyMounts) Mount(source, target, fstype string, options ...string) error {
	if err := f.fault("mount", target); err != nil {
		return err
	}
	return f.Mounter.Mount(source, target, fstype, options...)
}

type faultyLinks struct {
	sys.Links
	fault func(op, name string) error
}

func (f faultyLinks) Rename(name, to string) error {
	if err := f.fault("rename", name); err != nil {
		return err
	}
	return f.Links.Rename(name, to)
}

func (f faultyLinks) SetHwaddr(name, hwaddr string) error {
	if err := f.fault("set", name); err != nil {
		return err
	}
	return f.Links.SetHwaddr(name, hwaddr)
}

func (f faultyLinks) Delete(name string) error {
	if err := f.fault("delete", name); err != nil {
		return err
	}
	return f.Links.Delete(name)
}
