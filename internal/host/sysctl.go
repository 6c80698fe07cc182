package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys"
)

// sysctlFile keeps the values if systemd-sysctl runs again, as it does for
// network devices that appear. It is made anew in each boot: were it there from
// the start, nobody could tell what the kernel's own values are.
const sysctlFile = "/run/sysctl.d/20-incus-os.conf"

const (
	sysctlDir  = "/proc/sys/"
	hugepages  = sysctlDir + "vm/nr_hugepages"
	osRevision = sysctlDir + "kernel/osrelease"
	meminfo    = "/proc/meminfo"
)

// sysctl looks after what sysctl(8) can set.
func (k *Kernel) sysctl(cfg api.SystemKernelConfig) ([]step, error) {
	was, err := originals(k.host.Files)
	if err != nil {
		return nil, err
	}
	settings, err := k.sysctlSettings(cfg, was)
	if err != nil {
		return nil, err
	}
	var lines []string
	var steps []step
	for _, s := range settings {
		if s.value != "" {
			lines = append(lines, s.name+" = "+s.value+"\n")
		}
		change, err := s.change(k.host.Files, was)
		if err != nil {
			return nil, err
		}
		steps = append(steps, change...)
	}
	file, err := fileStep(k.host.Files, sysctlFile, strings.Join(lines, ""))
	return append(file, steps...), err
}

// sysctlSettings returns all settings there can be; those that are not wanted
// have no value.
func (k *Kernel) sysctlSettings(cfg api.SystemKernelConfig, was map[string]string) ([]setting, error) {
	var n api.KernelNetwork
	if cfg.Network != nil {
		n = *cfg.Network
	}
	pages, err := k.hugepages(cfg.Memory)
	if err != nil {
		return nil, err
	}
	if err := k.canQueue(n.QueuingDiscipline); err != nil {
		return nil, err
	}
	if err := k.canControl(n.TCPCongestionAlgorithm); err != nil {
		return nil, err
	}
	settings := []setting{
		pages,
		sysctlSetting("net.core.rmem_max", number(n.BufferSize)),
		sysctlSetting("net.core.wmem_max", number(n.BufferSize)),
		sysctlSetting("net.core.netdev_max_backlog", number(n.NetdevMaxBacklog)),
		sysctlSetting("net.core.default_qdisc", n.QueuingDiscipline),
		sysctlSetting("net.ipv4.tcp_congestion_control", n.TCPCongestionAlgorithm),
		sysctlSetting("net.ipv4.tcp_mtu_probing", flag(n.TCPMTUProbing)),
	}
	for _, name := range []string{"net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"} {
		s := sysctlSetting(name, "")
		if n.BufferSize > 0 {
			if s.value, err = k.buffers(s.file, n.BufferSize, was); err != nil {
				return nil, err
			}
		}
		settings = append(settings, s)
	}
	return settings, nil
}

func sysctlSetting(name, value string) setting {
	return setting{name: name, file: sysctlDir + strings.ReplaceAll(name, ".", "/"), value: value}
}

// number returns n as the kernel takes it, "" if it was left out.
func number(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

func flag(on bool) string {
	if on {
		return "1"
	}
	return ""
}

// buffers returns the three sizes of a TCP buffer (kernel documentation,
// networking/ip-sysctl): the least and the default as they were, the most as
// wanted.
func (k *Kernel) buffers(file string, most int, was map[string]string) (string, error) {
	before, changed := was[file]
	if !changed {
		b, err := k.host.Files.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("reading the sizes of TCP buffers: %w", err)
		}
		before = fields(b)
	}
	return tcpBuffers(before, most)
}

func tcpBuffers(before string, most int) (string, error) {
	sizes := strings.Fields(before)
	if len(sizes) != 3 {
		return "", fmt.Errorf("the sizes of TCP buffers are %q; want three", before)
	}
	for i := range sizes {
		n, err := strconv.Atoi(sizes[i])
		if err != nil {
			return "", fmt.Errorf("the sizes of TCP buffers are %q: %w", before, err)
		}
		sizes[i] = strconv.Itoa(min(n, most))
	}
	sizes[2] = strconv.Itoa(most)
	return strings.Join(sizes, " "), nil
}

// hugepages returns the setting of memory that is set aside in large pages. The
// kernel takes as many as it finds and does not complain.
func (k *Kernel) hugepages(m *api.KernelMemory) (setting, error) {
	s := sysctlSetting("vm.nr_hugepages", "")
	if m == nil || m.PersistentHugepages == 0 {
		return s, nil
	}
	size, err := k.memory("Hugepagesize")
	if err != nil {
		return s, err
	}
	total, err := k.memory("MemTotal")
	if err != nil {
		return s, err
	}
	if fit := total / max(size, 1); uint64(m.PersistentHugepages) >= fit { //nolint:gosec // not negative
		return s, api.Fieldf("memory.persistent_hugepages", "%d pages of %d KiB are all the memory there is or more; want fewer than %d",
			m.PersistentHugepages, size>>10, fit)
	}
	s.value = strconv.Itoa(m.PersistentHugepages)
	s.risk = "that memory is then for nothing else"
	s.put = func(_ context.Context, value string) error { return k.setAside(value) }
	return s, nil
}

func (k *Kernel) setAside(pages string) error {
	if err := k.host.Files.PutFile(hugepages, []byte(pages+"\n")); err != nil {
		return err
	}
	b, err := k.host.Files.ReadFile(hugepages)
	if err != nil {
		return err
	}
	if got := fields(b); got != pages {
		return api.Errorf(api.Conflict, "only %s of %s huge pages could be set aside, since memory is in use; restart the machine, or ask for fewer", got, pages)
	}
	return nil
}

// memory returns a line of /proc/meminfo in bytes.
func (k *Kernel) memory(key string) (uint64, error) {
	b, err := k.host.Files.ReadFile(meminfo)
	if err != nil {
		return 0, fmt.Errorf("reading how much memory there is: %w", err)
	}
	n, ok := memoryLine(string(b), key)
	if !ok {
		return 0, fmt.Errorf("%s does not say %s", meminfo, key)
	}
	return n, nil
}

// memoryLine returns the bytes that one line of /proc/meminfo says in KiB.
func memoryLine(text, key string) (uint64, bool) {
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, ":")
		if name != key {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 54)
		return n << 10, err == nil
	}
	return 0, false
}

// canQueue refuses a queuing discipline that this kernel does not have.
func (k *Kernel) canQueue(name string) error {
	builtIn := []string{"", "pfifo", "bfifo", "pfifo_fast"}
	if slices.Contains(builtIn, name) || k.hasModule("sch_"+name) {
		return nil
	}
	return api.Fieldf("network.queuing_discipline", "%q is not in this kernel; want one such as %q or %q", name, "fq", "fq_codel")
}

// canControl refuses a congestion algorithm that this kernel does not have. The
// kernel loads one that is a module by itself.
func (k *Kernel) canControl(name string) error {
	b, err := k.host.Files.ReadFile(sysctlDir + "net/ipv4/tcp_available_congestion_control")
	if err != nil && name != "" {
		return fmt.Errorf("reading which congestion algorithms there are: %w", err)
	}
	available := strings.Fields(string(b))
	if name == "" || slices.Contains(available, name) || k.hasModule("tcp_"+name) {
		return nil
	}
	return api.Fieldf("network.tcp_congestion_algorithm", "%q is not in this kernel; want %s, or another that it has a module of",
		name, strings.Join(available, ", "))
}

// hasModule reports whether the running kernel has a module, built in or not.
func (k *Kernel) hasModule(name string) bool {
	revision, err := k.host.Files.ReadFile(osRevision)
	if err != nil {
		return false
	}
	dir := path.Join("/usr/lib/modules", fields(revision))
	return listsModule(k.host.Files, dir+"/modules.dep", name) || listsModule(k.host.Files, dir+"/modules.builtin", name)
}

// listsModule reports whether a file of depmod(8) names a module: each line
// begins with one, such as "kernel/net/sched/sch_fq.ko.xz".
func listsModule(files sys.Dir, file, name string) bool {
	b, err := files.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	for line := range strings.Lines(string(b)) {
		whole, _, _ := strings.Cut(line, ":")
		module, _, _ := strings.Cut(path.Base(strings.TrimSpace(whole)), ".ko")
		if moduleName(module) == moduleName(name) {
			return true
		}
	}
	return false
}

// moduleName returns the name that the kernel itself knows a module by.
func moduleName(name string) string { return strings.ReplaceAll(name, "-", "_") }
