package network

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/incusos/incusos/api"
)

// firewallFile is what `nft -f` was last given.
const firewallFile = "/run/incus-os/firewall/" + prefix + ".nft"

// What this machine listens on by itself: Incus or whoever stands in for it, and
// the tunnels of OVN, at which the kernel listens once that service is set up.
const (
	httpsPort  = 8443
	genevePort = 6081
)

// needed is what the host cannot be part of a network without. Errors and
// neighbours are those that RFC 4890, section 4.4, does not want dropped.
const needed = `	chain needed {
		ct state established,related accept
		ct state invalid drop
		icmp type { echo-request, destination-unreachable, time-exceeded, parameter-problem } accept
		icmpv6 type { echo-request, destination-unreachable, packet-too-big, time-exceeded, parameter-problem } accept
		icmpv6 type { mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report } accept
		icmpv6 type { nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept
		ip protocol igmp accept
		udp sport 67 udp dport 68 accept
		ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept
	}
`

// firewall returns a script for nft(8) that replaces our tables in one transaction.
// It is about packets for the host itself: what is bridged, and what Incus forwards
// for instances, passes. Each device of the host has what the system needs, then the
// operator's rules, then what listens here, and drops the rest.
func firewall(cfg api.NetworkConfig, given Given) string {
	devices := hostDevices(cfg)
	var s strings.Builder
	s.WriteString("table inet incus-os\ndelete table inet incus-os\ntable inet incus-os {\n" + needed)
	s.WriteString("\tchain own {\n" + own(cfg, given) + "\t}\n")
	for _, d := range devices {
		fmt.Fprintf(&s, "\tchain %s {\n\t\tjump needed\n", d.chain)
		for _, r := range d.rules {
			s.WriteString("\t\t" + rule(r) + "\n")
		}
		s.WriteString("\t\tjump own\n\t\tdrop\n\t}\n")
	}
	s.WriteString("\tchain input {\n\t\ttype filter hook input priority filter; policy accept;\n")
	for _, d := range devices {
		fmt.Fprintf(&s, "\t\tiifname %q goto %s\n", d.match, d.chain)
	}
	s.WriteString("\t}\n" + forward(devices) + "}\n")
	return s.String() + "table bridge incus-os\ndelete table bridge incus-os\n" + strict(cfg, given)
}

// A hostDevice is one on which packets reach the host.
type hostDevice struct {
	match, chain string // the name, or a pattern; and what its chain is called
	rules        []api.NetworkFirewallRule
}

func hostDevices(cfg api.NetworkConfig) (devices []hostDevice) {
	add := func(match string, rules []api.NetworkFirewallRule) {
		devices = append(devices, hostDevice{match, "in-" + strings.TrimSuffix(match, "*"), rules})
	}
	for _, i := range cfg.Interfaces {
		add(hostPort(i.Name), i.FirewallRules)
	}
	for _, b := range cfg.Bonds {
		add(hostPort(b.Name), b.FirewallRules)
	}
	for _, v := range cfg.VLANs {
		add(v.Name, v.FirewallRules)
	}
	for _, w := range cfg.Wireguard {
		add(w.Name, w.FirewallRules)
	}
	if cfg.Default() {
		add("en*", nil)
		add("eth*", nil)
		add("_p*", nil)
	}
	return devices
}

func own(cfg api.NetworkConfig, given Given) string {
	s := fmt.Sprintf("\t\ttcp dport %d accept\n\t\tudp dport %d accept\n", httpsPort, genevePort)
	for _, port := range given.Ports {
		s += fmt.Sprintf("\t\ttcp dport %d accept\n", port)
	}
	for _, w := range cfg.Wireguard {
		if w.Port > 0 {
			s += fmt.Sprintf("\t\tudp dport %d accept\n", w.Port)
		}
	}
	return s
}

// rule translates a rule of the operator's.
func rule(r api.NetworkFirewallRule) string {
	var s string
	if r.Source != "" {
		family := "ip"
		if p, err := netip.ParsePrefix(r.Source); err == nil && p.Addr().Is6() {
			family = "ip6"
		} else if a, err := netip.ParseAddr(r.Source); err == nil && a.Is6() {
			family = "ip6"
		}
		s += family + " saddr " + r.Source + " "
	}
	if r.Protocol != "" {
		s += fmt.Sprintf("%s dport %d ", r.Protocol, r.Port)
	}
	return s + r.Action
}

// forward keeps the host from being a router between its own networks. Which of
// instances' packets pass is for Incus to say.
func forward(devices []hostDevice) string {
	var names []string
	for _, d := range devices {
		if !strings.HasSuffix(d.match, "*") {
			names = append(names, fmt.Sprintf("%q", d.match))
		}
	}
	if len(names) < 2 {
		return ""
	}
	set := "{ " + strings.Join(names, ", ") + " }"
	return "\tchain forward {\n\t\ttype filter hook forward priority filter; policy accept;\n\t\tiifname " + set + " oifname " + set + " drop\n\t}\n"
}

// strict keeps frames of instances from leaving by a card that is for the host's
// MAC address alone.
func strict(cfg api.NetworkConfig, given Given) string {
	var rules string
	for _, i := range cfg.Interfaces {
		if mac, ok := given.Cards[i.Hwaddr]; ok && i.StrictHwaddr {
			rules += fmt.Sprintf("\t\toifname %q ether saddr != %s drop\n", cardName(mac), mac)
		}
	}
	if rules == "" {
		return ""
	}
	return "table bridge incus-os {\n\tchain strict {\n\t\ttype filter hook forward priority filter; policy accept;\n" + rules + "\t}\n}\n"
}
