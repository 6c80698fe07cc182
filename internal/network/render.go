package network

import (
	"cmp"
	"fmt"
	"net"
	"path"
	"slices"
	"strings"

	"github.com/incusos/incusos/api"
)

// A File is one that implements part of a configuration.
type File struct {
	Content string
	Device  string // what it is of, in words, such as "interface mgmt"; "" is of the machine
	Secret  bool   // it holds a key, and only the service it is for may read it
}

// Given is what a configuration leaves to the machine.
type Given struct {
	Cards map[string]string     // MAC address, lower case with colons, of what the configuration calls a card
	Keys  map[string]api.Secret // private keys of tunnels that have none in the configuration, by name
	Ports []int                 // TCP ports that the system listens on besides that of Incus
}

// Render returns the files that implement cfg, by path. cfg must be valid. Without
// any interface, every network card asks by DHCP and listens to router
// advertisements. A device whose card is not in given is left out, with its VLANs.
func Render(cfg api.NetworkConfig, given Given) map[string]File {
	r := renderer{cfg, given, make(map[string]File)}
	for _, i := range cfg.Interfaces {
		r.iface(i)
	}
	for _, b := range cfg.Bonds {
		r.bond(b)
	}
	for _, v := range cfg.VLANs {
		if r.has(v.Parent) {
			r.vlan(v)
		}
	}
	for _, w := range cfg.Wireguard {
		r.wireguard(w)
	}
	if cfg.Default() {
		r.put(networkdDir, ".network", "network cards", anyLink)
	}
	if c := names(cfg.DNS); c != "" {
		r.put(resolvedDir, ".conf", "", c)
	}
	if len(cfg.Time.NTPServers) > 0 {
		r.put(timesyncdDir, ".conf", "", "[Time]\nNTP="+strings.Join(cfg.Time.NTPServers, " ")+"\n")
	}
	r.files[firewallFile] = File{Content: firewall(cfg, given)}
	return r.files
}

type renderer struct {
	cfg   api.NetworkConfig
	given Given
	files map[string]File
}

func (r renderer) put(dir, suffix, device, content string) {
	r.files[path.Join(dir, prefix+suffix)] = File{Content: content, Device: device}
}

// file adds one of systemd-networkd for the kernel's device name.
func (r renderer) file(name, kind, device, content string) {
	r.put(networkdDir, "-"+name+kind, device, content)
}

// Names of the devices that make up one that the operator named. None is longer
// than the 15 characters the kernel has: names of devices have at most 13.
func hostPort(name string) string { return "_v" + name }                             // carries the addresses
func bondName(name string) string { return "_b" + name }                             // of the bond itself
func cardName(mac string) string  { return "_p" + strings.ReplaceAll(mac, ":", "") } // of a card that is in use
func peerName(mac string) string  { return "_i" + strings.ReplaceAll(mac, ":", "") } // of the bridge's end of a host port

// anyLink does not delay the boot, since which of the cards are connected is
// not known. A card has no kind; Incus' bridges, veth pairs and taps have one
// (systemd.network(5), Kind=). A card whose name is that of a bridge in use keeps
// ours.
const anyLink = `[Match]
Type=ether
Kind=!*
Name=en* eth* _p*

[Link]
RequiredForOnline=no

[Network]
DHCP=yes
IPv6AcceptRA=yes
LinkLocalAddressing=ipv6

[DHCPv4]
ClientIdentifier=mac
UseHostname=no

[DHCPv6]
UseHostname=no
`

// defaultMTU is Ethernet's, and what api.NetworkAddressing promises for 0.
const defaultMTU = 1500

func (r renderer) iface(i api.NetworkInterface) {
	mac, ok := r.given.Cards[i.Hwaddr]
	if !ok {
		return
	}
	device := "interface " + i.Name
	r.switched(device, i.Name, mac, cardName(mac), i.NetworkAddressing, i.Bridge)
	card := port{bridge: i.Name, mtu: mtu(i.NetworkAddressing), lldp: i.LLDP, tags: r.tags(i.Name, i.VLANTags)}
	r.file(cardName(mac), ".network", device, card.render(cardName(mac)))
	r.link(device, mac, i.Ethernet)
}

func (r renderer) bond(b api.NetworkBond) {
	var members []string
	for _, m := range b.Members {
		if mac, ok := r.given.Cards[m]; ok {
			members = append(members, mac)
		}
	}
	mac := bondMAC(b, r.given)
	if mac == "" {
		return
	}
	device, name := "bond "+b.Name, bondName(b.Name)
	r.switched(device, b.Name, mac, name, b.NetworkAddressing, b.Bridge)
	r.file(name, ".netdev", device, bondNetdev(name, b))
	r.file(name, ".network", device, port{bridge: b.Name, mtu: mtu(b.NetworkAddressing), tags: r.tags(b.Name, b.VLANTags), waits: true}.render(name))
	for _, m := range members {
		r.file(cardName(m), ".network", device, port{bond: name, lldp: b.LLDP}.render(cardName(m)))
		r.link(device, m, b.Ethernet)
	}
}

// bondMAC returns the MAC address that the host has on a bond; "" if the bond has
// no card yet to take it from.
func bondMAC(b api.NetworkBond, given Given) string {
	if mac, err := net.ParseMAC(b.Hwaddr); err == nil {
		return mac.String()
	}
	for _, m := range b.Members {
		if mac, ok := given.Cards[m]; ok {
			return mac
		}
	}
	return ""
}

// switched adds the bridge called name, to which instances are connected, and the
// host's own port on it. The port has the MAC address that the network knows the
// machine by, and is up as long as uplink has a carrier: routes over a cable that is
// pulled would be in the way of those over another.
func (r renderer) switched(device, name, mac, uplink string, a api.NetworkAddressing, b api.NetworkBridge) {
	host, peer := hostPort(name), peerName(mac)
	r.file(name, ".netdev", device, fmt.Sprintf("[NetDev]\nName=%s\nKind=bridge\n\n[Bridge]\nVLANFiltering=yes\nSTP=%s\nMulticastSnooping=%s\n",
		name, yes(b.STP), yes(!b.DisableMulticastSnooping)))
	r.file(name, ".network", device, fmt.Sprintf("[Match]\nName=%s\n\n[Link]\nMTUBytes=%d\nRequiredForOnline=no\n\n[Network]\n%sConfigureWithoutCarrier=yes\n",
		name, mtu(a), silent))
	r.file(host, ".netdev", device, fmt.Sprintf("[NetDev]\nName=%s\nKind=veth\nMACAddress=%s\n\n[Peer]\nName=%s\n", host, mac, peer))
	r.file(peer, ".network", device, port{bridge: name, mtu: mtu(a), tags: r.tags(name, nil)}.render(peer))
	r.file(host, ".network", device, r.layer3(host, a, mtu(a), uplink, r.vlansOf(name)))
}

// silent keeps a device from having addresses of its own.
const silent = "DHCP=no\nIPv6AcceptRA=no\nLinkLocalAddressing=no\n"

// A port is part of a bridge or of a bond.
type port struct {
	bridge, bond string
	mtu          int // 0: that of the bond
	lldp, waits  bool
	tags         []int
}

func (p port) render(name string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "[Match]\nName=%s\n\n[Link]\n", name)
	if p.mtu > 0 {
		fmt.Fprintf(&b, "MTUBytes=%d\n", p.mtu)
	}
	b.WriteString("RequiredForOnline=no\n\n[Network]\n" + silent)
	if p.waits {
		b.WriteString("ConfigureWithoutCarrier=yes\n")
	}
	if p.lldp {
		b.WriteString("LLDP=yes\nEmitLLDP=yes\n")
	} else {
		b.WriteString("LLDP=no\n")
	}
	if p.bond != "" {
		b.WriteString("Bond=" + p.bond + "\n")
		return b.String()
	}
	// The VLAN that has no tag is named too: of a port without any, networkd would
	// not take away those that were there before.
	b.WriteString("Bridge=" + p.bridge + "\n\n[BridgeVLAN]\nPVID=1\nEgressUntagged=1\n")
	for _, tag := range p.tags {
		fmt.Fprintf(&b, "\n[BridgeVLAN]\nVLAN=%d\n", tag)
	}
	return b.String()
}

// tags returns the VLANs that a port of the device name carries with their tag:
// those in which the host is, and extra.
func (r renderer) tags(name string, extra []int) []int {
	tags := slices.Clone(extra)
	for _, v := range r.cfg.VLANs {
		if v.Parent == name {
			tags = append(tags, v.ID)
		}
	}
	tags = slices.DeleteFunc(tags, func(tag int) bool { return tag == 1 }) // the one without a tag
	slices.Sort(tags)
	return slices.Compact(tags)
}

func (r renderer) vlansOf(parent string) (names []string) {
	for _, v := range r.cfg.VLANs {
		if v.Parent == parent {
			names = append(names, v.Name)
		}
	}
	return names
}

// has reports whether the device name was rendered.
func (r renderer) has(name string) bool {
	_, ok := r.files[path.Join(networkdDir, prefix+"-"+hostPort(name)+".network")]
	return ok
}

func (r renderer) vlan(v api.NetworkVLAN) {
	device := "VLAN " + v.Name
	r.file(v.Name, ".netdev", device, fmt.Sprintf("# on %s\n[NetDev]\nName=%s\nKind=vlan\n\n[VLAN]\nId=%d\n", hostPort(v.Parent), v.Name, v.ID))
	r.file(v.Name, ".network", device, r.layer3(v.Name, v.NetworkAddressing, cmp.Or(v.MTU, min(defaultMTU, r.mtuOf(v.Parent))), "", nil))
}

func (r renderer) mtuOf(name string) int {
	for _, i := range r.cfg.Interfaces {
		if i.Name == name {
			return mtu(i.NetworkAddressing)
		}
	}
	for _, b := range r.cfg.Bonds {
		if b.Name == name {
			return mtu(b.NetworkAddressing)
		}
	}
	return defaultMTU
}

func (r renderer) wireguard(w api.NetworkWireguard) {
	device := "tunnel " + w.Name
	key := w.PrivateKey
	if key == "" {
		key = r.given.Keys[w.Name]
	}
	r.file(w.Name, ".netdev", device, wireguardNetdev(w, key))
	name := path.Join(networkdDir, prefix+"-"+w.Name+".netdev")
	f := r.files[name]
	f.Secret = true
	r.files[name] = f
	r.file(w.Name, ".network", device, r.layer3(w.Name, w.NetworkAddressing, w.MTU, "", nil))
}

func mtu(a api.NetworkAddressing) int { return cmp.Or(a.MTU, defaultMTU) }

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// names is the configuration of systemd-resolved, "" if there is none. What
// DHCP brings stays with its link and is used as well.
func names(d api.NetworkDNS) string {
	var lines []string
	if len(d.Nameservers) > 0 {
		lines = append(lines, "DNS="+strings.Join(d.Nameservers, " "))
	}
	if len(d.SearchDomains) > 0 {
		lines = append(lines, "Domains="+strings.Join(d.SearchDomains, " "))
	}
	if d.DNSOverTLS {
		lines = append(lines, "DNSOverTLS=yes")
	}
	if lines == nil {
		return ""
	}
	return "[Resolve]\n" + strings.Join(lines, "\n") + "\n"
}
