package daemon

import (
	"context"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/change"
	"github.com/incusos/incusos/internal/store"
)

// A managed is a resource of the API that can be changed: a saved document, the
// area that it is about, and how the two make what clients see.
type managed[D, C any] struct {
	*change.Manager[C]
	document document[C]
	observe  func(context.Context, C) (D, error)
	name     string // of the area
}

// manage returns the resource name, such as "system/kernel".
func manage[D, C any](name string, doc document[C], area interface {
	change.Target[C]
	Name() string
}, gate *change.Gate, observe func(context.Context, C) (D, error),
) *managed[D, C] {
	var saved change.Document[C] = unsaved[C]{}
	if doc.err == nil {
		saved = doc.saved
	}
	return &managed[D, C]{change.New(name, saved, area, gate), doc, observe, area.Name()}
}

// unsaved takes the place of a damaged document; it is never asked for.
type unsaved[C any] struct{}

func (unsaved[C]) Get() (c C)  { return c }
func (unsaved[C]) Set(C) error { return nil }

var _ change.Document[int] = (*store.Document[int])(nil)

// Name implements Area.
func (m *managed[D, C]) Name() string { return m.name }

// Reconcile implements Area. A damaged document is no configuration to bring the
// machine to.
func (m *managed[D, C]) Reconcile(ctx context.Context) error {
	if m.document.err != nil {
		return m.document.err
	}
	return m.Manager.Reconcile(ctx)
}

// Get implements rest.Resource.
func (m *managed[D, C]) Get(ctx context.Context) (d D, err error) {
	if m.document.err != nil {
		return d, m.document.err
	}
	return m.observe(ctx, m.Manager.Config())
}

// Config implements rest.Resource.
func (m *managed[D, C]) Config() (C, error) { return m.Manager.Config(), m.document.err }

// Plan implements rest.Resource.
func (m *managed[D, C]) Plan(ctx context.Context, config C) (api.Plan, error) {
	if m.document.err != nil {
		return api.Plan{}, m.document.err
	}
	return m.Manager.Plan(ctx, config)
}

// Try implements rest.Resource.
func (m *managed[D, C]) Try(ctx context.Context, config C, within time.Duration) error {
	if m.document.err != nil {
		return m.document.err
	}
	return m.Manager.Try(ctx, config, within)
}

// A fixed is a resource that this release shows and cannot change.
type fixed[D, C any] struct {
	what   string // for people, such as "the network"
	get    func(context.Context) (D, error)
	config func() (C, error)
}

func (f fixed[D, C]) Get(ctx context.Context) (D, error) { return f.get(ctx) }
func (f fixed[D, C]) Config() (C, error)                 { return f.config() }

func (f fixed[D, C]) Plan(context.Context, C) (api.Plan, error)   { return api.Plan{}, f.refuse() }
func (f fixed[D, C]) Try(context.Context, C, time.Duration) error { return f.refuse() }
func (f fixed[D, C]) Confirm(context.Context) error               { return change.ErrNoTrial }

func (f fixed[D, C]) refuse() error {
	return api.Errorf(api.Unsupported, "%s cannot be changed over the API in this release; the seed sets it once, at install", f.what)
}

// trial is what waits to be confirmed, for the API.
func trial(gate *change.Gate) *api.Trial {
	p := gate.Pending()
	if p == nil {
		return nil
	}
	return &api.Trial{Resource: p.Resource, Deadline: p.Deadline.UTC().Format(time.RFC3339)}
}
