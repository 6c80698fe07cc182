package service_test

import (
	"context"

	"github.com/incusos/incusos/internal/sys"
)

// faulty asks fault before anything is changed by a program or a unit.
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
