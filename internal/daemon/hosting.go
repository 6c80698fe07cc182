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
