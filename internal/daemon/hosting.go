package daemon

import (
	"context"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/change"
	"github.com/incusos/incusos/internal/console"
	"github.com/incusos/incusos/internal/host"
	"github.com/incusos/incusos/internal/sys"
)

// kernelResource returns the kernel's settings as a resource and an area.
func kernelResource(m sys.Host, screen *console.Console, doc document[api.SystemKernelConfig], gate *change.Gate) *managed[api.SystemKernel, api.SystemKernelConfig] {
	k := host.NewKernel(m, doc.get, screen.Also)
	return manage("system/kernel", doc, k, gate, func(_ context.Context, config api.SystemKernelConfig) (api.SystemKernel, error) {
		state, err := k.State()
		return api.SystemKernel{Config: config, State: state}, err
	})
}

// loggingResource returns where the log goes as a resource and an area.
func loggingResource(m sys.Host, doc document[api.SystemLoggingConfig], gate *change.Gate) *managed[api.SystemLogging, api.SystemLoggingConfig] {
	l := host.NewLog(m)
	return manage("system/logging", doc, l, gate, func(ctx context.Context, config api.SystemLoggingConfig) (api.SystemLogging, error) {
		state, err := l.State(ctx, config)
		return api.SystemLogging{Config: config, State: state}, err
	})
}
