package host

import (
	"context"
	"errors"
	"reflect"
	"sync"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys"
)

// A Kernel brings what can be set of the kernel to an api.SystemKernelConfig.
// Values are set at once; what the kernel reads only when a module is loaded or
// early in a boot is left for it in files. A setting that is left out is what
// it was before it was first changed.
type Kernel struct {
	host  sys.Host
	saved func() api.SystemKernelConfig
	show  func(devices []string)

	mu    sync.Mutex
	shown []string // what show was told last
}

// NewKernel returns the kernel of host. Saved returns the configuration that was
// saved last. Show is told which serial ports should show how the machine is.
func NewKernel(host sys.Host, saved func() api.SystemKernelConfig, show func(devices []string)) *Kernel {
	return &Kernel{host: host, saved: saved, show: show}
}

// Name is the area's name in health reports.
func (*Kernel) Name() string { return "kernel" }

// A part looks after some of the configuration: it says which steps are missing,
// or as an api.FieldError what this machine cannot do.
type part func(api.SystemKernelConfig) ([]step, error)

// parts are all there are, in the order in which they are brought about.
func (k *Kernel) parts() []part {
	return []part{k.modules, k.sysctl, k.zramSwap, k.governor, k.arc, k.sriov, k.passthrough, k.consoles}
}

// Plan says what Apply would do. What this machine cannot do is an error.
func (k *Kernel) Plan(_ context.Context, cfg api.SystemKernelConfig) (api.Plan, error) {
	steps, err := k.steps(cfg)
	return planOf(steps), err
}

func (k *Kernel) steps(cfg api.SystemKernelConfig) ([]step, error) {
	var all []step
	for _, p := range k.parts() {
		steps, err := p(cfg)
		if err != nil {
			return nil, err
		}
		all = append(all, steps...)
	}
	return all, nil
}

// Apply makes the kernel match cfg. A new configuration that this machine cannot
// follow is refused before anything is changed. One that is saved, and which it
// cannot follow any more since a device was taken out, is followed as far as it
// can be.
func (k *Kernel) Apply(ctx context.Context, cfg api.SystemKernelConfig) error {
	if !reflect.DeepEqual(cfg, k.saved()) {
		if _, err := k.steps(cfg); err != nil {
			return err
		}
	}
	var errs []error
	for _, p := range k.parts() {
		steps, err := p(cfg)
		if err == nil {
			err = take(ctx, steps)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
