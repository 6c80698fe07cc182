package daemon_test

import (
	"testing"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/console"
	"github.com/incusos/incusos/internal/daemon"
)

func TestSeedBecomesWhatIsSavedOnce(t *testing.T) {
	rig := machine(t)
	wire := func(governor, server string) daemon.Options {
		c := console.New(rig.Host.Files)
		t.Cleanup(c.Close)
		return daemon.Wire(rig.Host, c, func() (daemon.First, error) {
			return daemon.First{
				Kernel:  &api.SystemKernelConfig{CPU: &api.KernelCPU{ScalingGovernor: governor}},
				Logging: &api.SystemLoggingConfig{Syslog: api.LoggingSyslog{Address: server}},
			}, nil
		})
	}
	wire("performance", "192.0.2.14:514")
	o := wire("powersave", "192.0.2.99:514") // the next start
	kernel, err := o.Machine.Kernel.Config()
	if err != nil || kernel.CPU == nil || kernel.CPU.ScalingGovernor != "performance" {
		t.Errorf("kernel is %+v, %v; want what the seed said first", kernel, err)
	}
	logging, err := o.Machine.Logging.Config()
	if err != nil || logging.Syslog.Address != "192.0.2.14:514" {
		t.Errorf("logging is %+v, %v; want what the seed said first", logging, err)
	}
	for _, a := range o.Areas {
		if name := a.Name(); name == "kernel" || name == "logging" {
			if err := a.Reconcile(t.Context()); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if state, err := rig.Host.Units.State(t.Context(), "systemd-netlogd.service"); err != nil || state != "active" {
		t.Errorf("the log is not sent: %q, %v", state, err)
	}
}
