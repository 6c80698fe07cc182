package main

import (
	"context"
	"regexp"
	"strconv"
	"time"

	"github.com/incusos/incusos/internal/vm"
)

// sampleTime is the resolution of what is seen on the processors. To look takes
// QEMU about a millisecond.
const sampleTime = 100 * time.Millisecond

var (
	instruction = regexp.MustCompile(`RIP=([0-9a-f]{16})`)
	privilege   = regexp.MustCompile(`CPL=(\d)`)
)

// watch asks QEMU where the processors are, because a quiet kernel prints
// nothing: firmware and loaders run in the lower half of the addresses, the
// kernel in the upper one, and nothing but programs at privilege level 3. The
// function it returns ends the watch and says when the kernel and the first
// program were first seen; 0 is never.
func watch(ctx context.Context, r *vm.Running) (end func() (kernel, program time.Duration)) {
	ctx, cancel := context.WithCancel(ctx)
	over := make(chan struct{})
	var kernel, program time.Duration
	go func() {
		defer close(over)
		for tick := time.Tick(sampleTime); program == 0; {
			select {
			case <-tick:
			case <-ctx.Done():
				return
			}
			var registers string
			err := r.Monitor.Execute(ctx, "human-monitor-command", map[string]string{"command-line": "info registers -a"}, &registers)
			if err != nil {
				return // it has ended, or has other registers
			}
			inKernel, inProgram := where(registers)
			if kernel == 0 && inKernel {
				kernel = r.Console.Elapsed()
			}
			if kernel != 0 && inProgram {
				program = r.Console.Elapsed()
			}
		}
	}()
	return func() (time.Duration, time.Duration) {
		cancel()
		<-over
		return kernel, program
	}
}

// where reports whether any processor runs the kernel, and any a program.
func where(registers string) (kernel, program bool) {
	for _, at := range instruction.FindAllStringSubmatch(registers, -1) {
		address, err := strconv.ParseUint(at[1], 16, 64)
		kernel = kernel || err == nil && address>>63 == 1
	}
	for _, level := range privilege.FindAllStringSubmatch(registers, -1) {
		program = program || level[1] == "3"
	}
	return kernel, program
}
