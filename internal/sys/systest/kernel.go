package systest

import (
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

// kernel writes what the kernel shows of itself.
func (t *tree) kernel(m Machine) {
	t.write("/proc/meminfo", fmt.Sprintf("MemTotal:       %d kB\nMemFree:        %d kB\nMemAvailable:   %d kB\nHugepagesize:       %d kB\n",
		m.Memory>>10, m.Memory>>11, m.Memory>>11, hugepage>>10))
	for name, value := range sysctls {
		t.write("/proc/sys/"+name, value+"\n")
	}
	modules := "/usr/lib/modules/" + kernelRelease
	t.write(modules+"/modules.dep", "kernel/net/sched/sch_fq.ko.xz:\nkernel/net/ipv4/tcp_bbr.ko.xz:\nkernel/drivers/vfio/pci/vfio-pci.ko.xz:\n")
	t.write(modules+"/modules.builtin", "kernel/net/sched/sch_fq_codel.ko\nkernel/net/ipv4/tcp_cubic.ko\n")
}

// A kernel does what the real one does when its files are written to. It keeps
// everything in these files.
type kernel struct {
	tree string // its root

	mu sync.Mutex
}

// put answers a write to one of the kernel's files.
func (k *kernel) put(name string, data []byte) (done bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	value := strings.TrimSpace(string(data))
	switch {
	case strings.HasPrefix(name, "/proc/sys/"):
		return true, k.sysctl(strings.TrimPrefix(name, "/proc/sys/"), value)
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
