package network_test

import (
	"context"

	"github.com/incusos/incusos/internal/sys"
)

// faultyRunner asks fault before it runs a program.
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
