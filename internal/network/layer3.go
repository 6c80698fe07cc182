package network

import (
	"fmt"
	"slices"
	"strings"

	"github.com/incusos/incusos/api"
)

// layer3 returns the .network file of a device on which the host has addresses
// (systemd.network(5)). What the machine is called is not for a DHCP server to say.
func (r renderer) layer3(name string, a api.NetworkAddressing, mtu int, uplink string, vlans []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "[Match]\nName=%s\n\n[Link]\n", name)
	if mtu > 0 {
		fmt.Fprintf(&b, "MTUBytes=%d\n", mtu)
	}
	b.WriteString(required(a) + "\n[Network]\n" + addresses(a.Addresses) + "LLDP=no\n")
	if uplink != "" {
		b.WriteString("BindCarrier=" + uplink + "\n")
	}
	for _, v := range vlans {
		b.WriteString("VLAN=" + v + "\n")
	}
	if slices.Contains(a.Addresses, "dhcp4") {
		b.WriteString("\n[DHCPv4]\nClientIdentifier=mac\nUseHostname=no\n")
	}
	if slices.Contains(a.Addresses, "dhcp6") {
		b.WriteString("\n[DHCPv6]\nUseHostname=no\n")
		if !slices.Contains(a.Addresses, "slaac") {
			b.WriteString("WithoutRA=solicit\n")
		}
	}
	for _, route := range a.Routes {
		fmt.Fprintf(&b, "\n[Route]\nDestination=%s\nGateway=%s\n", route.To, gateway(route.Via))
		if route.OnLink {
			b.WriteString("GatewayOnLink=yes\n")
		}
	}
	return b.String()
}

// required says whether the machine counts as online without this device. One
// without addresses is for instances.
func required(a api.NetworkAddressing) string {
	family := a.RequiredForOnline
	switch {
	case family == "no" || family == "" && len(a.Addresses) == 0:
		return "RequiredForOnline=no\n"
	case family == "":
		family = "any"
	}
	return "RequiredForOnline=yes\nRequiredFamilyForOnline=" + family + "\n"
}

func addresses(list []string) string {
	if len(list) == 0 {
		return silent + "ConfigureWithoutCarrier=yes\n"
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
