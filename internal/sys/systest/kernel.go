package systest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/incusos/incusos/internal/sys"
)

// kernelRelease names the pretend kernel and the directory of its modules.
const kernelRelease = "6.12.0-pretend"

// sysctls are what the pretend kernel starts with.
var sysctls = map[string]string{
	"kernel/osrelease":                          kernelRelease,
	"net/core/rmem_max":                         "212992",
	"net/core/wmem_max":                         "212992",
	"net/core/netdev_max_backlog":               "1000",
	"net/core/default_qdisc":                    "pfifo_fast",
	"net/ipv4/tcp_available_congestion_control": "reno cubic",
	"net/ipv4/tcp_congestion_control":           "cubic",
	"net/ipv4/tcp_mtu_probing":                  "0",
	"net/ipv4/tcp_rmem":                         "4096\t131072\t6291456",
	"net/ipv4/tcp_wmem":                         "4096\t16384\t4194304",
	"vm/nr_hugepages":                           "0",
}

// hugepage is the size of a huge page in bytes, as on x86-64.
const hugepage = 2 << 20

// kernel writes what the kernel shows of itself, and a few files of the image.
func (t *tree) kernel(m Machine) {
	t.write("/proc/meminfo", fmt.Sprintf("MemTotal:       %d kB\nMemFree:        %d kB\nMemAvailable:   %d kB\nHugepagesize:       %d kB\n",
		m.Memory>>10, m.Memory>>11, m.Memory>>11, hugepage>>10))
	for name, value := range sysctls {
		t.write("/proc/sys/"+name, value+"\n")
	}
	modules := "/usr/lib/modules/" + kernelRelease
	t.write(modules+"/modules.dep", "kernel/net/sched/sch_fq.ko.xz:\nkernel/net/ipv4/tcp_bbr.ko.xz:\nkernel/drivers/vfio/pci/vfio-pci.ko.xz:\n")
	t.write("/sys/devices/system/cpu/online", "0-1\n")
	for _, policy := range []string{"policy0", "policy1"} {
		dir := "/sys/devices/system/cpu/cpufreq/" + policy
		t.write(dir+"/scaling_available_governors", "performance powersave\n")
		t.write(dir+"/scaling_governor", "powersave\n")
	}
	t.write("/sys/module/tcp_cubic/version", "2.3\n") // built in
	t.write("/usr/share/zoneinfo/UTC", "TZif2")
	t.write("/usr/share/zoneinfo/Europe/Paris", "TZif2")
	t.write("/usr/lib/systemd/system/systemd-netlogd.service", "[Service]\nExecStart=/usr/lib/systemd/systemd-netlogd\n")
	t.pci(m)
	t.zram(m.Memory)
	t.write(modules+"/modules.builtin", "kernel/net/sched/sch_fq_codel.ko\nkernel/net/ipv4/tcp_cubic.ko\n")
}

// A kernel does what the real one does when its files are written to. It keeps
// everything in these files.
type kernel struct {
	tree   string            // its root
	native map[string]string // drivers by the addresses of PCI devices

	firmware func(variable string, content []byte) error // takes EFI variables; nil: they are files
	mu       sync.Mutex
}

// programs are those that load modules, and the units that make swap.
func (k *kernel) programs(rig *Rig) {
	rig.Programs.Model("modprobe", k.modprobe)
	rig.Programs.Model("rmmod", k.rmmod)
	const setup, swap = "systemd-zram-setup@zram0.service", "dev-zram0.swap"
	states := rig.Units.states // its lock is held whenever a model runs
	rig.Units.Model(setup, nil, k.resetSwap)
	rig.Units.Model(swap, func() error { states[setup] = "active"; return k.startSwap() }, k.stopSwap)
	if strings.Contains(k.get("/proc/swaps"), "zram0") {
		states[setup], states[swap] = "active", "active"
	}
}

// modprobe loads modules, and all the ones that are not there either: what a
// pretend machine is asked for, it has.
func (k *kernel) modprobe(_ context.Context, c sys.Cmd) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	t := &tree{root: k.tree}
	for _, name := range c.Args {
		if strings.HasPrefix(name, "-") {
			continue
		}
		dir := "/sys/module/" + strings.ReplaceAll(name, "-", "_")
		t.write(dir+"/initstate", "live\n")
		t.keep(dir+"/refcnt", "0\n")
		if name == "zfs" {
			t.keep(dir+"/parameters/zfs_arc_max", k.option("zfs_arc_max")+"\n")
		}
	}
	return nil, t.err
}

// option returns what modprobe.d says of a module's parameter, "0" for nothing.
func (k *kernel) option(parameter string) string {
	files, _ := filepath.Glob(filepath.Join(k.tree, "/etc/modprobe.d/*.conf"))
	for _, file := range files {
		b, _ := os.ReadFile(file)
		for word := range strings.FieldsSeq(string(b)) {
			if value, ok := strings.CutPrefix(word, parameter+"="); ok {
				return value
			}
		}
	}
	return "0"
}

func (k *kernel) rmmod(_ context.Context, c sys.Cmd) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	dir := "/sys/module/" + c.Args[0]
	if users := k.get(dir + "/refcnt"); users != "0" {
		return nil, &sys.ExecError{Name: "rmmod", Code: 1, Stderr: "rmmod: ERROR: Module " + c.Args[0] + " is in use"}
	}
	return nil, os.RemoveAll(filepath.Join(k.tree, dir))
}

// put answers a write to one of the kernel's files.
func (k *kernel) put(name string, data []byte) (done bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	value := strings.TrimSpace(string(data))
	switch {
	case strings.HasPrefix(name, efivarDir) && k.firmware != nil:
		return true, k.firmware(strings.TrimPrefix(name, efivarDir), data)
	case strings.HasPrefix(name, "/proc/sys/"):
		return true, k.sysctl(strings.TrimPrefix(name, "/proc/sys/"), value)
	case strings.HasSuffix(name, "/scaling_governor"):
		if !slices.Contains(strings.Fields(k.get(filepath.Dir(name)+"/scaling_available_governors")), value) {
			return true, syscall.EINVAL
		}
		return true, k.set(name, value)
	case strings.HasPrefix(name, "/sys/bus/pci/"):
		return true, k.putPCI(name, value)
	case strings.HasPrefix(name, "/sys/module/") && filepath.Base(filepath.Dir(name)) == "parameters":
		return true, k.set(name, value)
	}
	return false, nil
}

func (k *kernel) sysctl(name, value string) error {
	switch name {
	case "net/ipv4/tcp_congestion_control":
		return k.congestion(value)
	case "net/core/default_qdisc":
		if !slices.Contains([]string{"pfifo_fast", "fq", "fq_codel"}, value) {
			return syscall.ENOENT
		}
	case "vm/nr_hugepages":
		pages, err := strconv.Atoi(value)
		if err != nil || pages < 0 {
			return syscall.EINVAL
		}
		value = strconv.Itoa(min(pages, k.memoryFree()/hugepage))
	}
	return k.set("/proc/sys/"+name, strings.Join(strings.Fields(value), "\t"))
}

// congestion loads the module that it has, as the kernel does by itself.
func (k *kernel) congestion(name string) error {
	const available = "/proc/sys/net/ipv4/tcp_available_congestion_control"
	known := strings.Fields(k.get(available))
	if !slices.Contains(append(known, "bbr"), name) {
		return syscall.ENOENT
	}
	if !slices.Contains(known, name) {
		if err := k.set(available, strings.Join(append(known, name), " ")); err != nil {
			return err
		}
	}
	return k.set("/proc/sys/net/ipv4/tcp_congestion_control", name)
}

func (k *kernel) memoryFree() int {
	for line := range strings.Lines(k.get("/proc/meminfo")) {
		if f := strings.Fields(line); f[0] == "MemAvailable:" {
			n, _ := strconv.Atoi(f[1])
			return n << 10
		}
	}
	return 0
}

// get returns what a file says, "" if it is not there.
func (k *kernel) get(name string) string {
	b, err := os.ReadFile(filepath.Join(k.tree, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// set gives a file that is there a value.
func (k *kernel) set(name, value string) error {
	p := filepath.Join(k.tree, name)
	if _, err := os.Stat(p); errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.WriteFile(p, []byte(value+"\n"), 0o644)
}
