package network

import (
	"cmp"
	"fmt"
	"path"
	"strings"

	"github.com/incusos/incusos/api"
)

// bondNetdev returns the .netdev file of a bond (systemd.netdev(5), [Bond]). A bond
// that looked at nothing would never notice a failure, so it looks at the carrier.
func bondNetdev(name string, b api.NetworkBond) string {
	o := b.Options
	var s strings.Builder
	fmt.Fprintf(&s, "[NetDev]\nName=%s\nKind=bond\n\n[Bond]\nMode=%s\n", name, b.Mode)
	if o.ARPInterval > 0 {
		fmt.Fprintf(&s, "ARPIntervalSec=%dms\nARPIPTargets=%s\n", o.ARPInterval, strings.Join(o.ARPIPTargets, " "))
	} else {
		fmt.Fprintf(&s, "MIIMonitorSec=%dms\n", cmp.Or(o.MIIMonitorInterval, 100))
		for _, d := range []struct {
			key   string
			delay int
		}{{"UpDelaySec", o.UpDelay}, {"DownDelaySec", o.DownDelay}} {
			if d.delay > 0 {
				fmt.Fprintf(&s, "%s=%dms\n", d.key, d.delay)
			}
		}
	}
	policy := o.TransmitHashPolicy
	if b.Mode == "802.3ad" {
		s.WriteString("LACPTransmitRate=" + cmp.Or(o.LACPRate, "fast") + "\n")
		policy = cmp.Or(policy, "layer3+4")
	}
	if policy != "" {
		s.WriteString("TransmitHashPolicy=" + policy + "\n")
	}
	return s.String()
}

// wireguardNetdev returns the .netdev file of a tunnel (systemd.netdev(5),
// [WireGuard]).
func wireguardNetdev(w api.NetworkWireguard, key api.Secret) string {
	var s strings.Builder
	fmt.Fprintf(&s, "[NetDev]\nName=%s\nKind=wireguard\n\n[WireGuard]\nPrivateKey=%s\n", w.Name, string(key))
	if w.Port > 0 {
		fmt.Fprintf(&s, "ListenPort=%d\n", w.Port)
	}
	for _, p := range w.Peers {
		fmt.Fprintf(&s, "\n[WireGuardPeer]\nPublicKey=%s\n", p.PublicKey)
		if p.PresharedKey != "" {
			fmt.Fprintf(&s, "PresharedKey=%s\n", string(p.PresharedKey))
		}
		if len(p.AllowedIPs) > 0 {
			fmt.Fprintf(&s, "AllowedIPs=%s\n", strings.Join(p.AllowedIPs, ","))
		}
		if p.Endpoint != "" {
			fmt.Fprintf(&s, "Endpoint=%s\n", p.Endpoint)
		}
		if p.PersistentKeepalive > 0 {
			fmt.Fprintf(&s, "PersistentKeepalive=%d\n", p.PersistentKeepalive)
		}
	}
	return s.String()
}

// link adds the .link file of a card, from which udev sets it up (systemd.link(5)).
// Cards are renamed by Apply and not by udev, which would do so at a time of its own.
func (r renderer) link(device, mac string, e *api.NetworkEthernet) {
	if e == nil {
		return
	}
	r.files[path.Join(networkdDir, prefix+"-"+cardName(mac)+".link")] = File{Content: linkFile(mac, *e), Device: device, Secret: e.WakeOnLANPassword != ""}
}

func linkFile(mac string, e api.NetworkEthernet) string {
	var s strings.Builder
	fmt.Fprintf(&s, "[Match]\nPermanentMACAddress=%s\n\n[Link]\nNamePolicy=keep kernel database onboard slot path\nMACAddressPolicy=none\n", mac)
	fmt.Fprintf(&s, "GenericReceiveOffload=%s\nGenericReceiveOffloadHardware=%s\nGenericSegmentationOffload=%s\n", yes(!e.DisableGRO), yes(!e.DisableGRO), yes(!e.DisableGSO))
	fmt.Fprintf(&s, "TCPSegmentationOffload=%s\nTCP6SegmentationOffload=%s\n", yes(!e.DisableIPv4TSO), yes(!e.DisableIPv6TSO))
	for _, b := range []struct{ key, value string }{
		{"RxBufferSize", e.RxBufferSize}, {"RxMiniBufferSize", e.RxMiniBufferSize}, {"RxJumboBufferSize", e.RxJumboBufferSize}, {"TxBufferSize", e.TxBufferSize},
	} {
		if b.value != "" {
			s.WriteString(b.key + "=" + b.value + "\n")
		}
	}
	switch {
	case !e.WakeOnLAN:
		s.WriteString("WakeOnLan=off\n")
	case len(e.WakeOnLANModes) == 0:
		s.WriteString("WakeOnLan=magic\n")
	default:
		s.WriteString("WakeOnLan=" + strings.Join(e.WakeOnLANModes, " ") + "\n")
	}
	if e.WakeOnLANPassword != "" {
		s.WriteString("WakeOnLanPassword=" + string(e.WakeOnLANPassword) + "\n")
	}
	if e.DisableEnergyEfficient {
		s.WriteString("\n[EnergyEfficientEthernet]\nEnable=no\n")
	}
	return s.String()
}
