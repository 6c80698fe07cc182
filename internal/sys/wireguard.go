package sys

import (
	"fmt"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

func (kernelLinks) Wireguard(name string) (Wireguard, error) {
	client, err := wgctrl.New()
	if err != nil {
		return Wireguard{}, fmt.Errorf("asking the kernel about tunnels: %w", err)
	}
	defer client.Close()
	d, err := client.Device(name)
	if err != nil {
		return Wireguard{}, fmt.Errorf("asking the kernel about tunnel %s: %w", name, err)
	}
	w := Wireguard{PublicKey: d.PublicKey.String(), Port: d.ListenPort}
	for _, p := range d.Peers {
		w.Peers = append(w.Peers, peer(p))
	}
	return w, nil
}

func peer(p wgtypes.Peer) WireguardPeer {
	out := WireguardPeer{PublicKey: p.PublicKey.String(), Keepalive: p.PersistentKeepaliveInterval, Rx: p.ReceiveBytes, Tx: p.TransmitBytes}
	if p.Endpoint != nil {
		out.Endpoint = p.Endpoint.String()
	}
	if p.LastHandshakeTime.After(time.Unix(0, 0)) {
		out.Handshake = p.LastHandshakeTime
	}
	for _, a := range p.AllowedIPs {
		out.AllowedIPs = append(out.AllowedIPs, a.String())
	}
	return out
}
