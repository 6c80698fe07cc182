package daemon

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"sync"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/apps"
	"github.com/incusos/incusos/internal/seed"
	"github.com/incusos/incusos/internal/sys"
)

// A First is what the seed of a machine asks for, which counts until it has
// been applied once.
type First struct {
	Network      *api.NetworkConfig        // nil: defaults
	Kernel       *api.SystemKernelConfig   // nil: defaults
	Logging      *api.SystemLoggingConfig  // nil: defaults
	Security     *api.SeedSecurity         // nil: defaults
	Update       *api.SystemUpdateConfig   // nil: defaults
	Provider     *api.SystemProviderConfig // nil: no repository
	Incus        *api.SeedIncus            // nil: defaults
	Services     map[string]any            // configurations by the names of services
	Applications []string                  // none: Incus alone
	Images       apps.Source               // nil: none
	Unused       []string                  // sections that this release does not apply
}

// seedArea stands for the seed while it matters: it is degraded when the seed
// could not be read. Once the machine is set up, it takes what may be secret off
// the disk.
type seedArea struct {
	err    error
	isUp   func() bool // everything that the seed says was applied
	settle func() error

	mu      sync.Mutex
	settled bool
	trouble error // why that could not be done
}

func newSeedArea(m sys.Host, err error, isUp func() bool) *seedArea {
	return &seedArea{err: err, isUp: isUp, settle: func() error {
		id, err := m.Files.ReadFile("/etc/machine-id")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return seed.Settle(m.Files, string(id))
	}}
}

func (*seedArea) Name() string { return "seed" }

func (s *seedArea) Reconcile(ctx context.Context) error {
	if s.err != nil || !s.isUp() {
		return s.err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.settled {
		return nil
	}
	s.trouble = s.settle()
	s.settled = s.trouble == nil
	if s.trouble != nil {
		slog.WarnContext(ctx, "Cannot take the seed off the disk", "err", s.trouble)
	}
	return nil // the machine works all the same
}

func (s *seedArea) warnings() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.trouble == nil {
		return nil
	}
	return []string{"what the machine was installed with is on its disk in the clear, secrets too: " + s.trouble.Error()}
}

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
