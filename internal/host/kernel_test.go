package host_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/host"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/sys/systest"
)

const (
	graphics = "0000:01:00.0" // the pretend machine's 10de:1eb8
	adapter  = "0000:02:00.0" // its 8086:1572, with four virtual functions
	port     = "/dev/ttyS1"
)

// tuned sets everything that can be set on the pretend machine.
func tuned() api.SystemKernelConfig {
	return api.SystemKernelConfig{
		Console:          []api.KernelConsole{{Device: port, BaudRate: 115200}},
		BlacklistModules: []string{"idle-one"},
		CPU:              &api.KernelCPU{ScalingGovernor: "performance"},
		Memory:           &api.KernelMemory{PersistentHugepages: 64, ZramSwapSize: "1GiB"},
		Network: &api.KernelNetwork{
			BufferSize: 16 << 20, NetdevMaxBacklog: 5000, QueuingDiscipline: "fq",
			TCPCongestionAlgorithm: "bbr", TCPMTUProbing: true,
		},
		PCI: &api.KernelPCI{
			Passthrough: []api.PCIPassthrough{{VendorID: "10de", ProductID: "1eb8", PCIAddress: graphics}},
			SRIOV:       []api.PCISRIOV{{PCIAddress: adapter, VFCount: 2}},
		},
		ZFS: &api.KernelZFS{ARCMaxSize: "512MiB"},
	}
}

// whenTuned is what the machine is then.
var whenTuned = map[string]string{
	"/proc/sys/net/core/rmem_max":                              "16777216",
	"/proc/sys/net/core/wmem_max":                              "16777216",
	"/proc/sys/net/core/netdev_max_backlog":                    "5000",
	"/proc/sys/net/core/default_qdisc":                         "fq",
	"/proc/sys/net/ipv4/tcp_congestion_control":                "bbr",
	"/proc/sys/net/ipv4/tcp_mtu_probing":                       "1",
	"/proc/sys/net/ipv4/tcp_rmem":                              "4096 131072 16777216",
	"/proc/sys/net/ipv4/tcp_wmem":                              "4096 16384 16777216",
	"/proc/sys/vm/nr_hugepages":                                "64",
	"/sys/devices/system/cpu/cpufreq/policy0/scaling_governor": "performance",
	"/sys/devices/system/cpu/cpufreq/policy1/scaling_governor": "performance",
	"/sys/module/zfs/parameters/zfs_arc_max":                   "536870912",
	"/sys/module/idle_one/initstate":                           "missing",
	"/sys/bus/pci/devices/" + adapter + "/sriov_numvfs":        "2",
	"/sys/bus/pci/devices/" + graphics + "/driver":             "../../../bus/pci/drivers/vfio-pci",
	"/sys/block/zram0/disksize":                                "1073741824",
	"/etc/modprobe.d/20-incus-os.conf":                         "blacklist idle-one options zfs zfs_arc_max=536870912",
}

// watched returns what the machine is.
func watched(t *testing.T, files sys.Dir) map[string]string {
	t.Helper()
	values := make(map[string]string)
	for name := range whenTuned {
		values[name] = "missing"
		if target, err := files.Readlink(name); err == nil {
			values[name] = target
		} else if b, err := files.ReadFile(name); err == nil {
			values[name] = strings.Join(strings.Fields(string(b)), " ")
		}
	}
	return values
}

// kernelMachine is a pretend machine with ZFS, an unused module and a port.
func kernelMachine(t *testing.T) *systest.Rig {
	t.Helper()
	rig := systest.New(t, systest.Sensible())
	if _, err := rig.Host.Exec.Run(t.Context(), sys.Command("modprobe", "-a", "zfs", "idle-one")); err != nil {
		t.Fatal(err)
	}
	write(t, rig.Host.Files, port, "")
	return rig
}

func TestKernelIsSetAndPutBack(t *testing.T) {
	m := kernelMachine(t).Host
	k := newKernel(m)
	before := watched(t, m.Files)
	before["/sys/module/idle_one/initstate"] = "missing" // it comes back with a device for it
	applyKernel(t, k, tuned())
	if diff := cmp.Diff(whenTuned, watched(t, m.Files)); diff != "" {
		t.Errorf("when tuned (-want +got):\n%s", diff)
	}
	expectNoSteps(t, k, tuned())

	k = newKernel(m) // another process in the same boot
	applyKernel(t, k, api.SystemKernelConfig{})
	if diff := cmp.Diff(before, watched(t, m.Files)); diff != "" {
		t.Errorf("after the settings went away (-want +got):\n%s", diff)
	}
	if m.Files.Exists("/run/sysctl.d/20-incus-os.conf") {
		t.Error("the file for sysctl is still there")
	}
	expectNoSteps(t, k, api.SystemKernelConfig{})
}

// sections are the parts of tuned, which know nothing of each other.
func sections() map[string]api.SystemKernelConfig {
	all := tuned()
	return map[string]api.SystemKernelConfig{
		"modules": {BlacklistModules: all.BlacklistModules},
		"cpu":     {CPU: all.CPU},
		"pages":   {Memory: &api.KernelMemory{PersistentHugepages: 64}},
		"swap":    {Memory: &api.KernelMemory{ZramSwapSize: "1GiB"}},
		"no swap": {Memory: &api.KernelMemory{ZramSwapSize: "0"}},
		"network": {Network: &api.KernelNetwork{BufferSize: 16 << 20}},
		"pci":     {PCI: all.PCI},
		"zfs":     {ZFS: all.ZFS},
	}
}

// Each effect fails once, on the way there or on the way back; applying again
// finishes the work.
func TestKernelConvergesAfterAnyFailure(t *testing.T) {
	for name, cfg := range sections() {
		t.Run(name, func(t *testing.T) {
			there, back := smoothly(t, cfg)
			for failing := 1; ; failing++ {
				rig := kernelMachine(t)
				cut := &systest.Cutter{At: failing}
				k := newKernel(cut.Host(rig.Host))
				err := k.Apply(t.Context(), cfg)
				if err == nil {
					err = k.Apply(t.Context(), api.SystemKernelConfig{})
				}
				if cut.Over() {
					if err != nil || failing < 3 {
						t.Fatalf("after %d effects: %v", failing, err)
					}
					return
				}
				if err == nil {
					t.Errorf("effect %d fails and nobody says so", failing)
				}
				applyKernel(t, k, cfg)
				expectMachine(t, rig, k, cfg, there)
				applyKernel(t, k, api.SystemKernelConfig{})
				expectMachine(t, rig, k, api.SystemKernelConfig{}, back)
			}
		})
	}
}

// smoothly returns what a machine is with cfg, and when it is gone again.
func smoothly(t *testing.T, cfg api.SystemKernelConfig) (there, back map[string]string) {
	t.Helper()
	rig := kernelMachine(t)
	k := newKernel(rig.Host)
	applyKernel(t, k, cfg)
	there = watched(t, rig.Host.Files)
	applyKernel(t, k, api.SystemKernelConfig{})
	return there, watched(t, rig.Host.Files)
}

func expectMachine(t *testing.T, rig *systest.Rig, k *host.Kernel, cfg api.SystemKernelConfig, want map[string]string) {
	t.Helper()
	if diff := cmp.Diff(want, watched(t, rig.Host.Files)); diff != "" {
		t.Errorf("the machine (-want +got):\n%s", diff)
	}
	expectNoSteps(t, k, cfg)
}

func TestWhatThisMachineCannotDoIsRefusedBeforeAnythingChanges(t *testing.T) {
	tests := map[string]struct {
		cfg  api.SystemKernelConfig
		want string
	}{
		"algorithm":  {api.SystemKernelConfig{Network: &api.KernelNetwork{TCPCongestionAlgorithm: "vegas"}}, `network.tcp_congestion_algorithm: "vegas" is not in this kernel; want reno, cubic, or another`},
		"discipline": {api.SystemKernelConfig{Network: &api.KernelNetwork{QueuingDiscipline: "tbf"}}, `network.queuing_discipline: "tbf" is not in this kernel`},
		"pages":      {api.SystemKernelConfig{Memory: &api.KernelMemory{PersistentHugepages: 2048}}, `memory.persistent_hugepages: 2048 pages of 2048 KiB are all the memory`},
		"governor":   {api.SystemKernelConfig{CPU: &api.KernelCPU{ScalingGovernor: "ondemand"}}, `cpu.scaling_governor: "ondemand" is not there; this machine has performance, powersave`},
		"swap":       {api.SystemKernelConfig{Memory: &api.KernelMemory{ZramSwapSize: "1TiB"}}, `memory.zram_swap_size: "1TiB" is more than twice the memory`},
		"cache":      {api.SystemKernelConfig{ZFS: &api.KernelZFS{ARCMaxSize: "4GiB"}}, `zfs.arc_max_size: "4GiB" is all the memory there is or more; want less than 4096 MiB`},
		"built in":   {api.SystemKernelConfig{BlacklistModules: []string{"loop", "tcp-cubic"}}, `blacklist_modules[1]: "tcp-cubic" is part of this kernel`},
		"port":       {api.SystemKernelConfig{Console: []api.KernelConsole{{Device: "/dev/ttyS7"}}}, `console[0].device: "/dev/ttyS7" is not there; this machine has /dev/ttyS1`},

		"no such address":    {passing("10de", "1eb8", "0000:09:00.0"), `pci.passthrough[0].pci_address: "0000:09:00.0": there is no such PCI device`},
		"no such kind":       {passing("10de", "ffff", ""), `pci.passthrough[0]: there is no PCI device 10de:ffff`},
		"another kind":       {passing("10de", "ffff", graphics), `pci.passthrough[0]: 0000:01:00.0 is 10de:1eb8`},
		"the system's disk":  {passing("1af4", "1042", ""), `pci.passthrough[0]: 0000:00:01.0 holds the disk that the system runs from`},
		"the only card":      {passing("1af4", "1041", ""), `pci.passthrough[0]: 0000:00:03.0 is the only network card`},
		"a device to divide": {dividing("0000:09:00.0", 1), `pci.sriov[0].pci_address: "0000:09:00.0": there is no such PCI device`},
		"indivisible":        {dividing(graphics, 1), `pci.sriov[0].pci_address: "0000:01:00.0" cannot be divided`},
		"too many":           {dividing(adapter, 5), `pci.sriov[0].vf_count: 5 is more than 0000:02:00.0 can do; want 4 at most`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m := kernelMachine(t).Host
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

func passing(vendor, product, address string) api.SystemKernelConfig {
	return api.SystemKernelConfig{PCI: &api.KernelPCI{Passthrough: []api.PCIPassthrough{{VendorID: vendor, ProductID: product, PCIAddress: address}}}}
}

func dividing(address string, count int) api.SystemKernelConfig {
	return api.SystemKernelConfig{PCI: &api.KernelPCI{SRIOV: []api.PCISRIOV{{PCIAddress: address, VFCount: count}}}}
}

// A device that was taken out is no reason to leave everything else unset at the
// next start, while a change to such a configuration is refused as a whole.
func TestWhatIsSavedIsFollowedAsFarAsPossible(t *testing.T) {
	m := kernelMachine(t).Host
	cfg := tuned()
	cfg.PCI.Passthrough[0].PCIAddress = "0000:09:00.0"
	cfg.PCI.SRIOV = nil
	k := host.NewKernel(m, func() api.SystemKernelConfig { return cfg }, func([]string) {})
	if err := k.Apply(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "there is no such PCI device") {
		t.Errorf("Apply() = %v; want that the device is gone", err)
	}
	b, err := m.Files.ReadFile("/proc/sys/net/core/rmem_max")
	if err != nil || strings.TrimSpace(string(b)) != "16777216" {
		t.Errorf("buffers are %q, %v; want them set all the same", b, err)
	}
}

// Devices that Incus itself took for an instance are not given back.
func TestDevicesOfOthersStayWithThem(t *testing.T) {
	m := kernelMachine(t).Host
	k := newKernel(m)
	if _, err := m.Exec.Run(t.Context(), sys.Command("modprobe", "vfio-pci")); err != nil {
		t.Fatal(err)
	}
	const dir = "/sys/bus/pci/devices/" + graphics
	for _, w := range []struct{ file, value string }{
		{dir + "/driver_override", "vfio-pci"}, {dir + "/driver/unbind", graphics}, {"/sys/bus/pci/drivers_probe", graphics},
	} {
		if err := m.Files.PutFile(w.file, []byte(w.value)); err != nil {
			t.Fatal(err)
		}
	}
	applyKernel(t, k, passing("10de", "1eb8", ""))
	applyKernel(t, k, api.SystemKernelConfig{})
	if driver, err := m.Files.Readlink(dir + "/driver"); err != nil || !strings.HasSuffix(driver, "/vfio-pci") {
		t.Errorf("the graphics card is with %q, %v; want it where it was", driver, err)
	}
}

func TestModulesInUseStayUntilTheNextStart(t *testing.T) {
	m := kernelMachine(t).Host
	write(t, m.Files, "/sys/module/idle_one/refcnt", "2\n")
	k := newKernel(m)
	cfg := api.SystemKernelConfig{BlacklistModules: []string{"idle-one"}}
	p, err := k.Plan(t.Context(), cfg)
	if err != nil || !strings.Contains(p.String(), "write /etc/modprobe.d/20-incus-os.conf (in use until the next start: idle-one)") {
		t.Errorf("plan: %v\n%s", err, p)
	}
	applyKernel(t, k, cfg)
	expectNoSteps(t, k, cfg)
	if !m.Files.Exists("/sys/module/idle_one/initstate") {
		t.Error("the module in use was unloaded")
	}
}

func TestSwapThatDoesNotFitIntoMemoryStays(t *testing.T) {
	m := kernelMachine(t).Host
	write(t, m.Files, "/proc/swaps", "Filename Type Size Used Priority\n/dev/zram0 partition 4194304 3145728 100\n")
	cfg := api.SystemKernelConfig{Memory: &api.KernelMemory{ZramSwapSize: "0"}}
	_, err := newKernel(m).Plan(t.Context(), cfg)
	if e, ok := errors.AsType[*api.Error](err); !ok || e.Kind != api.Conflict || !strings.Contains(e.Text, "holds 3072 MiB and only 2048 MiB") {
		t.Errorf("Plan() = %v; want a conflict", err)
	}
}

func TestKernelState(t *testing.T) {
	m := kernelMachine(t).Host
	k := newKernel(m)
	want := api.SystemKernelState{Memory: &api.KernelMemoryState{ZramSwap: &api.ZramSwap{
		DiskSize: 2 << 30, UncompressedSize: 4 << 20, CompressedSize: 1 << 20, CompressionRatio: 4, TotalMemoryUse: 1310720,
	}}}
	if got, err := k.State(); err != nil || cmp.Diff(want, got) != "" {
		t.Errorf("state: %v (-want +got):\n%s", err, cmp.Diff(want, got))
	}
	applyKernel(t, k, api.SystemKernelConfig{Memory: &api.KernelMemory{ZramSwapSize: "0"}})
	if got, err := k.State(); err != nil || got.Memory != nil {
		t.Errorf("state without swap: %+v, %v; want nothing", got, err)
	}
}

func newKernel(m sys.Host) *host.Kernel {
	return host.NewKernel(m, func() api.SystemKernelConfig { return api.SystemKernelConfig{} }, func([]string) {})
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

func TestSerialPortsGetTheirSpeed(t *testing.T) {
	m := kernelMachine(t).Host
	terminal := pseudoTerminal(t)
	if err := errors.Join(m.Files.Remove(port), m.Files.Symlink(terminal, port), sys.SetSpeed(sys.NewDir("/"), terminal, 9600)); err != nil {
		t.Fatal(err)
	}
	var shown []string
	k := host.NewKernel(m, func() api.SystemKernelConfig { return api.SystemKernelConfig{} }, func(devices []string) { shown = devices })
	cfg := api.SystemKernelConfig{Console: []api.KernelConsole{{Device: port, BaudRate: 115200}}}
	expect := func(bits int, devices ...string) {
		t.Helper()
		if got, err := sys.Speed(m.Files, port); err != nil || got != bits || !slices.Equal(shown, devices) {
			t.Errorf("speed %d, %v, shown on %q; want %d and %q", got, err, shown, bits, devices)
		}
	}
	applyKernel(t, k, cfg)
	expect(115200, port)
	expectNoSteps(t, k, cfg)
	cfg.Console[0].BaudRate = 0 // as it was
	applyKernel(t, k, cfg)
	expect(9600, port)
	applyKernel(t, k, tuned())
	applyKernel(t, k, api.SystemKernelConfig{})
	expect(9600)
}

// pseudoTerminal returns the name of a terminal that nobody else uses.
func pseudoTerminal(t *testing.T) string {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudoterminals: %v", err)
	}
	t.Cleanup(func() { person.Close() })
	number, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err := errors.Join(err, unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0)); err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("/dev/pts/%d", number)
	keep, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0) // its mode goes with whoever has it open
	if err != nil {
		t.Skipf("no pseudoterminals: %v", err)
	}
	t.Cleanup(func() { keep.Close() })
	return name
}

// Only the kernel knows every value that it takes.
func TestAValueThatTheKernelRefusesIsTheOperatorsToMend(t *testing.T) {
	rig := systest.New(t, systest.Sensible())
	m := rig.Host
	m.Files = m.Files.WithFault(func(_, name string) error {
		if strings.HasPrefix(name, "/proc/sys/net") {
			return &os.PathError{Op: "write", Path: name, Err: unix.EINVAL}
		}
		return nil
	})
	k := host.NewKernel(m, func() (c api.SystemKernelConfig) { return c }, func([]string) {})
	err := k.Apply(t.Context(), api.SystemKernelConfig{Network: &api.KernelNetwork{NetdevMaxBacklog: 7}})
	if e, ok := errors.AsType[*api.Error](err); !ok || e.Kind != api.Invalid || !strings.Contains(err.Error(), "netdev_max_backlog") {
		t.Errorf("Apply() = %v, want it to say that the kernel does not take the value", err)
	}
}
