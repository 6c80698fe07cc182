package host

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/incusos/incusos/api"
)

const zram = "/sys/block/zram0"

// State reports what the kernel makes of its settings.
func (k *Kernel) State() (api.SystemKernelState, error) {
	size, err := k.host.Files.ReadFile(zram + "/disksize")
	if errors.Is(err, fs.ErrNotExist) || fields(size) == "0" {
		return api.SystemKernelState{}, nil
	}
	if err != nil {
		return api.SystemKernelState{}, fmt.Errorf("reading the size of compressed swap: %w", err)
	}
	use, err := k.host.Files.ReadFile(zram + "/mm_stat")
	if err != nil {
		return api.SystemKernelState{}, fmt.Errorf("reading the use of compressed swap: %w", err)
	}
	swap, err := zramSwap(string(size), string(use))
	if err != nil {
		return api.SystemKernelState{}, err
	}
	return api.SystemKernelState{Memory: &api.KernelMemoryState{ZramSwap: &swap}}, nil
}

// zramSwap reads the numbers of a zram device (kernel documentation,
// admin-guide/blockdev/zram: mm_stat has original, compressed and all memory
// first, in bytes).
func zramSwap(disksize, mmStat string) (api.ZramSwap, error) {
	size, err := strconv.ParseUint(strings.TrimSpace(disksize), 10, 64)
	if err != nil {
		return api.ZramSwap{}, fmt.Errorf("reading the size of compressed swap: %w", err)
	}
	numbers := strings.Fields(mmStat)
	if len(numbers) < 3 {
		return api.ZramSwap{}, fmt.Errorf("reading the use of compressed swap: %q has fewer than three numbers", mmStat)
	}
	var n [3]uint64
	for i := range n {
		if n[i], err = strconv.ParseUint(numbers[i], 10, 64); err != nil {
			return api.ZramSwap{}, fmt.Errorf("reading the use of compressed swap: %w", err)
		}
	}
	swap := api.ZramSwap{DiskSize: size, UncompressedSize: n[0], CompressedSize: n[1], TotalMemoryUse: n[2]}
	if n[1] > 0 {
		swap.CompressionRatio = float64(n[0]) / float64(n[1])
	}
	return swap, nil
}
