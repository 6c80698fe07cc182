package debug

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"slices"
	"strings"

	"github.com/incusos/incusos/api"
)

// Kernel describes the running kernel.
func (d *Debug) Kernel(context.Context) (api.DebugKernel, error) {
	version, err := d.host.Files.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return api.DebugKernel{}, fmt.Errorf("reading the kernel's version: %w", err)
	}
	modules, err := d.host.Files.ReadFile("/proc/modules")
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // a kernel without modules has no such file
		return api.DebugKernel{}, fmt.Errorf("listing the kernel's modules: %w", err)
	}
	processor, err := d.host.Files.ReadFile("/proc/cpuinfo")
	if err != nil {
		return api.DebugKernel{}, fmt.Errorf("reading what the processor can do: %w", err)
	}
	return api.DebugKernel{
		Version:      strings.TrimSpace(string(version)),
		Architecture: architecture(),
		CPUBaseline:  baseline(string(processor)),
		Modules:      parseModules(string(modules)),
	}, nil
}

// architecture is the one this program was built for, in the words of uname(1).
func architecture() string {
	switch runtime.GOARCH {
	case "amd64":
		return "x86_64"
	case "arm64":
		return "aarch64"
	}
	return runtime.GOARCH
}

// baseline names the best level of the x86-64 psABI that the processor has, by
// the flags in /proc/cpuinfo. It is "" for other processors.
func baseline(cpuinfo string) string {
	has := make(map[string]bool)
	for line := range strings.Lines(cpuinfo) {
		key, value, _ := strings.Cut(line, ":")
		if strings.TrimSpace(key) != "flags" {
			continue
		}
		for _, flag := range strings.Fields(value) {
			has[flag] = true
		}
		break // all processors of a machine are alike
	}
	best := ""
	for i, flags := range [][]string{
		{"lm", "cmov", "cx8", "fpu", "fxsr", "mmx", "syscall", "sse2"},
		{"cx16", "lahf_lm", "popcnt", "pni", "ssse3", "sse4_1", "sse4_2"},
		{"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"},
		{"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
	} {
		if slices.ContainsFunc(flags, func(f string) bool { return !has[f] }) {
			break
		}
		best = fmt.Sprintf("x86-64-v%d", i+1)
	}
	return best
}

// parseModules reads /proc/modules, by name. A line is
//
//	NAME SIZE USES USERS STATE ADDRESS
//
// where USERS are the modules that need this one, each followed by a comma, or
// "-"; marks in brackets are among them. Dependencies are the other way round.
func parseModules(text string) []api.KernelModule {
	modules := []api.KernelModule{}
	needs := make(map[string][]string)
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 4 {
			continue
		}
		modules = append(modules, api.KernelModule{Name: fields[0], InUse: fields[2] != "0" && fields[2] != "-"})
		for user := range strings.SplitSeq(fields[3], ",") {
			if user != "" && user != "-" && !strings.HasPrefix(user, "[") {
				needs[user] = append(needs[user], fields[0])
			}
		}
	}
	for i := range modules {
		deps := append([]string{}, needs[modules[i].Name]...)
		slices.Sort(deps)
		modules[i].Dependencies = slices.Compact(deps)
	}
	slices.SortStableFunc(modules, func(a, b api.KernelModule) int { return strings.Compare(a.Name, b.Name) })
	return modules
}
