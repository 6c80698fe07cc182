package daemon

import (
	"context"
	"net/netip"
	"reflect"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/change"
	"github.com/incusos/incusos/internal/host"
	"github.com/incusos/incusos/internal/network"
	"github.com/incusos/incusos/internal/proxy"
	"github.com/incusos/incusos/internal/rest"
	"github.com/incusos/incusos/internal/sys"
)

// A networkArea is the network as a resource and an area.
type networkArea struct {
	*managed[api.Network, api.NetworkConfig]
	network *network.Network
}

// Reconcile implements Area. Cards that are missing are complained about at the
// end: all the others are set up by then.
func (a networkArea) Reconcile(ctx context.Context) error {
	if err := a.managed.Reconcile(ctx); err != nil {
		return err
	}
	return a.network.Health(ctx)
}

// FollowsLinks implements follower: a card or a cable that comes back heals the
// network, and one that goes is complained about.
func (a networkArea) FollowsLinks() {}

func (a networkArea) actions() map[string]rest.Action {
	return map[string]rest.Action{
		"/1.0/system/network/:flush-dns": func(ctx context.Context, _ []byte) error { return a.network.FlushDNS(ctx) },
	}
}

// wireNetwork returns the network of a machine, and the machine as a whole, whose
// name and time zone are in the same document.
func wireNetwork(m sys.Host, doc document[api.NetworkConfig], gate *change.Gate) (networkArea, *host.Host) {
	var resource *managed[api.Network, api.NetworkConfig]
	inForce := func() api.NetworkConfig { return resource.Manager.Config() }
	n := network.New(m, inForce)
	h := host.New(m, func() string { return fullName(inForce().DNS) }, func() string { return inForce().Time.Timezone })
	resource = manage("system/network", doc, networkTarget{n, h, doc.get, inForce}, gate, func(ctx context.Context, config api.NetworkConfig) (api.Network, error) {
		state, err := n.State(ctx)
		_, state.ConfigurationInProcess = resource.Manager.Trial()
		return api.Network{Config: config, State: state}, err
	})
	return networkArea{resource, n}, h
}

// A networkTarget is what a network configuration is about: the network, and what
// is in the same document.
type networkTarget struct {
	*network.Network
	host           *host.Host
	saved, inForce func() api.NetworkConfig
}

// Plan implements change.Target.
func (t networkTarget) Plan(_ context.Context, config api.NetworkConfig) (api.Plan, error) {
	if err := t.check(config); err != nil {
		return api.Plan{}, err
	}
	plan, err := t.Network.Plan(config)
	if err != nil {
		return api.Plan{}, err
	}
	steps := t.host.Plan(fullName(config.DNS), config.Time.Timezone)
	steps.Steps = append(steps.Steps, plan.Steps().Steps...)
	steps.Steps = append(steps.Steps, proxy.Plan(t.inForce().Proxy, config.Proxy).Steps...)
	return steps, nil
}

// Apply implements change.Target.
func (t networkTarget) Apply(ctx context.Context, config api.NetworkConfig) error {
	if err := t.check(config); err != nil {
		return err
	}
	if err := t.Network.Apply(ctx, config); err != nil {
		return err
	}
	err := t.host.Apply(fullName(config.DNS), config.Time.Timezone)
	if reflect.DeepEqual(config, t.saved()) {
		return nil // the area host says what is wrong with what is saved
	}
	return err
}

// check refuses what this machine cannot follow. What is saved it follows as far
// as it can, since a new version of the system may know less.
func (t networkTarget) check(config api.NetworkConfig) error {
	saved := t.saved()
	if !reflect.DeepEqual(config, saved) {
		if err := t.Network.Check(config); err != nil {
			return err
		}
	}
	if config.Time.Timezone == saved.Time.Timezone {
		return nil
	}
	return t.host.CheckZone(config.Time.Timezone)
}

// portOf returns the port of an address that the system is told to listen on.
func portOf(address string) []int {
	a, err := netip.ParseAddrPort(address)
	if err != nil || a.Port() == 0 {
		return nil
	}
	return []int{int(a.Port())}
}

func fullName(dns api.NetworkDNS) string {
	if dns.Hostname == "" || dns.Domain == "" {
		return dns.Hostname
	}
	return dns.Hostname + "." + dns.Domain
}
