package metrics

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/incusos/incusos/api"
)

// Read returns the figures. It takes a few seconds at most.
func (m *Metrics) Read(ctx context.Context) []Figure {
	var all []Figure
	source := func(name string, figures []Figure, err error) {
		all = append(all, figures...)
		if err != nil {
			slog.DebugContext(ctx, "Figures are missing", "source", name, "err", err)
			all = append(all, failed.of(name, 1))
		}
	}
	if m.sources.Environment != nil {
		env, err := m.sources.Environment(ctx)
		source("environment", environmentFigures(env, err), err)
	}
	if m.sources.Warnings != nil {
		all = append(all, warnings.of("", float64(len(m.sources.Warnings()))))
	}
	all = append(all, m.work()...)
	all = append(all, m.areas()...)
	if m.storage != nil {
		doc, err := m.storage.get(ctx)
		source("storage", storageFigures(doc, err), err)
	}
	if m.sources.Files != nil {
		for _, s := range []struct {
			name string
			read func(Files) ([]Figure, error)
		}{{"memory", readMemory}, {"load", readLoad}, {"daemon", readDaemon}} {
			figures, err := s.read(m.sources.Files)
			source(s.name, figures, err)
		}
	}
	return all
}

func environmentFigures(env api.Environment, err error) []Figure {
	if err != nil {
		return nil
	}
	return []Figure{
		info.of("", 1, field{"version", env.OSVersion}, field{"next_version", env.OSVersionNext}, field{"mode", string(env.Mode)}, field{"hostname", env.Hostname}),
		ready.yes("", env.SystemIsReady),
		uptime.of("", float64(env.Uptime)),
		rebootNeeded.yes("", env.OSVersionNext != "" && env.OSVersionNext != env.OSVersion),
	}
}

// work is what is under way.
func (m *Metrics) work() []Figure {
	var out []Figure
	if m.sources.Trial != nil {
		resource := ""
		trial := m.sources.Trial()
		if trial != nil {
			resource = trial.Resource
		}
		out = append(out, trialPending.yes(resource, trial != nil))
	}
	if m.sources.Tasks != nil {
		running := 0
		for _, t := range m.sources.Tasks() {
			if t.Status == api.TaskRunning {
				running++
			}
		}
		out = append(out, tasksRunning.of("", float64(running)))
	}
	return out
}

func (m *Metrics) areas() []Figure {
	if m.sources.Areas == nil {
		return nil
	}
	var out []Figure
	for _, a := range m.sources.Areas() {
		out = append(out, areaHealthy.yes(a.Name, !a.Degraded))
		if a.Degraded {
			out = append(out, areaSince.of(a.Name, float64(a.Since.Unix())))
		}
	}
	return out
}

func storageFigures(doc api.SystemStorage, err error) []Figure {
	if err != nil {
		return nil
	}
	out := []Figure{
		rootSize.of("", float64(doc.State.RootPartition.Size)),
		rootFree.of("", float64(doc.State.RootPartition.Available)),
	}
	for _, p := range doc.State.Pools {
		out = append(out, poolFigures(p)...)
	}
	for _, d := range doc.State.Drives {
		out = append(out, driveSize.of(d.ID, float64(d.Capacity), field{"model", d.ModelName}, field{"serial", d.SerialNumber}, field{"pool", d.MemberPool}))
		if d.SMART == nil || !d.SMART.Enabled {
			continue
		}
		out = append(out, driveHealthy.yes(d.ID, d.SMART.Passed))
		if d.SMART.PercentageUsed > 0 {
			out = append(out, driveUsed.of(d.ID, float64(d.SMART.PercentageUsed)))
		}
	}
	return out
}

func poolFigures(p api.StoragePool) []Figure {
	degraded := len(slices.Concat(p.DevicesDegraded, p.CacheDegraded, p.LogDegraded, p.SpecialDegraded))
	out := []Figure{
		poolOnline.yes(p.Name, p.State == "ONLINE", field{"state", p.State}, field{"type", p.Type}),
		poolSize.of(p.Name, float64(p.RawSize)),
		poolUsable.of(p.Name, float64(p.UsableSize)),
		poolAllocated.of(p.Name, float64(p.Allocated)),
		poolDegraded.of(p.Name, float64(degraded)),
	}
	if s := p.LastScrub; s != nil {
		out = append(out, poolErrors.of(p.Name, float64(s.Errors)))
		if s.State == "FINISHED" {
			out = append(out, poolScrubbed.of(p.Name, float64(s.EndTime.Unix())))
		}
	}
	return out
}

// readMemory reads proc_meminfo(5), whose kB are 1024 bytes.
func readMemory(files Files) ([]Figure, error) {
	b, err := files.ReadFile("/proc/meminfo")
	if err != nil {
		return nil, err
	}
	var out []Figure
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		kib, err := strconv.ParseFloat(fields[1], 64)
		switch {
		case fields[0] == "MemTotal:" && err == nil:
			out = append(out, memoryTotal.of("", kib*1024))
		case fields[0] == "MemAvailable:" && err == nil:
			out = append(out, memoryAvailable.of("", kib*1024))
		}
	}
	return out, nil
}

// readLoad reads proc_loadavg(5): "0.25 0.50 0.75 1/120 300".
func readLoad(files Files) ([]Figure, error) {
	fields, err := numbers(files, "/proc/loadavg", 3)
	if err != nil {
		return nil, err
	}
	return []Figure{load.of("1", fields[0]), load.of("5", fields[1]), load.of("15", fields[2])}, nil
}

// readDaemon reads proc_pid_statm(5): size and resident, in pages.
func readDaemon(files Files) ([]Figure, error) {
	fields, err := numbers(files, "/proc/self/statm", 2)
	if err != nil {
		return nil, err
	}
	return []Figure{daemonMemory.of("", fields[1]*float64(os.Getpagesize()))}, nil
}

// numbers returns the first n numbers in a file.
func numbers(files Files, name string, n int) ([]float64, error) {
	b, err := files.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var out []float64
	for _, f := range strings.Fields(string(b)) {
		v, err := strconv.ParseFloat(f, 64)
		if err != nil || len(out) == n {
			break
		}
		out = append(out, v)
	}
	if len(out) < n {
		return nil, fmt.Errorf("%s has %d numbers; want %d", name, len(out), n)
	}
	return out, nil
}
