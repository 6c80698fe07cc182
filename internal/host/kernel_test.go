package host_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/host"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/sys/systest"
)

// tuned sets everything that can be set on the pretend machine.
func tuned() api.SystemKernelConfig {
	return api.SystemKernelConfig{
		Memory: &api.KernelMemory{PersistentHugepages: 64},
		Network: &api.KernelNetwork{
			BufferSize: 16 << 20, NetdevMaxBacklog: 5000, QueuingDiscipline: "fq",
			TCPCongestionAlgorithm: "bbr", TCPMTUProbing: true,
		},
	}
}

// watched are the values that tuned changes, by what they are named below /proc
// and /sys.
func watched(t *testing.T, files sys.Dir) map[string]string {
	t.Helper()
	values := make(map[string]string)
	for _, name := range []string{
		"/proc/sys/net/core/rmem_max", "/proc/sys/net/core/wmem_max", "/proc/sys/net/core/netdev_max_backlog",
		"/proc/sys/net/core/default_qdisc", "/proc/sys/net/ipv4/tcp_congestion_control", "/proc/sys/net/ipv4/tcp_mtu_probing",
		"/proc/sys/net/ipv4/tcp_rmem", "/proc/sys/net/ipv4/tcp_wmem", "/proc/sys/vm/nr_hugepages",
	} {
		b, err := files.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		values[name] = strings.Join(strings.Fields(string(b)), " ")
	}
	return values
}

func TestKernelValuesAreSetAndPutBack(t *testing.T) {
	m := systest.New(t, systest.Sensible()).Host
	k := newKernel(m)
	before := watched(t, m.Files)
	applyKernel(t, k, tuned())
	want := map[string]string{
		"/proc/sys/net/core/rmem_max": "16777216", "/proc/sys/net/core/wmem_max": "16777216",
		"/proc/sys/net/core/netdev_max_backlog": "5000", "/proc/sys/net/core/default_qdisc": "fq",
		"/proc/sys/net/ipv4/tcp_congestion_control": "bbr", "/proc/sys/net/ipv4/tcp_mtu_probing": "1",
		"/proc/sys/net/ipv4/tcp_rmem": "4096 131072 16777216", "/proc/sys/net/ipv4/tcp_wmem": "4096 16384 16777216",
		"/proc/sys/vm/nr_hugepages": "64",
	}
	if diff := cmp.Diff(want, watched(t, m.Files)); diff != "" {
		t.Errorf("values (-want +got):\n%s", diff)
	}
	expectNoSteps(t, k, tuned())

	applyKernel(t, newKernel(m), api.SystemKernelConfig{}) // another daemon in the same boot
	if diff := cmp.Diff(before, watched(t, m.Files)); diff != "" {
		t.Errorf("values after the settings went away (-want +got):\n%s", diff)
	}
	if m.Files.Exists("/run/sysctl.d/20-incus-os.conf") {
		t.Error("the file for sysctl is still there")
	}
}

// Each effect fails once; applying again finishes the work.
func TestKernelConvergesAfterAnyFailure(t *testing.T) {
	for failing := 1; ; failing++ {
		m := systest.New(t, systest.Sensible()).Host
		effects := 0
		faulty := m
		faulty.Files = m.Files.WithFault(func(string, string) error {
			if effects++; effects == failing {
				return errors.New("cut")
			}
			return nil
		})
		k := newKernel(faulty)
		err := k.Apply(t.Context(), tuned())
		if effects < failing {
			if err != nil || failing < 10 {
				t.Fatalf("after %d effects: %v", effects, err)
			}
			return
		}
		if err == nil {
			t.Errorf("effect %d fails and Apply does not", failing)
		}
		applyKernel(t, k, tuned())
		expectNoSteps(t, k, tuned())
	}
}

func TestWhatThisMachineCannotDoIsRefusedBeforeAnythingChanges(t *testing.T) {
	tests := map[string]struct {
		cfg  api.SystemKernelConfig
		want string
	}{
		"algorithm":  {api.SystemKernelConfig{Network: &api.KernelNetwork{TCPCongestionAlgorithm: "vegas"}}, `network.tcp_congestion_algorithm: "vegas" is not in this kernel; want reno, cubic, or another`},
		"discipline": {api.SystemKernelConfig{Network: &api.KernelNetwork{QueuingDiscipline: "tbf"}}, `network.queuing_discipline: "tbf" is not in this kernel`},
		"memory":     {api.SystemKernelConfig{Memory: &api.KernelMemory{PersistentHugepages: 2048}}, `memory.persistent_hugepages: 2048 pages of 2048 KiB are all the memory`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m := systest.New(t, systest.Sensible()).Host
			m.Files = m.Files.WithFault(func(op, name string) error { return fmt.Errorf("%s %s must not happen", op, name) })
			k := newKernel(m)
			_, err := k.Plan(t.Context(), tt.cfg)
			if _, ok := errors.AsType[*api.FieldError](err); !ok || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("Plan() = %v; want %s", err, tt.want)
			}
			if again := k.Apply(t.Context(), tt.cfg); again == nil || again.Error() != err.Error() {
				t.Errorf("Apply() = %v; want %v", again, err)
			}
		})
	}
}

func newKernel(m sys.Host) *host.Kernel {
	return host.NewKernel(m, func() api.SystemKernelConfig { return api.SystemKernelConfig{} })
}

func applyKernel(t *testing.T, k *host.Kernel, cfg api.SystemKernelConfig) {
	t.Helper()
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	if err := k.Apply(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
}

func expectNoSteps(t *testing.T, k *host.Kernel, cfg api.SystemKernelConfig) {
	t.Helper()
	p, err := k.Plan(t.Context(), cfg)
	if err != nil || !p.Empty() {
		t.Errorf("plan of what is applied: %v\n%s", err, p)
	}
}
