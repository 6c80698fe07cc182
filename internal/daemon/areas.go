package daemon

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/apps"
	"github.com/incusos/incusos/internal/audit"
	"github.com/incusos/incusos/internal/change"
	"github.com/incusos/incusos/internal/console"
	"github.com/incusos/incusos/internal/listener"
	"github.com/incusos/incusos/internal/resources"
	"github.com/incusos/incusos/internal/rest"
	"github.com/incusos/incusos/internal/sets"
	"github.com/incusos/incusos/internal/storage"
	"github.com/incusos/incusos/internal/store"
	"github.com/incusos/incusos/internal/sys"
)

// Wire returns the parts of the daemon for a machine: its saved documents, and
// the areas that bring the machine to them. First reads the seed; it is called
// while there is something to take from it, and when an application is added or
// reset.
func Wire(m sys.Host, screen *console.Console, first func() (First, error)) Options {
	restore := finishRestore(m) // before anything is loaded
	sweep(m.Files)              // before anything is written
	networkDoc := load[api.NetworkConfig](m.Files, "network")
	kernelDoc := load[api.SystemKernelConfig](m.Files, "kernel")
	loggingDoc := load[api.SystemLoggingConfig](m.Files, "logging")
	securityDoc := load[securitySaved](m.Files, "security")
	storageDoc := load[api.SystemStorageConfig](m.Files, "storage")
	appsDoc := load[apps.Saved](m.Files, "applications")
	updateDoc := load[api.SystemUpdateConfig](m.Files, "update")
	providerDoc := load[api.SystemProviderConfig](m.Files, "provider")
	fallbackDoc := load[api.SystemFallbackListenerConfig](m.Files, "fallback-listener")

	var seed First
	var seedErr error
	if needsSeed(networkDoc, appsDoc) {
		seed, seedErr = first()
		if !appsDoc.get().Initialized { // the seed may be one for after a factory reset that did not come about
			seedErr = errors.Join(seedErr, adopt(networkDoc, seed.Network), adopt(fallbackDoc, listener.Seeded(seed.Incus)),
				adopt(kernelDoc, seed.Kernel), adopt(loggingDoc, seed.Logging), adopt(securityDoc, seededSecurity(seed.Security)),
				adopt(updateDoc, seed.Update), adopt(providerDoc, seed.Provider))
		}
	}
	wake := make(chan struct{}, 1)
	gate := change.NewGate(func() { poke(wake) })
	kernel := kernelResource(m, screen, kernelDoc, gate)
	logging := loggingResource(m, loggingDoc, gate)
	log := audit.New(m.Files)
	news := make(chan struct{}, 1)
	fallback, door := fallbackListener(m, screen, news, fallbackDoc, gate)
	networks, hosts := wireNetwork(m, networkDoc, gate)
	outward := wireProxy(networks)
	networks.network.Listens = func() []int { return portOf(fallbackDoc.get().ListenAddress) }
	security := wireSecurity(m, securityDoc, gate)
	display := &keyDisplay{wanted: seed.Security != nil && seed.Security.ShowRecoveryKey, screen: screen, security: security, log: log}
	stores := storage.New(m)
	services := wireServices(m, gate, networks.network, seed, &seedErr)
	belongs := sets.Open(m.Files)
	applications := newApps(m, appsDoc, belongs, seed, services, first, screen, gate, wake)
	seedling := newSeedArea(m, seedErr, func() bool { return appsDoc.get().Initialized })
	updates := newUpdates(m, updateDoc, providerDoc, installed{appsDoc, applications, belongs})
	updates.machine, updates.bind, updates.unlocks = hosts.Environment, security.seal.Provide, security.seal.Unlocks
	updates.agent.Restart, updates.agent.Proxy = hosts.Reboot, outward.Through
	tasks, taskArea := newTasks(m, screen, slices.Concat(appKinds(appsDoc, applications), updates.kinds(), driveKinds(stores)))
	updates.tasks, updates.changed = tasks, func() { poke(wake) }
	when, where := updates.resources(gate)
	return Options{
		Host:     m,
		Console:  screen,
		Wake:     wake,
		Tasks:    tasks,
		News:     news,
		Also:     []Server{door},
		Outward:  outward,
		Pages:    pages(m, networks.network),
		Doctor:   updates.doctor(security.seal.Doctor),
		Updates:  updates.agent,
		ComeBack: updates.comeBack,
		// The network comes before the pools: addresses arrive while those open.
		Areas: []Area{
			restore, taskArea, hosts, kernel, logging, networks, outward, fallback,
			storageDoc.guard(stores), services, reported{appsDoc.guard(applications), door.Applications},
			security, // binds root anew on a first start, which takes a while and nothing waits for
			when, where, display,
			seedling, // when the others have taken from it what they want
		},
		Machine: rest.Machine{
			Backup:           archives(m, networks.network.Links),
			Environment:      hosts.Environment,
			FallbackListener: fallback,
			Kernel:           kernel,
			Logging:          logging,
			Network:          networks,
			Provider:         where,
			Security:         security,
			Storage:          storageResource(storageDoc, stores),
			Applications:     desk{apps.NewDesk(applications, tasks, appsDoc.err), updates.check},
			Tasks:            tasks,
			Update:           when,
			Services:         services,
			Actions:          actions(security.actions(display.acknowledge), networks.actions(), updates.actions(when), driveActions(stores, tasks)),
			Resources:        func(context.Context) (api.Resources, error) { return resources.Read(m.Files), nil },
			Attest:           attestations(security.seal, hosts.Environment),
			Audit:            log,
			Power:            hosts,
			Trial:            func() *api.Trial { return trial(gate) },
		},
		Alarms: security.seal.Alarms,
		Warnings: func() []string {
			return slices.Concat(seed.warnings(), seedling.warnings(), securityDoc.get().warnings(), applications.Warnings(), log.Warnings(), door.Warnings(), outward.Warnings(), updates.warnings())
		},
	}
}

// actions are those of several areas, by the route that does them.
func actions(parts ...map[string]rest.Action) map[string]rest.Action {
	all := make(map[string]rest.Action)
	for _, p := range parts {
		maps.Copy(all, p)
	}
	return all
}

// A document is a saved configuration, or why there is none to be had.
type document[T any] struct {
	saved *store.Document[T]
	err   error
}

func load[T any](files sys.Dir, name string) document[T] {
	saved, err := store.Open[T](files, name)
	return document[T]{saved, err}
}

// get returns the configuration; the zero T where guard has refused it.
func (d document[T]) get() (v T) {
	if d.err == nil {
		v = d.saved.Get()
	}
	return v
}

// guard returns area, or one that only says that its document is damaged: the
// machine must not be brought to anything else than what was saved.
func (d document[T]) guard(area Area) Area {
	if d.err != nil {
		return damaged{area.Name(), d.err}
	}
	return area
}

type damaged struct {
	name string
	err  error
}

func (d damaged) Name() string                    { return d.name }
func (d damaged) Reconcile(context.Context) error { return d.err }
