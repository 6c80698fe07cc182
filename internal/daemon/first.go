package daemon

import (
	"context"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/apps"
)

// A First is what the seed of a machine asks for, which counts until it has
// been applied once.
type First struct {
	Network      *api.NetworkConfig       // nil: defaults
	Kernel       *api.SystemKernelConfig  // nil: defaults
	Logging      *api.SystemLoggingConfig // nil: defaults
	Incus        *api.SeedIncus           // nil: defaults
	Services     map[string]any           // configurations by the names of services
	Applications []string                 // none: Incus alone
	Images       apps.Source              // nil: none
	Unused       []string                 // sections that this release does not apply
}

// seedArea stands for the seed while it matters: it is degraded when the seed
// could not be read.
type seedArea struct{ err error }

func (seedArea) Name() string                      { return "seed" }
func (s seedArea) Reconcile(context.Context) error { return s.err }

// needsSeed reports whether there is something left to take from the seed.
func needsSeed(network document[api.NetworkConfig], progress document[apps.Saved]) bool {
	return network.err == nil && !network.saved.Saved() || progress.err == nil && !progress.get().Initialized
}

// adopt saves what the seed says of a configuration as the machine's own, once.
func adopt[T any](doc document[T], seed *T) error {
	if seed == nil || doc.err != nil || doc.saved.Saved() {
		return nil
	}
	return doc.saved.Set(*seed)
}

func (f First) warnings() []string {
	var out []string
	for _, name := range f.Unused {
		out = append(out, "this release does not apply the seed section "+name)
	}
	return out
}
