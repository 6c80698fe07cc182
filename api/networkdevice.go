package api

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

const (
	mostDevices = 1024
	mostList    = 256  // entries of any other list
	maxName     = 13   // the kernel's 15, less the two of the prefix of helper devices
	minMTU      = 1280 // RFC 8200, section 5: what IPv6 needs
	maxMTU      = 9000 // what switches call jumbo
	defaultMTU  = 1500 // Ethernet's
	maxVLAN     = 4094 // IEEE 802.1Q, table 9-2
)

// seen is what the devices before have already, each with the field that has it.
type seen struct{ names, cards, addresses, tags map[string]string }

// validateDevices checks every device, and that no two want the same.
func (c NetworkConfig) validateDevices() error {
	s := seen{make(map[string]string), make(map[string]string), make(map[string]string), make(map[string]string)}
	for i, n := range c.Interfaces {
		if err := n.validate(fmt.Sprintf("interfaces[%d]", i), s); err != nil {
			return err
		}
	}
	for i, b := range c.Bonds {
		if err := b.validate(fmt.Sprintf("bonds[%d]", i), s); err != nil {
			return err
		}
	}
	for i, v := range c.VLANs {
		if err := v.validate(fmt.Sprintf("vlans[%d]", i), s, c.parents()); err != nil {
			return err
		}
	}
	for i, w := range c.Wireguard {
		if err := w.validate(fmt.Sprintf("wireguard[%d]", i), s); err != nil {
			return err
		}
	}
	return nil
}

// parents returns the devices that VLANs can be of, with their MTU.
func (c NetworkConfig) parents() map[string]int {
	parents := make(map[string]int)
	for _, n := range c.Interfaces {
		parents[n.Name] = cmp.Or(n.MTU, defaultMTU)
	}
	for _, b := range c.Bonds {
		parents[b.Name] = cmp.Or(b.MTU, defaultMTU)
	}
	return parents
}

func (n NetworkInterface) validate(field string, s seen) error {
	if err := nameField(field+".name", n.Name, s); err != nil {
		return err
	}
	if err := cardField(field+".hwaddr", n.Hwaddr, s); err != nil {
		return err
	}
	if err := n.NetworkAddressing.validate(field, s); err != nil {
		return err
	}
	if err := tagsField(field+".vlan_tags", n.VLANTags); err != nil {
		return err
	}
	return n.Ethernet.validate(field + ".ethernet")
}

// bondModes are those of the kernel (bonding.rst, mode).
const bondModes = "balance-rr active-backup balance-xor broadcast 802.3ad balance-tlb balance-alb"

func (b NetworkBond) validate(field string, s seen) error {
	if err := nameField(field+".name", b.Name, s); err != nil {
		return err
	}
	if err := oneOf(field+".mode", b.Mode, strings.Fields(bondModes)...); err != nil {
		return err
	}
	if len(b.Members) == 0 || len(b.Members) > mostList {
		return Fieldf(field+".members", "has %d cards; want 1 to %d", len(b.Members), mostList)
	}
	for i, m := range b.Members {
		if err := cardField(fmt.Sprintf("%s.members[%d]", field, i), m, s); err != nil {
			return err
		}
	}
	if _, ok := parseMAC(b.Hwaddr); b.Hwaddr != "" && !ok {
		return Fieldf(field+".hwaddr", "%q is no MAC address of a single card; want one such as %q, or none for that of the first member", b.Hwaddr, "52:54:00:00:00:01")
	}
	if err := b.NetworkAddressing.validate(field, s); err != nil {
		return err
	}
	if err := b.Options.validate(field+".options", b.Mode); err != nil {
		return err
	}
	if err := tagsField(field+".vlan_tags", b.VLANTags); err != nil {
		return err
	}
	return b.Ethernet.validate(field + ".ethernet")
}

func (o NetworkBondOptions) validate(field, mode string) error {
	for _, t := range []struct {
		name  string
		value int
	}{{"mii_monitor_interval", o.MIIMonitorInterval}, {"up_delay", o.UpDelay}, {"down_delay", o.DownDelay}, {"arp_interval", o.ARPInterval}} {
		if t.value < 0 || t.value > 600_000 {
			return Fieldf(field+"."+t.name, "%d is out of range; want 0 to 600000 milliseconds", t.value)
		}
	}
	interval := cmp.Or(o.MIIMonitorInterval, 100)
	if o.UpDelay%interval != 0 {
		return Fieldf(field+".up_delay", "%d is no multiple of mii_monitor_interval; want one of %d", o.UpDelay, interval)
	}
	if o.DownDelay%interval != 0 {
		return Fieldf(field+".down_delay", "%d is no multiple of mii_monitor_interval; want one of %d", o.DownDelay, interval)
	}
	if err := o.validateARP(field, mode); err != nil {
		return err
	}
	if o.LACPRate != "" && mode != "802.3ad" {
		return Fieldf(field+".lacp_rate", "is for mode 802.3ad; leave it out with %s", mode)
	}
	if err := oneOf(field+".lacp_rate", o.LACPRate, "", "slow", "fast"); err != nil {
		return err
	}
	return oneOf(field+".transmit_hash_policy", o.TransmitHashPolicy, "", "layer2", "layer2+3", "layer3+4", "encap2+3", "encap3+4", "vlan+srcmac")
}

// validateARP checks the way to notice a failure by asking, which the kernel has
// for some modes only and never together with the other one (bonding.rst).
func (o NetworkBondOptions) validateARP(field, mode string) error {
	if o.ARPInterval == 0 {
		if len(o.ARPIPTargets) > 0 {
			return Fieldf(field+".arp_interval", "is missing; arp_ip_targets needs one, such as 1000")
		}
		return nil
	}
	switch {
	case slices.Contains([]string{"802.3ad", "balance-tlb", "balance-alb"}, mode):
		return Fieldf(field+".arp_interval", "does not work with mode %s; use mii_monitor_interval", mode)
	case o.MIIMonitorInterval != 0 || o.UpDelay != 0 || o.DownDelay != 0:
		return Fieldf(field+".arp_interval", "does not work together with mii_monitor_interval, up_delay and down_delay; leave these out")
	case len(o.ARPIPTargets) == 0 || len(o.ARPIPTargets) > 16:
		return Fieldf(field+".arp_ip_targets", "has %d addresses; want 1 to 16 with arp_interval", len(o.ARPIPTargets))
	}
	for i, a := range o.ARPIPTargets {
		if ip, err := plainAddr(a); err != nil || !ip.Is4() {
			return Fieldf(fmt.Sprintf("%s.arp_ip_targets[%d]", field, i), "%q is no IPv4 address; want one such as %q", a, "192.0.2.1")
		}
	}
	return nil
}

func (v NetworkVLAN) validate(field string, s seen, parents map[string]int) error {
	if err := nameField(field+".name", v.Name, s); err != nil {
		return err
	}
	mtu, ok := parents[v.Parent]
	if !ok {
		return Fieldf(field+".parent", "%q is no interface and no bond; want the name of one", v.Parent)
	}
	if v.ID < 2 || v.ID > maxVLAN {
		return Fieldf(field+".id", "%d cannot be a VLAN with a tag; want 2 to %d, since 1 is what has none on the bridge of %s", v.ID, maxVLAN, v.Parent)
	}
	if err := once(s.tags, v.Parent+" "+strconv.Itoa(v.ID), field+".id"); err != nil {
		return Fieldf(field+".id", "%d is a VLAN of %s already; want each once", v.ID, v.Parent)
	}
	if v.MTU > mtu {
		return Fieldf(field+".mtu", "%d is more than %s has; want at most %d, or a larger mtu there", v.MTU, v.Parent, mtu)
	}
	return v.NetworkAddressing.validate(field, s)
}

func (w NetworkWireguard) validate(field string, s seen) error {
	if err := nameField(field+".name", w.Name, s); err != nil {
		return err
	}
	if w.PrivateKey != "" && !wireguardKey(string(w.PrivateKey)) {
		return Fieldf(field+".private_key", "is no key; want 32 bytes in base64, or nothing to have one made")
	}
	if w.Port < 0 || w.Port > 65535 {
		return Fieldf(field+".port", "%d is no port; want 1 to 65535, or 0 for any", w.Port)
	}
	for i, a := range w.Addresses {
		if !strings.Contains(a, "/") {
			return Fieldf(fmt.Sprintf("%s.addresses[%d]", field, i), "%q does not work in a tunnel; want an address with its prefix length, such as %q", a, "10.9.0.1/24")
		}
	}
	if err := w.NetworkAddressing.validate(field, s); err != nil {
		return err
	}
	if len(w.Peers) > mostDevices {
		return Fieldf(field+".peers", "are %d; want at most %d", len(w.Peers), mostDevices)
	}
	keys := make(map[string]string)
	for i, p := range w.Peers {
		if err := p.validate(fmt.Sprintf("%s.peers[%d]", field, i), keys); err != nil {
			return err
		}
	}
	return nil
}

func (p NetworkWireguardPeer) validate(field string, keys map[string]string) error {
	if !wireguardKey(p.PublicKey) {
		return Fieldf(field+".public_key", "%q is no key; want 32 bytes in base64", p.PublicKey)
	}
	if err := once(keys, p.PublicKey, field+".public_key"); err != nil {
		return err
	}
	if p.PresharedKey != "" && !wireguardKey(string(p.PresharedKey)) {
		return Fieldf(field+".preshared_key", "is no key; want 32 bytes in base64")
	}
	if len(p.AllowedIPs) > mostList {
		return Fieldf(field+".allowed_ips", "are %d; want at most %d", len(p.AllowedIPs), mostList)
	}
	for i, a := range p.AllowedIPs {
		if _, err := netip.ParsePrefix(a); err != nil {
			return Fieldf(fmt.Sprintf("%s.allowed_ips[%d]", field, i), "%q is no network; want one such as %q", a, "10.9.0.2/32")
		}
	}
	host, port, err := net.SplitHostPort(p.Endpoint)
	if n, portErr := strconv.ParseUint(port, 10, 16); p.Endpoint != "" && (err != nil || portErr != nil || n == 0 || !isHost(host)) {
		return Fieldf(field+".endpoint", "%q is no host with a port; want one such as %q", p.Endpoint, "203.0.113.7:51820")
	}
	if p.PersistentKeepalive < 0 || p.PersistentKeepalive > 65535 {
		return Fieldf(field+".persistent_keepalive", "%d is out of range; want 0 to 65535 seconds", p.PersistentKeepalive)
	}
	return nil
}

// wireguardKey reports whether s is a key as wg(8) writes them.
func wireguardKey(s string) bool {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	return err == nil && len(b) == 32 && len(s) == 44
}

// wakeModes are those of systemd.link(5), WakeOnLan=.
const wakeModes = "phy unicast multicast broadcast arp magic secureon"

func (e *NetworkEthernet) validate(field string) error {
	if e == nil {
		return nil
	}
	for _, b := range []struct{ name, value string }{
		{"rx_buffer_size", e.RxBufferSize}, {"rx_mini_buffer_size", e.RxMiniBufferSize},
		{"rx_jumbo_buffer_size", e.RxJumboBufferSize}, {"tx_buffer_size", e.TxBufferSize},
	} {
		if n, err := strconv.ParseUint(b.value, 10, 32); b.value != "" && b.value != "max" && (err != nil || n == 0) {
			return Fieldf(field+"."+b.name, "%q is no number of packets; want one such as 4096, or max", b.value)
		}
	}
	for i, m := range e.WakeOnLANModes {
		if err := oneOf(fmt.Sprintf("%s.wakeonlan_modes[%d]", field, i), m, strings.Fields(wakeModes)...); err != nil {
			return err
		}
	}
	if len(e.WakeOnLANModes) > 0 && !e.WakeOnLAN {
		return Fieldf(field+".wakeonlan_modes", "says on what the card wakes, but wakeonlan is off; set it")
	}
	secure := slices.Contains(e.WakeOnLANModes, "secureon")
	password, err := net.ParseMAC(string(e.WakeOnLANPassword))
	switch given := e.WakeOnLANPassword != ""; {
	case given && (err != nil || len(password) != 6):
		return Fieldf(field+".wakeonlan_password", "is no password of a card; want six bytes, such as 01:02:03:04:05:06")
	case given && !secure:
		return Fieldf(field+".wakeonlan_password", "is for the mode secureon; add it to wakeonlan_modes")
	case secure && !given:
		return Fieldf(field+".wakeonlan_password", "is missing; the mode secureon needs six bytes, such as 01:02:03:04:05:06")
	}
	return nil
}

// nameField checks the name of a device.
func nameField(field, name string, s seen) error {
	if !deviceName(name) || len(name) > maxName || only(name, "") && strings.Trim(name, "0123456789") == "" {
		return Fieldf(field, "%q is no device name; want 1 to %d letters, digits, dots and dashes, a letter or digit first, and not digits alone", name, maxName)
	}
	if slices.Contains([]string{"all", "default", "lo"}, name) {
		return Fieldf(field, "%q is a name of the kernel; want another one", name)
	}
	return once(s.names, name, field)
}

// cardField checks what a card is known by.
func cardField(field, card string, s seen) error {
	mac, ok := parseMAC(card)
	if !ok && !deviceName(card) {
		return Fieldf(field, "%q is no MAC address; want one such as %q, or the name of the card", card, "52:54:00:00:00:01")
	}
	if ok {
		card = mac.String()
	}
	return once(s.cards, card, field)
}

// parseMAC parses the MAC address of a single card.
func parseMAC(s string) (net.HardwareAddr, bool) {
	mac, err := net.ParseMAC(s)
	return mac, err == nil && len(mac) == 6 && mac[0]&1 == 0
}

func tagsField(field string, tags []int) error {
	for i, tag := range tags {
		if tag < 1 || tag > maxVLAN {
			return Fieldf(fmt.Sprintf("%s[%d]", field, i), "%d is no VLAN; want 1 to %d", tag, maxVLAN)
		}
		if slices.Contains(tags[:i], tag) {
			return Fieldf(fmt.Sprintf("%s[%d]", field, i), "%d is listed already; want each once", tag)
		}
	}
	return nil
}
