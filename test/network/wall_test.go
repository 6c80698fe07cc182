//go:build vm

package network_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/incusos/incusos/api"
)

// A tunnel comes about with a peer that was told our key.
func wireGuard(t *testing.T, g *guest) {
	g.world.plug(t, 1)
	peer, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	own, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	g.world.tunnel(t, peer, own.PublicKey())
	g.world.echo(t)
	tunnel := api.NetworkWireguard{Name: "tunnel", PrivateKey: api.Secret(own.String()), Port: 51820}
	tunnel.Addresses = []string{"10.99.0.2/24"}
	tunnel.Peers = []api.NetworkWireguardPeer{{
		PublicKey: peer.PublicKey().String(), AllowedIPs: []string{"10.99.0.0/24"}, Endpoint: gateway4 + ":51821", PersistentKeepalive: 5,
	}}
	g.set(t, api.NetworkConfig{Interfaces: []api.NetworkInterface{g.lan("10.77.0.10/24")}, Wireguard: []api.NetworkWireguard{tunnel}})
	g.reaches(t, "10.99.0.1")
	eventually(t, time.Minute, func() error {
		s := g.state(t, "tunnel")
		if s.Wireguard == nil || len(s.Wireguard.Peers) != 1 || s.Wireguard.Peers[0].LatestHandshake == "" {
			return fmt.Errorf("no handshake in the state: %+v", s.Wireguard)
		}
		return nil
	})
}

// tunnel is the world's end.
func (w *world) tunnel(t *testing.T, private, peer wgtypes.Key) {
	t.Helper()
	w.in(t, "ip", "link", "add", "wg0", "type", "wireguard")
	_, allowed, err := net.ParseCIDR("10.99.0.2/32")
	if err != nil {
		t.Fatal(err)
	}
	listen := 51821
	inside(t, outside, func() (struct{}, error) {
		c, err := wgctrl.New()
		if err != nil {
			return struct{}{}, err
		}
		defer c.Close()
		return struct{}{}, c.ConfigureDevice("wg0", wgtypes.Config{
			PrivateKey: &private, ListenPort: &listen, Peers: []wgtypes.PeerConfig{{PublicKey: peer, AllowedIPs: []net.IPNet{*allowed}}},
		})
	})
	w.in(t, "ip", "address", "add", "10.99.0.1/24", "dev", "wg0")
	w.in(t, "ip", "link", "set", "wg0", "up")
}

// Nobody gets in but where the system itself listens, or the operator says so.
// What instances do is theirs.
func firewall(t *testing.T, g *guest) {
	g.world.plug(t, 1)
	g.world.echo(t)
	c := api.NetworkConfig{Interfaces: []api.NetworkInterface{g.lan("10.77.0.10/24")}}
	g.set(t, c)
	g.reaches(t, gateway4)
	for _, address := range []string{":8443", ":5000", ":5001"} {
		g.open(t, address)
	}
	// Incus' bridge, with an instance, as Incus makes them.
	g.container(t, "instance", "lan", 0, "10.77.0.50/24")
	accept(t, func() (net.Listener, error) {
		return inside(t, "instance", func() (net.Listener, error) { return net.Listen("tcp", "10.77.0.50:5000") }), nil
	})
	check := func(when string, want map[string]bool) {
		t.Helper()
		for address, open := range want {
			if got := g.world.connects(t, address); got != open {
				t.Errorf("%s, %s is reached: %v; want %v", when, address, got, open)
			}
		}
	}
	check("by default", map[string]bool{"10.77.0.10:8443": true, "10.77.0.10:5000": false, "10.77.0.10:5001": false, "10.77.0.50:5000": true})
	c.Interfaces[0].FirewallRules = []api.NetworkFirewallRule{{Action: "accept", Source: "10.77.0.0/24", Protocol: "tcp", Port: 5000}}
	g.set(t, c)
	check("with a rule", map[string]bool{"10.77.0.10:8443": true, "10.77.0.10:5000": true, "10.77.0.10:5001": false, "10.77.0.50:5000": true})
	c.Interfaces[0].FirewallRules = nil
	g.set(t, c)
	check("without it again", map[string]bool{"10.77.0.10:5000": false, "10.77.0.50:5000": true})
}

// container puts a network namespace on a bridge as Incus does with the nic of a
// container (nictype bridged): untagged, or in a VLAN.
func (g *guest) container(t *testing.T, name, bridge string, vlan int, address string) {
	t.Helper()
	g.run(t, "ip", "netns", "add", name)
	t.Cleanup(func() { g.world.do(t, "ip", "netns", "del", name) })
	g.run(t, "ip", "link", "add", "veth-"+name, "type", "veth", "peer", "name", "eth0", "netns", name)
	g.run(t, "ip", "link", "set", "veth-"+name, "master", bridge)
	if vlan != 0 {
		g.run(t, "bridge", "vlan", "del", "dev", "veth-"+name, "vid", "1")
		g.run(t, "bridge", "vlan", "add", "dev", "veth-"+name, "vid", fmt.Sprint(vlan), "pvid", "untagged")
	}
	g.run(t, "ip", "link", "set", "veth-"+name, "up")
	g.dress(t, name, "eth0", address)
}

func (g *guest) dress(t *testing.T, namespace, device, address string) {
	t.Helper()
	for _, line := range [][]string{{"link", "set", "lo", "up"}, {"address", "add", address, "dev", device}, {"link", "set", device, "up"}} {
		g.run(t, "ip", append([]string{"-n", namespace}, line...)...)
	}
}

// from waits until the instance in a namespace reaches a host.
func from(t *testing.T, namespace, host string) {
	t.Helper()
	eventually(t, 30*time.Second, func() error {
		return inside(t, namespace, func() (error, error) { return ask(at(host), 64), nil }) //nolint:staticcheck // the answer is an error
	})
}

// A container attached to a VLAN of a managed interface reaches a peer outside:
// in a VLAN that the host is in as well, and in one that is for instances alone.
func containerInVLAN(t *testing.T, g *guest) {
	g.world.plug(t, 1)
	g.world.echo(t)
	lan := g.lan("10.77.0.10/24")
	lan.VLANTags = []int{20}
	g.set(t, api.NetworkConfig{Interfaces: []api.NetworkInterface{lan}, VLANs: []api.NetworkVLAN{vlan(10, 10, "lan")}})
	g.reaches(t, gateway4, "10.10.0.1")
	g.container(t, "untagged", "lan", 0, "10.77.0.60/24")
	g.container(t, "tagged", "lan", 10, "10.10.0.60/24")
	g.container(t, "alone", "lan", 20, "10.20.0.60/24")
	from(t, "untagged", gateway4)
	from(t, "tagged", "10.10.0.1")
	from(t, "alone", "10.20.0.1")
	g.reaches(t, gateway4, "10.10.0.1") // the host keeps its own
}

// A bridge stays as long as instances are on it, and is the interface's again when
// that comes back.
func bridgeTakenBack(t *testing.T, g *guest) {
	g.world.plug(t, 1)
	g.world.echo(t)
	lan := api.NetworkConfig{Interfaces: []api.NetworkInterface{g.lan("10.77.0.10/24")}}
	g.set(t, lan)
	g.reaches(t, gateway4)
	g.container(t, "untagged", "lan", 0, "10.77.0.60/24")
	from(t, "untagged", gateway4)
	g.set(t, api.NetworkConfig{})
	g.set(t, lan)
	g.reaches(t, gateway4)
	from(t, "untagged", gateway4)
}

// macvlanOnCard attaches an instance as Incus does with nictype macvlan.
func macvlanOnCard(t *testing.T, g *guest) {
	g.world.plug(t, 1)
	g.world.echo(t)
	g.set(t, api.NetworkConfig{Interfaces: []api.NetworkInterface{g.lan("10.77.0.10/24")}})
	g.reaches(t, gateway4)
	g.run(t, "ip", "netns", "add", "macvlan")
	t.Cleanup(func() { g.world.do(t, "ip", "netns", "del", "macvlan") })
	g.run(t, "ip", "link", "add", "link", "lan", "name", "mac0", "type", "macvlan", "mode", "bridge")
	g.run(t, "ip", "link", "set", "mac0", "netns", "macvlan")
	g.dress(t, "macvlan", "mac0", "10.77.0.70/24")
	from(t, "macvlan", gateway4)
	g.reaches(t, gateway4)
}

// driver is where the driver of a card can be taken from it, and the card's name
// there.
func (g *guest) driver(t *testing.T, n int) (dir, device string) {
	t.Helper()
	cards, err := filepath.Glob("/sys/class/net/*/device")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cards {
		target, err := filepath.EvalSymlinks(c)
		if err != nil || permanent(filepath.Dir(c)) != mac(1, n) {
			continue
		}
		dir, err = filepath.EvalSymlinks(filepath.Join(c, "driver"))
		if err != nil {
			t.Fatal(err)
		}
		return dir, filepath.Base(target)
	}
	t.Fatalf("there is no card %d", n)
	return "", ""
}

func put(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o200); err != nil {
		t.Fatal(err)
	}
}
