package resources

import (
	"cmp"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"github.com/incusos/incusos/api"
)

const cpuDir = "/sys/devices/system/cpu"

// A thread is what the kernel says of one CPU.
type thread struct {
	id, node, socket, core, die uint64
	dir                         string
	info                        cpuinfo
	online, isolated            bool
}

func (m machine) cpu() api.ResourcesCPU {
	c := api.ResourcesCPU{Architecture: cmp.Or(m.text("/proc/sys/kernel/arch"), kernelArch()), Sockets: []api.ResourcesCPUSocket{}}
	threads := m.threads()
	c.Total = uint64(len(threads))
	for len(threads) > 0 {
		socket := threads[0].socket
		n := slices.IndexFunc(threads, func(t thread) bool { return t.socket != socket })
		if n < 0 {
			n = len(threads)
		}
		c.Sockets = append(c.Sockets, m.socket(threads[:n]))
		threads = threads[n:]
	}
	return c
}

// kernelArch is what the kernel calls what this program was built for.
func kernelArch() string {
	switch runtime.GOARCH {
	case "amd64":
		return "x86_64"
	case "arm64":
		return "aarch64"
	}
	return runtime.GOARCH
}

// threads returns all CPUs that are online, by socket, die and core. Those that
// are not have no place that the kernel would tell.
func (m machine) threads() []thread {
	infos := parseCPUinfo(m.text("/proc/cpuinfo"))
	online := numbers(m.text(cpuDir + "/online"))
	if len(online) == 0 {
		for id := range infos {
			online[id] = true
		}
	}
	isolated, nodes := numbers(m.text(cpuDir+"/isolated")), m.cpuNodes()
	var all []thread
	for id := range online {
		dir := fmt.Sprintf("%s/cpu%d", cpuDir, id)
		t := thread{id: id, node: nodes[id], dir: dir, info: infos[id], online: true, isolated: isolated[id]}
		if t.info == nil {
			t.info = infos[0]
		}
		t.socket = m.number(dir + "/topology/physical_package_id")
		t.die = m.number(dir + "/topology/die_id")
		if core := m.text(dir + "/topology/core_id"); core != "" {
			t.core = number(core)
		} else {
			t.core = id
		}
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b thread) int {
		return cmp.Or(cmp.Compare(a.socket, b.socket), cmp.Compare(a.die, b.die), cmp.Compare(a.core, b.core), cmp.Compare(a.id, b.id))
	})
	return all
}

// cpuNodes returns the NUMA node of each CPU.
func (m machine) cpuNodes() map[uint64]uint64 {
	out := make(map[uint64]uint64)
	for _, node := range m.nodes() {
		for id := range numbers(m.text(fmt.Sprintf("%s/node%d/cpulist", nodeDir, node))) {
			out[id] = node
		}
	}
	return out
}

func (m machine) socket(threads []thread) api.ResourcesCPUSocket {
	first := threads[0]
	s := api.ResourcesCPUSocket{
		Name:   cmp.Or(first.info["model name"], first.info["cpu model"], first.info["Processor"]),
		Vendor: cmp.Or(first.info["vendor_id"], first.info["CPU implementer"]),
		Socket: first.socket, Cache: m.caches(first.dir), Cores: []api.ResourcesCPUCore{},
		FrequencyMinimum: m.number(first.dir+"/cpufreq/cpuinfo_min_freq") / 1000, // from kHz
		FrequencyTurbo:   m.number(first.dir+"/cpufreq/cpuinfo_max_freq") / 1000,
	}
	if physical, virtual := addressSizes(first.info["address sizes"]); physical > 0 {
		s.AddressSizes = &api.ResourcesCPUAddressSizes{PhysicalBits: physical, VirtualBits: virtual}
	}
	var sum uint64
	for _, t := range threads {
		n := len(s.Cores)
		if n == 0 || s.Cores[n-1].Core != t.core || s.Cores[n-1].Die != t.die {
			core := api.ResourcesCPUCore{Core: t.core, Die: t.die, Flags: flags(t.info), Frequency: m.frequency(t)}
			s.Cores = append(s.Cores, core)
			sum += core.Frequency
			n++
		}
		c := &s.Cores[n-1]
		c.Threads = append(c.Threads, api.ResourcesCPUThread{
			ID: int64(t.id), NUMANode: t.node, Thread: uint64(len(c.Threads)), Online: t.online, Isolated: t.isolated, //nolint:gosec // at most 63 bits
		})
	}
	s.Frequency = sum / uint64(len(s.Cores))
	return s
}

// flags are called features on processors by Arm.
func flags(info cpuinfo) []string {
	return append([]string{}, strings.Fields(cmp.Or(info["flags"], info["Features"]))...)
}

func (m machine) frequency(t thread) uint64 {
	mhz, _, _ := strings.Cut(t.info["cpu MHz"], ".")
	return cmp.Or(m.number(t.dir+"/cpufreq/scaling_cur_freq")/1000, number(mhz))
}

func (m machine) caches(dir string) []api.ResourcesCPUCache {
	var out []api.ResourcesCPUCache
	for _, name := range m.list(dir + "/cache") {
		if c := dir + "/cache/" + name; strings.HasPrefix(name, "index") {
			out = append(out, api.ResourcesCPUCache{Level: m.number(c + "/level"), Type: m.text(c + "/type"), Size: sized(m.text(c + "/size"))})
		}
	}
	return out
}
