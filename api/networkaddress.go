package api

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

func (n NetworkAddressing) validate(field string, s seen) error {
	for _, l := range []struct {
		name   string
		length int
	}{{"addresses", len(n.Addresses)}, {"routes", len(n.Routes)}, {"firewall_rules", len(n.FirewallRules)}} {
		if l.length > mostList {
			return Fieldf(field+"."+l.name, "has %d entries; want at most %d", l.length, mostList)
		}
	}
	for i, a := range n.Addresses {
		if err := addressField(fmt.Sprintf("%s.addresses[%d]", field, i), a, n.Addresses[:i], s); err != nil {
			return err
		}
	}
	for i, r := range n.Routes {
		if err := r.validate(fmt.Sprintf("%s.routes[%d]", field, i), n.Addresses); err != nil {
			return err
		}
	}
	if n.MTU != 0 && (n.MTU < minMTU || n.MTU > maxMTU) {
		return Fieldf(field+".mtu", "%d is out of range; want %d to %d, or 0 for %d", n.MTU, minMTU, maxMTU, defaultMTU)
	}
	if err := oneOf(field+".required_for_online", n.RequiredForOnline, "", "any", "ipv4", "ipv6", "both", "no"); err != nil {
		return err
	}
	for i, r := range n.Roles {
		name := fmt.Sprintf("%s.roles[%d]", field, i)
		if err := oneOf(name, r, "management", "cluster", "instances", "storage"); err != nil {
			return err
		}
		if slices.Contains(n.Roles[:i], r) {
			return Fieldf(name, "%q is listed already; want each once", r)
		}
	}
	for i, r := range n.FirewallRules {
		if err := r.validate(fmt.Sprintf("%s.firewall_rules[%d]", field, i)); err != nil {
			return err
		}
	}
	return nil
}

// addressField checks an address of a device, or a way to get one.
func addressField(field, address string, before []string, s seen) error {
	if slices.Contains([]string{"dhcp4", "dhcp6", "slaac"}, address) {
		if slices.Contains(before, address) {
			return Fieldf(field, "%q is listed already; want it once", address)
		}
		return nil
	}
	p, err := netip.ParsePrefix(address)
	if err != nil {
		return Fieldf(field, "%q is no address; want dhcp4, dhcp6, slaac or one with its prefix length, such as %q", address, "192.0.2.10/24")
	}
	ip := p.Addr()
	switch {
	case ip.IsUnspecified() || ip.IsMulticast() || ip.IsLoopback() || ip.Is4In6() || p.Bits() == 0:
		return Fieldf(field, "%q cannot be the address of a device; want one such as %q", address, "192.0.2.10/24")
	case ip.Is4() && p.Bits() < 31 && (p.Masked().Addr() == ip || last(p) == ip):
		return Fieldf(field, "%q is a network or its broadcast address; want that of a host in it", address)
	}
	return once(s.addresses, ip.String(), field)
}

// last returns the broadcast address of an IPv4 network.
func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

// validate checks a route of a device that has these addresses.
func (r NetworkRoute) validate(field string, addresses []string) error {
	to, err := netip.ParsePrefix(r.To)
	if err != nil || to.Addr().Is4In6() {
		return Fieldf(field+".to", "%q is no network; want one such as %q", r.To, "0.0.0.0/0")
	}
	if r.Via == "dhcp4" || r.Via == "slaac" {
		return r.validateLearned(field, to, addresses)
	}
	via, err := plainAddr(r.Via)
	if err != nil {
		return Fieldf(field+".via", "%q is no gateway; want an IP address, dhcp4 or slaac", r.Via)
	}
	if via.Is4() != to.Addr().Is4() {
		return Fieldf(field+".via", "%q cannot lead to %s; want an address of the same family", r.Via, r.To)
	}
	if slices.ContainsFunc(addresses, func(a string) bool { return strings.HasPrefix(a, r.Via+"/") }) {
		return Fieldf(field+".via", "%q is the address of this device; want that of the gateway", r.Via)
	}
	return nil
}

// validateLearned checks a route by way of the gateway that DHCP or a router
// advertises.
func (r NetworkRoute) validateLearned(field string, to netip.Prefix, addresses []string) error {
	if !slices.Contains(addresses, r.Via) {
		return Fieldf(field+".via", "%q is not among the addresses of the device, so that there is nobody to learn it from; add it, or name a gateway", r.Via)
	}
	if to.Addr().Is4() != (r.Via == "dhcp4") {
		return Fieldf(field+".via", "%q cannot lead to %s; want dhcp4 for IPv4 and slaac for IPv6", r.Via, r.To)
	}
	if r.OnLink {
		return Fieldf(field+".onlink", "is for a gateway that is given by its address; leave it out")
	}
	return nil
}

func (r NetworkFirewallRule) validate(field string) error {
	if err := oneOf(field+".action", r.Action, "accept", "drop", "reject"); err != nil {
		return err
	}
	_, err := plainAddr(r.Source)
	if p, prefixErr := netip.ParsePrefix(r.Source); r.Source != "" && err != nil && (prefixErr != nil || p.Addr().Is4In6()) {
		return Fieldf(field+".source", "%q is no address and no network; want one such as %q", r.Source, "192.0.2.0/24")
	}
	if err := oneOf(field+".protocol", r.Protocol, "", "tcp", "udp"); err != nil {
		return err
	}
	switch {
	case r.Port < 0 || r.Port > 65535:
		return Fieldf(field+".port", "%d is no port; want 1 to 65535", r.Port)
	case r.Protocol == "" && r.Port != 0:
		return Fieldf(field+".protocol", "is missing; a port needs tcp or udp")
	case r.Protocol != "" && r.Port == 0:
		return Fieldf(field+".port", "is missing; want 1 to 65535, or no protocol either")
	}
	return nil
}

// plainAddr parses an IP address that needs nothing else to be understood: no
// zone, which may hold any text, and no IPv4 address in disguise.
func plainAddr(s string) (netip.Addr, error) {
	ip, err := netip.ParseAddr(s)
	if err == nil && (ip.Zone() != "" || ip.Is4In6()) {
		err = errors.New("not a plain address")
	}
	return ip, err
}

// isHost reports whether s is a host name or an IP address.
func isHost(s string) bool {
	_, err := plainAddr(s)
	return err == nil || domain(s)
}
