package apps_test

import (
	"context"
	"errors"
	"sync"

	"github.com/incusos/incusos/internal/sys"
)

// A cutter cuts one effect, the one numbered at.
type cutter struct {
	at    int
	power bool // and all that come after it
	mu    sync.Mutex
	count int
}

func (c *cutter) fault(string, string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.count++; c.count == c.at || c.power && c.count > c.at {
		return errors.New("cut")
	}
	return nil
}

// over reports that there were fewer effects than at.
func (c *cutter) over() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at > c.count
}

// faulty returns host, on which every effect first asks fault.
func faulty(host sys.Host, fault func(op, name string) error) sys.Host {
	host.Files = host.Files.WithFault(fault)
	host.Exec = faultyRunner{host.Exec, fault}
	host.Units = faultyUnits{host.Units, fault}
	return host
}

type faultyRunner struct {
	sys.Runner
	fault func(op, name string) error
}

func (f faultyRunner) Run(ctx context.Context, c sys.Cmd) ([]byte, error) {
	if err := f.fault("run", c.Name); err != nil {
		return nil, err
	}
	return f.Runner.Run(ctx, c)
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

func (f faultyUnits) Reload(ctx context.Context) error {
	if err := f.fault("reload", ""); err != nil {
		return err
	}
	return f.Units.Reload(ctx)
}

// full is file systems on which there is no room.
type full struct{ sys.Mounter }

func (full) Usage(string) (size, free uint64, err error) { return 4 << 30, 1 << 20, nil }
