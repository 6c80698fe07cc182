package network

import (
	"fmt"
	"net"
	"path"
	"slices"
	"strings"

	"github.com/incusos/incusos/api"
)

// Render returns the files that implement cfg, path to content. cfg must be
// valid. Without any interface, every network card asks by DHCP and listens to
// router advertisements.
func Render(cfg api.NetworkConfig) map[string]string {
	files := make(map[string]string)
	for _, i := range cfg.Interfaces {
		files[path.Join(networkdDir, prefix+"-"+i.Name+".network")] = link(i)
	}
	if len(cfg.Interfaces) == 0 {
		files[path.Join(networkdDir, prefix+".network")] = anyLink
	}
	if c := names(cfg.DNS); c != "" {
		files[path.Join(resolvedDir, prefix+".conf")] = c
	}
	if len(cfg.Time.NTPServers) > 0 {
		files[path.Join(timesyncdDir, prefix+".conf")] = "[Time]\nNTP=" + strings.Join(cfg.Time.NTPServers, " ") + "\n"
	}
	return files
}

// card matches what is soldered or plugged in: Incus' bridges, veth pairs and
// taps have a kind, cards have none (systemd.network(5), Kind=).
const card = "Type=ether\nKind=!*\n"

// anyLink does not delay the boot, since which of the cards are connected is
// not known.
const anyLink = `[Match]
` + card + `Name=en* eth*

[Link]
RequiredForOnline=no

[Network]
DHCP=yes
IPv6AcceptRA=yes
LinkLocalAddressing=ipv6

[DHCPv4]
ClientIdentifier=mac
`

// defaultMTU is Ethernet's, and what api.NetworkInterface promises for 0.
const defaultMTU = 1500

func link(i api.NetworkInterface) string {
	var b strings.Builder
	b.WriteString("[Match]\n" + match(i.Hwaddr))
	mtu := i.MTU
	if mtu == 0 {
		mtu = defaultMTU
	}
	fmt.Fprintf(&b, "\n[Link]\nMTUBytes=%d\n%s", mtu, required(i.RequiredForOnline))
	b.WriteString("\n[Network]\n" + addresses(i.Addresses))
	if i.LLDP {
		b.WriteString("LLDP=yes\nEmitLLDP=yes\n")
	}
	if slices.Contains(i.Addresses, "dhcp4") {
		b.WriteString("\n[DHCPv4]\nClientIdentifier=mac\n")
	}
	if slices.Contains(i.Addresses, "dhcp6") && !slices.Contains(i.Addresses, "slaac") {
		b.WriteString("\n[DHCPv6]\nWithoutRA=solicit\n")
	}
	for _, r := range i.Routes {
		fmt.Fprintf(&b, "\n[Route]\nDestination=%s\nGateway=%s\n", r.To, gateway(r.Via))
	}
	return b.String()
}

func match(hwaddr string) string {
	if isMAC(hwaddr) {
		return card + "MACAddress=" + strings.ToLower(hwaddr) + "\n"
	}
	return card + "Name=" + hwaddr + "\n"
}

func isMAC(s string) bool {
	_, err := net.ParseMAC(s)
	return err == nil
}

func required(family string) string {
	switch family {
	case "no":
		return "RequiredForOnline=no\n"
	case "":
		family = "any"
	}
	return "RequiredForOnline=yes\nRequiredFamilyForOnline=" + family + "\n"
}

func addresses(list []string) string {
	if len(list) == 0 {
		return "DHCP=no\nIPv6AcceptRA=no\nLinkLocalAddressing=no\nConfigureWithoutCarrier=yes\n"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "DHCP=%s\n", dhcp(slices.Contains(list, "dhcp4"), slices.Contains(list, "dhcp6")))
	fmt.Fprintf(&b, "IPv6AcceptRA=%s\n", yes(slices.Contains(list, "slaac")))
	b.WriteString("LinkLocalAddressing=ipv6\n")
	for _, a := range list {
		if strings.Contains(a, "/") {
			fmt.Fprintf(&b, "Address=%s\n", a)
		}
	}
	return b.String()
}

func dhcp(v4, v6 bool) string {
	switch {
	case v4 && v6:
		return "yes"
	case v4:
		return "ipv4"
	case v6:
		return "ipv6"
	}
	return "no"
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// gateway translates the two words that stand for "whoever told us"
// (systemd.network(5), Gateway=).
func gateway(via string) string {
	switch via {
	case "dhcp4":
		return "_dhcp4"
	case "slaac":
		return "_ipv6ra"
	}
	return via
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
	if lines == nil {
		return ""
	}
	return "[Resolve]\n" + strings.Join(lines, "\n") + "\n"
}
