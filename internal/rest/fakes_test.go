package rest_test

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/rest"
)

// brokenStorage is storage that cannot be looked at.
type brokenStorage struct {
	rest.Resource[api.SystemStorage, api.SystemStorageConfig]
}

func (brokenStorage) Get(context.Context) (api.SystemStorage, error) {
	return api.SystemStorage{}, errors.New("listing pools: zpool exited with status 1")
}

// kernel is a resource that keeps what it is told.
type kernel struct {
	config  api.SystemKernelConfig
	within  time.Duration
	tried   int
	failure error
}

func (k *kernel) Get(context.Context) (api.SystemKernel, error) {
	return api.SystemKernel{Config: k.config}, nil
}
func (k *kernel) Config() (api.SystemKernelConfig, error) { return k.config, nil }

func (k *kernel) Plan(_ context.Context, c api.SystemKernelConfig) (p api.Plan, err error) {
	if c.CPU != nil {
		p.Risk("set", "the governor to "+c.CPU.ScalingGovernor, "slower for a moment")
	}
	return p, k.failure
}

func (k *kernel) Try(_ context.Context, c api.SystemKernelConfig, within time.Duration) error {
	k.tried++
	if k.failure == nil {
		k.config, k.within = c, within
	}
	return k.failure
}
func (k *kernel) Confirm(context.Context) error { return k.failure }

// family is applications that keep their configurations.
type family struct {
	rest.Applications
	configs  map[string]any
	restored string
}

func (f *family) Names(context.Context) ([]string, error) {
	return slices.Sorted(maps.Keys(f.configs)), nil
}

func (f *family) Get(_ context.Context, name string) (any, error) {
	config, err := f.Config(name)
	return map[string]any{"config": config}, err
}

func (f *family) Config(name string) (any, error) {
	config, ok := f.configs[name]
	if !ok {
		return nil, api.Errorf(api.NotFound, "there is no %s", name)
	}
	return config, nil
}

func (f *family) New(name string) (any, error) {
	_, err := f.Config(name)
	return new(api.ApplicationConfig), err
}

func (f *family) Try(_ context.Context, name string, config any, _ time.Duration) error {
	f.configs[name] = config
	return nil
}

func (f *family) Backup(context.Context, string, bool) (rest.Stream, error) {
	return rest.Stream{MediaType: "application/gzip", Write: func(w io.Writer) error {
		_, err := io.WriteString(w, "archive")
		return err
	}}, nil
}

func (f *family) Restore(_ context.Context, _ string, archive io.Reader) error {
	b, err := io.ReadAll(archive)
	if err == nil {
		f.restored = string(b)
	}
	return err
}

// audit keeps entries.
type audit struct{ entries []api.AuditEntry }

func (a *audit) Record(_ context.Context, e api.AuditEntry) { a.entries = append(a.entries, e) }

func (a *audit) RecordOnce(ctx context.Context, e api.AuditEntry) {
	if !slices.ContainsFunc(a.entries, func(old api.AuditEntry) bool { return old.Who == e.Who && old.Action == e.Action }) {
		a.Record(ctx, e)
	}
}
func (a *audit) Entries(_ context.Context, newest int) ([]api.AuditEntry, error) {
	return a.entries[max(0, len(a.entries)-newest):], nil
}
