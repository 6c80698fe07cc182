package network

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys"
)

// State reports the machine's network cards: under the configured name those
// that the configuration in force mentions, under the kernel's name the others.
func (n *Network) State() (api.NetworkState, error) {
	links, err := n.host.Links.List()
	if err != nil {
		return api.NetworkState{}, err
	}
	cfg := n.inForce()
	interfaces := make(map[string]api.InterfaceState)
	for _, l := range links {
		i, ok := configured(cfg, l)
		switch {
		case ok:
			interfaces[i.Name] = state(l, "interface", i.Roles)
		case l.Physical && len(cfg.Interfaces) == 0:
			interfaces[l.Name] = state(l, "interface", nil)
		case l.Physical:
			interfaces[l.Name] = state(l, "physical", nil)
		}
	}
	defaultRoles(interfaces)
	return api.NetworkState{Interfaces: interfaces}, nil
}

// configured returns what cfg says about a link.
func configured(cfg api.NetworkConfig, l sys.Link) (api.NetworkInterface, bool) {
	i := slices.IndexFunc(cfg.Interfaces, func(i api.NetworkInterface) bool { return l.Physical && is(l, i.Hwaddr) })
	if i < 0 {
		return api.NetworkInterface{}, false
	}
	return cfg.Interfaces[i], true
}

func is(l sys.Link, hwaddr string) bool {
	return strings.EqualFold(l.Hwaddr, hwaddr) || l.Name == hwaddr
}

// state uses the words of networkctl(1).
func state(l sys.Link, kind string, roles []string) api.InterfaceState {
	s := api.InterfaceState{
		Type: kind, State: "routable", Hwaddr: strings.ToLower(l.Hwaddr),
		MTU: l.MTU, Addresses: l.Addresses, Roles: slices.Clone(roles),
	}
	switch {
	case !l.Up:
		s.State = "no-carrier"
	case len(l.Addresses) == 0:
		s.State = "degraded"
	}
	return s
}

// defaultRoles gives every routable interface the role management if none has
// it, and cluster to those with management if none has that.
func defaultRoles(interfaces map[string]api.InterfaceState) {
	give(interfaces, "management", func(s api.InterfaceState) bool { return s.State == "routable" })
	give(interfaces, "cluster", func(s api.InterfaceState) bool { return slices.Contains(s.Roles, "management") })
}

func give(interfaces map[string]api.InterfaceState, role string, to func(api.InterfaceState) bool) {
	for _, s := range interfaces {
		if slices.Contains(s.Roles, role) {
			return
		}
	}
	for name, s := range interfaces {
		if to(s) {
			s.Roles = append(s.Roles, role)
			interfaces[name] = s
		}
	}
}

// Missing complains about cards that the configuration in force names and the
// machine lacks. Nothing else depends on them, so that is no reason to undo a
// change.
func (n *Network) Missing() error {
	links, err := n.host.Links.List()
	if err != nil {
		return err
	}
	var complaints []string
	for _, i := range n.inForce().Interfaces {
		if !slices.ContainsFunc(links, func(l sys.Link) bool { return l.Physical && is(l, i.Hwaddr) }) {
			complaints = append(complaints, fmt.Sprintf("interface %q has no network card: %s is not in this machine; it has %s", i.Name, i.Hwaddr, cards(links)))
		}
	}
	if complaints == nil {
		return nil
	}
	return errors.New(strings.Join(complaints, "; "))
}

func cards(links []sys.Link) string {
	var found []string
	for _, l := range links {
		if l.Physical {
			found = append(found, fmt.Sprintf("%s (%s)", l.Hwaddr, l.Name))
		}
	}
	if found == nil {
		return "none"
	}
	return strings.Join(found, ", ")
}
