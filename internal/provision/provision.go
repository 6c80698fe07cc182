// Package provision is what happens once in the life of a machine: installing
// from the medium it was started from, and on the first start of the installed
// system reading what the seed asks for.
//
// It composes packages seed, which reads, and install, which writes; package
// daemon decides when. What the early boot decided (run or install) comes from
// package early by way of the daemon.
package provision

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/install"
	"github.com/incusos/incusos/internal/seal"
	"github.com/incusos/incusos/internal/seed"
	"github.com/incusos/incusos/internal/sys"
)

// A Screen is where an install says how it is getting on.
type Screen interface {
	Say(format string, args ...any)
	Progress(phase string, done, total uint64)
	// Warn shows what somebody should read, for a time.
	Warn(ctx context.Context, d time.Duration, title string, lines ...string) error
}

// seedTimeout is how long a medium with a seed, which is not the one that was
// started from, may take to be found.
const seedTimeout = 30 * time.Second

// Install installs from the medium the machine was started from, waits until
// that is taken out, unless the seed says not to, and starts the machine again.
func Install(ctx context.Context, host sys.Host, screen Screen) error {
	s, want, err := installSeed(ctx, host, screen)
	if err != nil {
		problems := seal.Check(host.Files)
		for _, p := range problems {
			err = errors.Join(unfit(p, len(problems) == 1), err) // what it would say next
		}
		return err
	}
	lacks, err := allowed(host, want.Security)
	if err != nil {
		return err
	}
	if err := s.Check(); err != nil { // on the installed machine nothing could be corrected
		return err
	}
	medium, err := sys.BootDisk(host.Files)
	if err != nil {
		return fmt.Errorf("looking for the install medium: %w", err)
	}
	if lacks != "" {
		if err := screen.Warn(ctx, warnTime, "this machine will not be trusted", lacks.Warning()...); err != nil {
			return err
		}
	}
	target, err := install.Run(ctx, host, install.Request{
		Seed: *want, Source: medium, WriteSeed: s.Forward, Mark: lacks.Mark(),
		Holds:    func(d sys.Disk) (string, error) { return seed.Machine(host.Files, d) },
		Progress: func(phase string, done, total uint64) { screen.Progress("install: "+phase, done, total) },
	})
	if err != nil {
		return err
	}
	// The medium is about to go, and /usr with it: neither this program nor the
	// ones that turn a machine off can be read after that.
	if err := host.Power.Pin(); err != nil {
		return err
	}
	screen.Say("install: done on %s; remove the medium", target.Path)
	if !want.ForceReboot {
		if err := install.WaitRemoved(ctx, host.Files, medium); err != nil {
			return err
		}
	}
	screen.Say("install: starting the installed system")
	return host.Power.Restart()
}

// installSeed returns the seed and what it asks the installer for. A medium
// without one of its own waits for one on a stick beside it.
func installSeed(ctx context.Context, host sys.Host, screen Screen) (*seed.Seed, *api.SeedInstall, error) {
	s, err := seed.Open(host)
	if err == nil && !s.Has("install") {
		screen.Say("install: waiting for a seed: there is no install section on this medium, and no medium labelled SEED_DATA yet")
		waiting, cancel := context.WithTimeout(ctx, seedTimeout)
		defer cancel()
		if err := sys.WaitFor(waiting, host.Files, "/dev/disk/by-label/SEED_DATA"); err != nil {
			return nil, nil, errors.New("there is no install seed: add install.yaml to the medium with `incusos media reseed`, or attach a medium labelled SEED_DATA that has one")
		}
		s, err = seed.Open(host)
	}
	if err != nil {
		return nil, nil, err
	}
	want, ok, err := s.Install()
	if err != nil {
		return nil, nil, err
	}
	if !ok {
		return nil, nil, errors.New("the medium labelled SEED_DATA has no install.yaml; an empty one installs with defaults")
	}
	return s, want, nil
}

// First is what the seed of an installed machine asks for.
type First struct {
	Network      *api.NetworkConfig        // nil: defaults
	Kernel       *api.SystemKernelConfig   // nil: defaults
	Logging      *api.SystemLoggingConfig  // nil: defaults
	Security     *api.SeedSecurity         // nil: defaults
	Update       *api.SystemUpdateConfig   // nil: defaults
	Provider     *api.SystemProviderConfig // nil: no repository
	Incus        *api.SeedIncus            // nil: defaults
	Services     *api.SeedServices         // nil: none is enabled
	Applications []string                  // none: Incus alone
	Images       *seed.Seed                // carries the extension images
	Unused       []string                  // sections that are there and that this release does not apply
}

// Read reads the seed of an installed machine.
func Read(host sys.Host) (First, error) {
	s, err := seed.Open(host)
	if err != nil {
		return First{}, err
	}
	f := First{Images: s, Unused: s.Unused()}
	list, _, err := s.ApplicationList()
	if err != nil {
		return First{}, err
	}
	if list != nil {
		for _, a := range list.Applications {
			f.Applications = append(f.Applications, a.Name)
		}
	}
	if f.Incus, _, err = s.Incus(); err != nil {
		return First{}, err
	}
	if f.Services, _, err = s.Services(); err != nil {
		return First{}, err
	}
	network, _, err := s.Network()
	if network != nil {
		f.Network = &network.NetworkConfig
	}
	kernel, _, kernelErr := s.Kernel()
	if kernel != nil {
		f.Kernel = &kernel.SystemKernelConfig
	}
	logging, _, loggingErr := s.Logging()
	if logging != nil {
		f.Logging = &logging.SystemLoggingConfig
	}
	security, _, securityErr := s.Security()
	f.Security = security
	update, _, updateErr := s.Update()
	if update != nil {
		f.Update = &update.SystemUpdateConfig
	}
	provider, _, providerErr := s.Provider()
	if provider != nil {
		f.Provider = &provider.SystemProviderConfig
	}
	return f, errors.Join(err, kernelErr, loggingErr, securityErr, updateErr, providerErr)
}
