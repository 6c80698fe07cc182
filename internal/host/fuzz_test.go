package host

import (
	"strings"
	"testing"
)

// What the kernel says comes in forms that grow with it.
func FuzzKernelFiles(f *testing.F) {
	f.Add("MemTotal:  4 kB\nHugepagesize: 2048 kB\n", "1048576\n", " 4096 1024 2048 0 1 2 3\n", "4096\t131072\t6291456", "/dev/zram0 partition 1 2 3\n", 1<<20)
	f.Add("", "", "", "", "", 0)
	f.Add("MemTotal: 99999999999999999999 kB", "-1", "1 2", "1 2 3 4", "/dev/zram0", -1)
	f.Fuzz(func(t *testing.T, meminfo, disksize, mmStat, sizes, swaps string, most int) {
		if n, ok := memoryLine(meminfo, "MemTotal"); ok && n%1024 != 0 {
			t.Errorf("memory of %q is %d bytes", meminfo, n)
		}
		if s, err := zramSwap(disksize, mmStat); err == nil && s.CompressionRatio < 0 {
			t.Errorf("swap of %q and %q is %+v", disksize, mmStat, s)
		}
		if out, err := tcpBuffers(sizes, most); err == nil && len(strings.Fields(out)) != 3 {
			t.Errorf("buffers of %q are %q", sizes, out)
		}
		swapUsed(swaps, "/dev/zram0")
	})
}
