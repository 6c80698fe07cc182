package api

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Validate reports the first thing in c that cannot work on any machine, as a
// FieldError.
func (c NetworkConfig) Validate() error {
	if d, err := time.ParseDuration(c.ConfirmationTimeout); c.ConfirmationTimeout != "" && (err != nil || d <= 0 || d > time.Hour) {
		return Fieldf("confirmation_timeout", "%q is no time to confirm in; want one of up to an hour, such as %q", c.ConfirmationTimeout, "2m")
	}
	if err := c.DNS.validate(); err != nil {
		return err
	}
	if err := c.Time.validate(); err != nil {
		return err
	}
	names, cards := make(map[string]int), make(map[string]int)
	for i, n := range c.Interfaces {
		field := fmt.Sprintf("interfaces[%d]", i)
		if err := n.validate(field); err != nil {
			return err
		}
		if err := once(names, n.Name, field+".name", i); err != nil {
			return err
		}
		if err := once(cards, strings.ToLower(n.Hwaddr), field+".hwaddr", i); err != nil {
			return err
		}
	}
	return nil
}

// once refuses a value that an earlier interface has already.
func once(seen map[string]int, value, field string, i int) error {
	if first, ok := seen[value]; ok {
		return Fieldf(field, "%q is already used by interfaces[%d]", value, first)
	}
	seen[value] = i
	return nil
}

func (d NetworkDNS) validate() error {
	if d.Hostname != "" && (!domain(d.Hostname) || strings.Contains(d.Hostname, ".")) {
		return Fieldf("dns.hostname", "%q is no hostname; want letters, digits and inner dashes, at most 63, and no dot", d.Hostname)
	}
	if d.Domain != "" && !domain(d.Domain) {
		return Fieldf("dns.domain", "%q is no domain; want a name such as %q", d.Domain, "example.net")
	}
	for i, s := range d.Nameservers {
		if _, err := netip.ParseAddr(s); err != nil {
			return Fieldf(fmt.Sprintf("dns.nameservers[%d]", i), "%q is no IP address; want one such as %q", s, "192.0.2.53")
		}
	}
	for i, s := range d.SearchDomains {
		if !domain(s) {
			return Fieldf(fmt.Sprintf("dns.search_domains[%d]", i), "%q is no domain; want a name such as %q", s, "example.net")
		}
	}
	return nil
}

func (t NetworkTime) validate() error {
	if t.Timezone != "" && !timezone(t.Timezone) {
		return Fieldf("time.timezone", "%q is no time zone; want one such as %q", t.Timezone, "Europe/Paris")
	}
	for i, s := range t.NTPServers {
		if _, err := netip.ParseAddr(s); err != nil && !domain(s) {
			return Fieldf(fmt.Sprintf("time.ntp_servers[%d]", i), "%q is no host name or IP address; want one such as %q", s, "ntp.example.net")
		}
	}
	return nil
}

func (n NetworkInterface) validate(field string) error {
	if !deviceName(n.Name) || len(n.Name) > maxName {
		return Fieldf(field+".name", "%q is no device name; want 1 to %d letters, digits, dots and dashes, a letter or digit first", n.Name, maxName)
	}
	if mac, err := net.ParseMAC(n.Hwaddr); (err != nil || len(mac) != 6) && !deviceName(n.Hwaddr) {
		return Fieldf(field+".hwaddr", "%q is no MAC address; want one such as %q, or the name of the card", n.Hwaddr, "52:54:00:00:00:01")
	}
	for i, a := range n.Addresses {
		if _, err := netip.ParsePrefix(a); err != nil && !slices.Contains([]string{"dhcp4", "dhcp6", "slaac"}, a) {
			return Fieldf(fmt.Sprintf("%s.addresses[%d]", field, i), "%q is no address; want dhcp4, dhcp6, slaac or one with its prefix length, such as %q", a, "192.0.2.10/24")
		}
	}
	for i, r := range n.Routes {
		if err := r.validate(fmt.Sprintf("%s.routes[%d]", field, i)); err != nil {
			return err
		}
	}
	if n.MTU != 0 && (n.MTU < minMTU || n.MTU > maxMTU) {
		return Fieldf(field+".mtu", "%d is out of range; want %d to %d, or 0 for 1500", n.MTU, minMTU, maxMTU)
	}
	if err := oneOf(field+".required_for_online", n.RequiredForOnline, "", "any", "ipv4", "ipv6", "both", "no"); err != nil {
		return err
	}
	for i, r := range n.Roles {
		if err := oneOf(fmt.Sprintf("%s.roles[%d]", field, i), r, "management", "cluster", "instances", "storage"); err != nil {
			return err
		}
	}
	return nil
}

func (r NetworkRoute) validate(field string) error {
	to, err := netip.ParsePrefix(r.To)
	if err != nil {
		return Fieldf(field+".to", "%q is no network; want one such as %q", r.To, "0.0.0.0/0")
	}
	if r.Via == "dhcp4" || r.Via == "slaac" {
		return nil
	}
	via, err := netip.ParseAddr(r.Via)
	if err != nil {
		return Fieldf(field+".via", "%q is no gateway; want an IP address, dhcp4 or slaac", r.Via)
	}
	if via.Is4() != to.Addr().Is4() {
		return Fieldf(field+".via", "%q cannot lead to %s; want an address of the same family", r.Via, r.To)
	}
	return nil
}

const (
	maxName = 13   // the kernel's 15, less the two of the prefix of helper devices
	minMTU  = 1280 // RFC 8200, section 5: what IPv6 needs
	maxMTU  = 9000 // what switches call jumbo
)

// oneOf refuses a value that is not among want. The empty string may be among
// them but is not offered.
func oneOf(field, value string, want ...string) error {
	if slices.Contains(want, value) {
		return nil
	}
	named := slices.DeleteFunc(want, func(s string) bool { return s == "" })
	last := len(named) - 1
	return Fieldf(field, "%q is unknown; want %s or %s", value, strings.Join(named[:last], ", "), named[last])
}

func deviceName(s string) bool {
	return s != "" && len(s) <= 15 && only(s, "-.") && only(s[:1], "")
}

// domain reports whether s is a DNS name (RFC 1123, section 2.1).
func domain(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || !only(label, "-") || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
	}
	return len(s) <= 253
}

func timezone(s string) bool {
	for part := range strings.SplitSeq(s, "/") {
		if part == "" || !only(part, "-+_") {
			return false
		}
	}
	return true
}

// only reports whether s has nothing but ASCII letters, digits and extra.
func only(s, extra string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
		return !letter && (r < '0' || r > '9') && !strings.ContainsRune(extra, r)
	})
}
