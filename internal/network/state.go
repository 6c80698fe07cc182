package network

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys"
)

// view is what the machine says of its devices at one moment.
type view struct {
	links     map[string]sys.Link // by name
	cards     map[string]sys.Link // by MAC address
	routes    map[string][]api.NetworkRoute
	lldp      map[string][]api.InterfaceLLDP
	originals map[string]string
	given     Given
	files     sys.Dir
}

func (n *Network) look(ctx context.Context, cfg api.NetworkConfig) (view, error) {
	links, originals, err := n.machine()
	if err != nil {
		return view{}, err
	}
	routes, err := n.host.Links.Routes()
	if err != nil {
		return view{}, err
	}
	v := view{make(map[string]sys.Link), make(map[string]sys.Link), make(map[string][]api.NetworkRoute), n.neighbours(ctx), originals, Given{Cards: resolve(cfg, links, originals)}, n.host.Files}
	for _, l := range links {
		v.links[l.Name] = l
		if l.Physical {
			v.cards[l.Hwaddr] = l
		}
	}
	for _, r := range routes {
		v.routes[r.Link] = append(v.routes[r.Link], api.NetworkRoute{To: r.To, Via: r.Via})
	}
	return v, nil
}

// State reports the machine's network devices: under the configured name those
// that the configuration in force mentions, under the kernel's name the cards that
// it does not.
func (n *Network) State(ctx context.Context) (api.NetworkState, error) {
	cfg := n.inForce()
	v, err := n.look(ctx, cfg)
	if err != nil {
		return api.NetworkState{}, err
	}
	all := make(map[string]api.InterfaceState)
	used := make(map[string]bool) // MAC addresses
	for _, i := range cfg.Interfaces {
		if mac, ok := v.given.Cards[i.Hwaddr]; ok {
			used[mac] = true
			if _, here := v.cards[mac]; here {
				all[i.Name] = v.iface(i, mac)
			}
		}
	}
	for _, b := range cfg.Bonds {
		for _, m := range b.Members {
			if mac, ok := v.given.Cards[m]; ok {
				used[mac] = true
			}
		}
		all[b.Name] = v.bond(b)
	}
	for _, w := range cfg.VLANs {
		all[w.Name] = v.vlan(cfg, w)
	}
	for _, w := range cfg.Wireguard {
		all[w.Name] = n.tunnel(v, w)
	}
	for mac, l := range v.cards {
		if !used[mac] {
			all[v.name(l)] = v.spare(l, cfg.Default())
		}
	}
	defaultRoles(all)
	return api.NetworkState{Interfaces: all, Warnings: n.warnings(ctx, all, cfg)}, nil
}

// name returns what a card that is not in use is called.
func (v view) name(l sys.Link) string {
	if first := v.originals[l.Hwaddr]; first != "" {
		return first
	}
	return l.Name
}

func (v view) iface(i api.NetworkInterface, mac string) api.InterfaceState {
	card := v.cards[mac]
	s := v.host("interface", hostPort(i.Name), card.Up, i.NetworkAddressing)
	s.Hwaddr, s.Speed, s.Stats, s.LLDP = mac, v.speed(card.Name), v.stats(card.Name), v.lldp[card.Name]
	return s
}

func (v view) bond(b api.NetworkBond) api.InterfaceState {
	name := bondName(b.Name)
	s := v.host("bond", hostPort(b.Name), v.links[name].Up, b.NetworkAddressing)
	s.Hwaddr, s.Speed, s.Stats = bondMAC(b, v.given), v.speed(name), v.stats(name)
	if b.Mode == "802.3ad" {
		s.LACP = v.lacp(name)
	}
	s.Members = make(map[string]api.BondMemberState)
	for _, m := range b.Members {
		mac := v.given.Cards[m]
		if l, ok := v.cards[mac]; ok {
			s.Members[mac] = v.member(l, s.LACP)
		}
	}
	return s
}

func (v view) member(l sys.Link, lacp *api.InterfaceLACP) api.BondMemberState {
	s := api.BondMemberState{
		Type: "bond_member", State: "enslaved", Hwaddr: l.Hwaddr, MTU: l.MTU,
		Speed: v.speed(l.Name), Stats: v.stats(l.Name), LLDP: v.lldp[l.Name], LACP: lacp,
	}
	switch {
	case !l.Up:
		s.State = "no-carrier"
	case l.Master == "":
		s.State = "degraded"
	}
	return s
}

func (v view) vlan(cfg api.NetworkConfig, w api.NetworkVLAN) api.InterfaceState {
	carrier := v.links[bondName(w.Parent)].Up
	for _, i := range cfg.Interfaces {
		if i.Name == w.Parent {
			carrier = v.cards[v.given.Cards[i.Hwaddr]].Up
		}
	}
	s := v.host("vlan", w.Name, carrier, w.NetworkAddressing)
	s.Hwaddr, s.Stats = v.links[w.Name].Hwaddr, v.stats(w.Name)
	return s
}

// spare is a card that the configuration does not name; by default they all are in
// use nevertheless.
func (v view) spare(l sys.Link, inUse bool) api.InterfaceState {
	kind := "physical"
	if inUse {
		kind = "interface"
	}
	s := v.host(kind, l.Name, l.Up, api.NetworkAddressing{})
	s.Hwaddr, s.Speed, s.Stats, s.LLDP = l.Hwaddr, v.speed(l.Name), v.stats(l.Name), v.lldp[l.Name]
	return s
}

// host returns the state of the device that has the addresses. Whether there is a
// carrier is said by the card: the host's port of a bridge has none of its own. The
// words are those of networkctl(1).
func (v view) host(kind, name string, carrier bool, a api.NetworkAddressing) api.InterfaceState {
	l, ok := v.links[name]
	s := api.InterfaceState{Type: kind, State: "routable", MTU: l.MTU, Addresses: l.Addresses, Routes: v.routes[name], Roles: slices.Clone(a.Roles)}
	switch {
	case !carrier:
		s.State = "no-carrier"
	case !ok:
		s.State = "missing"
	case len(l.Addresses) == 0:
		s.State = "degraded"
	}
	return s
}

func (n *Network) tunnel(v view, w api.NetworkWireguard) api.InterfaceState {
	s := v.host("wireguard", w.Name, v.links[w.Name].Up, w.NetworkAddressing)
	s.Stats = v.stats(w.Name)
	d, err := n.host.Links.Wireguard(w.Name)
	if err != nil {
		return s // it is not there, which its state says
	}
	s.Wireguard = &api.WireguardState{PublicKey: d.PublicKey, ListeningPort: d.Port}
	for _, p := range d.Peers {
		s.Wireguard.Peers = append(s.Wireguard.Peers, tunnelPeer(p))
	}
	return s
}

func tunnelPeer(p sys.WireguardPeer) api.WireguardPeerState {
	s := api.WireguardPeerState{
		PublicKey: p.PublicKey, Endpoint: p.Endpoint, AllowedIPs: slices.Clone(p.AllowedIPs),
		Stats: api.InterfaceStats{RxBytes: p.Rx, TxBytes: p.Tx},
	}
	if !p.Handshake.IsZero() {
		s.LatestHandshake = p.Handshake.UTC().Format(time.RFC3339)
	}
	if p.Keepalive > 0 {
		s.PersistentKeepalive = p.Keepalive.String()
	}
	return s
}

// speed returns megabits per second; "" if there is no carrier or the driver does
// not say (sysfs-class-net).
func (v view) speed(name string) string {
	if s := v.attribute(name, "speed"); s != "" && !strings.HasPrefix(s, "-") {
		return s
	}
	return ""
}

func (v view) stats(name string) api.InterfaceStats {
	count := func(what string) int64 {
		n, _ := strconv.ParseInt(v.attribute(name, "statistics/"+what), 10, 64) // none of a device that is not there
		return n
	}
	return api.InterfaceStats{RxBytes: count("rx_bytes"), RxErrors: count("rx_errors"), TxBytes: count("tx_bytes"), TxErrors: count("tx_errors")}
}

// lacp returns with whom a bond aggregates (bonding.rst).
func (v view) lacp(name string) *api.InterfaceLACP {
	partner := v.attribute(name, "bonding/ad_partner_mac")
	if partner == "" {
		return nil
	}
	return &api.InterfaceLACP{LocalMAC: v.links[name].Current, RemoteMAC: partner}
}

// attribute reads what sysfs says of a device; "" if it does not.
func (v view) attribute(name, what string) string {
	b, err := v.files.ReadFile(path.Join("/sys/class/net", name, what))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
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

// warnings says what does not work although everything was set up. None of it is
// the fault of a configuration.
func (n *Network) warnings(ctx context.Context, all map[string]api.InterfaceState, cfg api.NetworkConfig) (warnings []string) {
	asks := func(name string, a api.NetworkAddressing) {
		if s, ok := all[name]; ok && s.State == "degraded" && len(a.Addresses) > 0 {
			warnings = append(warnings, name+": no address yet; nobody answered "+strings.Join(a.Addresses, ", "))
		}
	}
	for _, i := range cfg.Interfaces {
		asks(i.Name, i.NetworkAddressing)
	}
	for _, b := range cfg.Bonds {
		asks(b.Name, b.NetworkAddressing)
	}
	for _, v := range cfg.VLANs {
		asks(v.Name, v.NetworkAddressing)
	}
	if len(cfg.Time.NTPServers) > 0 && !n.host.Files.Exists(synced) {
		warnings = append(warnings, n.diagnoseClock(ctx)...)
	}
	return warnings
}

// Health complains about cards that the configuration in force names and the
// machine lacks or has only since it was applied, and about those without carrier
// that it cannot be online without; one that was not switched on yet cannot have any.
// Nothing else depends on them, so that is no reason to undo a change.
func (n *Network) Health(ctx context.Context) error {
	links, originals, err := n.machine()
	if err != nil {
		return err
	}
	cfg := n.inForce()
	cards := resolve(cfg, links, originals)
	complaints := missing(cfg, cards, links)
	if complaints != nil {
		complaints[len(complaints)-1] += "; it has " + listCards(links, originals)
	}
	for _, c := range renamings(cfg, Given{Cards: cards}, links, originals) {
		if c.from != c.to && c.to == cardName(c.mac) { // it came after the configuration was applied
			complaints = append(complaints, fmt.Sprintf("network card %s (%s) has just appeared and is not set up yet", c.mac, c.from))
		}
	}
	for _, i := range cfg.Interfaces {
		for _, l := range links {
			if l.Physical && l.Hwaddr == cards[i.Hwaddr] && l.Enabled && !l.Up && len(i.Addresses) > 0 && i.RequiredForOnline != "no" {
				complaints = append(complaints, "interface \""+i.Name+"\" has no carrier; check the cable and the switch, or set required_for_online to no")
			}
		}
	}
	if complaints == nil {
		return nil
	}
	return errors.New(strings.Join(complaints, "; "))
}
