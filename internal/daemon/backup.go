package daemon

import (
	"context"
	"encoding/json"
	"io"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/apps"
	"github.com/incusos/incusos/internal/backup"
	"github.com/incusos/incusos/internal/rest"
	"github.com/incusos/incusos/internal/seed"
	"github.com/incusos/incusos/internal/store"
	"github.com/incusos/incusos/internal/sys"
)

// archives keeps the documents of m, all that are loaded anywhere in this
// package.
func archives(m sys.Host, links func() ([]sys.Link, error)) rest.Backup {
	return archive{backup.New(m, backup.Options{
		Documents: withServices(map[string]func([]byte) error{
			"applications":      loads[apps.Saved],
			"fallback-listener": loads[api.SystemFallbackListenerConfig],
			"kernel":            loads[api.SystemKernelConfig],
			"logging":           loads[api.SystemLoggingConfig],
			"network":           loads[api.NetworkConfig],
			"provider":          loads[api.SystemProviderConfig],
			"security":          loads[securitySaved],
			"storage":           loads[api.SystemStorageConfig],
			"update":            loads[api.SystemUpdateConfig],
		}),
		Local: map[string][]string{
			"applications": {"initialized", "version", "preseeded", "populated", "restored"},
			"security":     {"recovery_keys_retrieved"},
		},
		Seed: func(sections map[string]json.RawMessage, instead bool) (func() error, error) {
			return seed.Renew(m.Files, sections, instead)
		},
		Links: links,
	})}
}

// loads reports why a file is no document with a T that can be worked with.
func loads[T any](content []byte) error {
	config, err := store.Parse[T](content)
	if v, ok := any(&config).(interface{ Validate() error }); ok && err == nil {
		err = v.Validate()
	}
	return err
}

// archive is a backup as package rest asks for it.
type archive struct{ of *backup.Backup }

func (a archive) Restore(ctx context.Context, from io.Reader, skip []string) error {
	return a.of.Restore(ctx, from, skip)
}

func (a archive) FactoryReset(ctx context.Context, r api.SystemReset) error {
	return a.of.FactoryReset(ctx, r)
}

func (a archive) Backup(ctx context.Context) (rest.Stream, error) {
	data, err := a.of.Archive(ctx)
	return rest.Stream{MediaType: "application/gzip", Write: func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	}}, err
}

// restored stands for a restore that the start had to finish: it is degraded
// when that could not be done.
type restored struct{ err error }

func finishRestore(m sys.Host) restored { return restored{backup.Finish(m.Files)} }

func (restored) Name() string                      { return "restore" }
func (r restored) Reconcile(context.Context) error { return r.err }
