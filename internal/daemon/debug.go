package daemon

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/debug"
	"github.com/incusos/incusos/internal/metrics"
	"github.com/incusos/incusos/internal/rest"
)

// look looks into the machine, for the API: package debug knows the machine,
// package metrics the figures, and the documents come from the API itself.
type look struct {
	*debug.Debug
	figures *metrics.Metrics
	parts   []debug.Part
	doctor  func(context.Context) (api.SecureBootDoctor, error)
}

// Doctor implements rest.Debug.
func (l look) Doctor(ctx context.Context) (api.SecureBootDoctor, error) {
	if l.doctor == nil {
		return api.SecureBootDoctor{}, api.Errorf(api.Unsupported, "this machine has nothing that is sealed")
	}
	return l.doctor(ctx)
}

// Report implements rest.Debug.
func (l look) Report(ctx context.Context, match []string) (api.DebugReport, error) {
	return l.figures.Report(ctx, match), nil
}

// Bundle implements rest.Debug.
func (l look) Bundle(ctx context.Context) (rest.Stream, error) {
	return rest.Stream{MediaType: "application/gzip", Write: func(w io.Writer) error {
		return l.Debug.Bundle(ctx, w, l.parts)
	}}, nil
}

// newFigures returns the figures of the machine that d runs.
func (d *Daemon) newFigures() *metrics.Metrics {
	s := metrics.Sources{Environment: d.environment, Areas: d.health, Warnings: d.warnings, Trial: d.Machine.Trial, Files: d.Host.Files}
	if d.Machine.Storage != nil {
		s.Storage = d.Machine.Storage.Get
	}
	if d.Machine.Tasks != nil {
		s.Tasks = d.Machine.Tasks.List
	}
	return metrics.New(s)
}

func (d *Daemon) health() []metrics.Area {
	var out []metrics.Area
	for _, f := range d.loop.fares() {
		a := metrics.Area{Name: f.Area, Degraded: f.Since != nil}
		if a.Degraded {
			a.Since = *f.Since
		}
		out = append(out, a)
	}
	return out
}

// newLook returns what looks into the machine that d runs.
func (d *Daemon) newLook(figures *metrics.Metrics) look {
	parts := []debug.Part{
		{Name: "report.json", Read: func(ctx context.Context) (any, error) { return figures.Report(ctx, nil), nil }},
		{Name: "warnings.json", Read: func(context.Context) (any, error) { return d.warnings(), nil }},
		{Name: "areas.json", Read: func(context.Context) (any, error) { return d.loop.fares(), nil }},
	}
	if d.Doctor != nil {
		parts = append(parts, debug.Part{Name: "doctor.json", Read: func(ctx context.Context) (any, error) { return d.Doctor(ctx) }})
	}
	return look{debug.New(d.Host), figures, append(parts, bundled(d.Machine)...), d.Doctor}
}

// bundled are the documents of a machine and what would be done to it now, for a
// bundle. What a release does not have is left out.
func bundled(m rest.Machine) []debug.Part {
	var parts []debug.Part
	parts = append(parts, pair("fallback-listener", m.FallbackListener)...)
	parts = append(parts, pair("kernel", m.Kernel)...)
	parts = append(parts, pair("logging", m.Logging)...)
	parts = append(parts, pair("network", m.Network)...)
	parts = append(parts, pair("provider", m.Provider)...)
	parts = append(parts, pair("security", m.Security)...)
	parts = append(parts, pair("storage", m.Storage)...)
	parts = append(parts, pair("update", m.Update)...)
	if m.Environment != nil {
		parts = append(parts, saved("server", func(ctx context.Context) (any, error) { return m.Environment(ctx) }))
	}
	if m.Resources != nil {
		parts = append(parts, saved("system/resources", func(ctx context.Context) (any, error) { return m.Resources(ctx) }))
	}
	if m.Applications != nil {
		parts = append(parts, saved("applications", func(ctx context.Context) (any, error) { return whole(ctx, m.Applications) }))
	}
	if m.Services != nil {
		parts = append(parts, saved("services", func(ctx context.Context) (any, error) { return whole(ctx, m.Services) }))
	}
	if m.Tasks != nil {
		parts = append(parts, saved("tasks", func(context.Context) (any, error) { return m.Tasks.List(), nil }))
	}
	if m.Trial != nil {
		parts = append(parts, saved("trial", func(context.Context) (any, error) { return m.Trial(), nil }))
	}
	if m.Audit != nil {
		const newest = 1000
		parts = append(parts, saved("audit", func(ctx context.Context) (any, error) { return m.Audit.Entries(ctx, newest) }))
	}
	return parts
}

func saved(name string, read func(context.Context) (any, error)) debug.Part {
	return debug.Part{Name: "documents/" + name + ".json", Read: read}
}

// pair is the document of a resource, and the plan that leads to it from how the
// machine is: one with steps tells what does not stick.
func pair[D, C any](name string, r rest.Resource[D, C]) []debug.Part {
	if r == nil {
		return nil
	}
	return []debug.Part{
		saved("system/"+name, func(ctx context.Context) (any, error) { return r.Get(ctx) }),
		{Name: "plans/" + name + ".txt", Read: func(ctx context.Context) (any, error) { return planned(ctx, r) }},
	}
}

func planned[D, C any](ctx context.Context, r rest.Resource[D, C]) (string, error) {
	config, err := r.Config()
	if err != nil {
		return "", err
	}
	plan, err := r.Plan(ctx, config)
	if e, ok := errors.AsType[*api.Error](err); ok && e.Kind == api.Unsupported {
		return "This release makes no plans for it.\n", nil
	}
	if err == nil && plan.Empty() {
		return "Nothing to do.\n", nil
	}
	return plan.String(), err
}

// whole is all documents of a family by name. One that cannot be had is its
// error, in words.
func whole(ctx context.Context, f rest.Family) (any, error) {
	names, err := f.Names(ctx)
	if err != nil {
		return nil, err
	}
	all := make(map[string]any)
	for _, name := range names {
		name = name[strings.LastIndexByte(name, '/')+1:]
		doc, err := f.Get(ctx, name)
		if err != nil {
			doc = err.Error()
		}
		all[name] = doc
	}
	return all, nil
}
