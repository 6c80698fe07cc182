package systest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Swap in compressed memory, as zram-generator makes it: a file below /etc says
// how much, else it is half of the memory, and a file without device says none.
const (
	zramConfig = "/etc/systemd/zram-generator.conf"
	zramDir    = "/sys/block/zram0/"
	swapTable  = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
)

// zram is swap as the boot has made it.
func (t *tree) zram(memory uint64) {
	size := zramSize(t.root, memory)
	if size == 0 {
		t.write("/proc/swaps", swapTable)
		return
	}
	t.write(zramDir+"disksize", fmt.Sprintln(size))
	t.write(zramDir+"mm_stat", "  4194304  1048576  1310720        0  1310720        0        0        0        0\n")
	t.write("/proc/swaps", swapTable+swapLine(size))
}

func swapLine(size uint64) string {
	return fmt.Sprintf("/dev/zram0                              partition\t%d\t\t%d\t\t100\n", size>>10, 4096)
}

func zramSize(root string, memory uint64) uint64 {
	b, err := os.ReadFile(filepath.Join(root, zramConfig))
	if err != nil {
		return memory / 2
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "zram-size = "); ok {
			n, _ := strconv.ParseUint(strings.TrimSpace(v), 10, 44)
			return n << 20
		}
	}
	return 0
}

// startSwap is what happens when dev-zram0.swap starts.
func (k *kernel) startSwap() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	memory := uint64(k.memoryFree()) * 2 //nolint:gosec // not negative
	if zramSize(k.tree, memory) == 0 {
		return syscall.ENOENT
	}
	t := &tree{root: k.tree}
	t.zram(memory)
	return t.err
}

// stopSwap is what happens when it stops.
func (k *kernel) stopSwap() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.set("/proc/swaps", strings.TrimSpace(swapTable))
}

// resetSwap frees the device.
func (k *kernel) resetSwap() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	t := &tree{root: k.tree}
	t.write(zramDir+"disksize", "0\n")
	t.write(zramDir+"mm_stat", "0 0 0 0 0 0 0 0 0\n")
	return t.err
}
