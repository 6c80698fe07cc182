package host

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/incusos/incusos/api"
)

// zramFile takes the place of the image's zram-generator.conf(5). It outlives a
// boot, so that swap has its size from the start.
const zramFile = "/etc/systemd/zram-generator.conf"

const (
	zramStamp = "/run/incus-os/kernel.zram"
	zramSwapD = "dev-zram0.swap"
	zramSetup = "systemd-zram-setup@zram0.service"
	swaps     = "/proc/swaps"
)

// zramSwap looks after swap in compressed memory.
func (k *Kernel) zramSwap(cfg api.SystemKernelConfig) ([]step, error) {
	content, err := k.zramConfig(cfg.Memory)
	if err != nil {
		return nil, err
	}
	d := delivery{k.host.Files, zramFile, content, zramStamp}
	due, err := d.due()
	if err != nil || !due {
		return nil, err
	}
	if err := k.canSwapIn(); err != nil {
		return nil, err
	}
	wanted := "the default size"
	if size := sizeOf(cfg.Memory); size != "" {
		wanted = size
	}
	tell := func(ctx context.Context) error { return k.remakeSwap(ctx, d, wanted != "0") }
	return []step{newStep("make", "swap in compressed memory anew, "+wanted, tell).
		withRisk("what is swapped out comes back into memory first")}, nil
}

func sizeOf(m *api.KernelMemory) string {
	if m == nil {
		return ""
	}
	return m.ZramSwapSize
}

// zramConfig is the content of zramFile, "" to leave it to the image. A file
// without a device is how zram-generator is told that there is none.
func (k *Kernel) zramConfig(m *api.KernelMemory) (string, error) {
	size := sizeOf(m)
	if size == "" {
		return "", nil
	}
	bytes, err := api.ParseSize(size)
	if err != nil {
		return "", api.Fieldf("memory.zram_swap_size", "%v", err)
	}
	if bytes == 0 {
		return "# No swap in compressed memory.\n", nil
	}
	total, err := k.memory("MemTotal")
	if err != nil {
		return "", err
	}
	if bytes > 2*total { // it holds up to three times of what it takes, and no more
		return "", api.Fieldf("memory.zram_swap_size", "%q is more than twice the memory there is; want %d MiB at most", size, total>>19)
	}
	return fmt.Sprintf("[zram0]\nzram-size = %d\ncompression-algorithm = zstd\nswap-priority = 100\n", (bytes+1<<20-1)>>20), nil
}

// canSwapIn refuses to turn swap off while what it holds has no place in memory.
func (k *Kernel) canSwapIn() error {
	b, err := k.host.Files.ReadFile(swaps)
	if err != nil {
		return nil // a kernel without swap
	}
	used := swapUsed(string(b), "/dev/zram0")
	free, err := k.memory("MemAvailable")
	if err != nil {
		return err
	}
	if used > free {
		return api.Errorf(api.Conflict, "swap cannot be made anew while it holds %d MiB and only %d MiB of memory are free; stop some instances first", used>>20, free>>20)
	}
	return nil
}

// swapUsed reads from /proc/swaps how many bytes a device holds.
func swapUsed(text, device string) uint64 {
	for line := range strings.Lines(text) {
		f := strings.Fields(line) // Filename Type Size Used Priority, in KiB
		if len(f) < 4 || f[0] != device {
			continue
		}
		n, err := strconv.ParseUint(f[3], 10, 54)
		if err != nil {
			return 0 // the heading
		}
		return n << 10
	}
	return 0
}

// remakeSwap turns swap off, which brings back what it holds, writes its new
// size and turns it on again. The kernel refuses the first if memory is short,
// and then nothing has changed.
func (k *Kernel) remakeSwap(ctx context.Context, d delivery, on bool) error {
	if err := d.begin(); err != nil {
		return err
	}
	for _, unit := range []string{zramSwapD, zramSetup} {
		state, err := k.host.Units.State(ctx, unit)
		if err == nil && state != "inactive" && state != "failed" {
			err = k.host.Units.Stop(ctx, unit)
		}
		if err != nil {
			return err
		}
	}
	if err := d.write(); err != nil {
		return err
	}
	if err := k.host.Units.Reload(ctx); err != nil {
		return err
	}
	if on {
		if err := k.host.Units.Start(ctx, zramSwapD); err != nil {
			return err
		}
	}
	return d.done()
}
