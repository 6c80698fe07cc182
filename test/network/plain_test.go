//go:build vm

package network_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/incusos/incusos/api"
)

// lan is the first card with addresses that do not change.
func (g *guest) lan(addresses ...string) api.NetworkInterface {
	i := api.NetworkInterface{Name: "lan", Hwaddr: mac(1, 1)}
	i.Addresses = addresses
	return i
}

// Without any document, a machine has addresses from whoever gives some.
func defaultDocument(t *testing.T, g *guest) {
	g.world.plug(t, 1)
	d := g.world.serveAddresses(t)
	g.world.echo(t)
	g.set(t, api.NetworkConfig{})
	g.has(t, net4, net6)
	g.reaches(t, gateway4, gateway6, beyond)
	if d.log.count("DHCPACK") == 0 {
		t.Errorf("the server gave no address")
	}
	if err := g.reconcile(t); err != nil {
		t.Errorf("the area is degraded: %v", err)
	}
}

func staticAddresses(t *testing.T, g *guest) {
	g.world.plug(t, 1)
	g.world.echo(t)
	lan := g.lan("10.77.0.10/24", "fd77::10/64")
	lan.Routes = []api.NetworkRoute{{To: beyond + "/32", Via: gateway4}}
	c := api.NetworkConfig{Interfaces: []api.NetworkInterface{lan}}
	g.set(t, c)
	g.reaches(t, gateway4, gateway6, beyond)
	s := g.state(t, "lan")
	if s.Type != "interface" || !slices.Contains(s.Addresses, "10.77.0.10/24") || !slices.Contains(s.Addresses, "fd77::10/64") || s.Hwaddr != mac(1, 1) {
		t.Errorf("the state is %+v", s)
	}
	before := index(t, "lan")
	g.set(t, c)
	if plan, err := g.parts.Machine.Network.Plan(t.Context(), c); err != nil || len(plan.Steps) > 0 {
		t.Errorf("there is something left to do: %+v, %v", plan, err)
	}
	if index(t, "lan") != before {
		t.Error("the same configuration made a new device")
	}
}

// vlan is a VLAN of a device, with an address in the network of the world's.
func vlan(id, network int, parent string) api.NetworkVLAN {
	v := api.NetworkVLAN{Name: fmt.Sprintf("vlan%d", id), Parent: parent, ID: id}
	v.Addresses = []string{fmt.Sprintf("10.%d.0.2/24", network)}
	return v
}

// Whoever adds VLANs does not notice it on what is there.
func vlansWithoutFlap(t *testing.T, g *guest) {
	g.world.plug(t, 1)
	d := g.world.serveAddresses(t)
	g.world.echo(t)
	c := api.NetworkConfig{Interfaces: []api.NetworkInterface{g.lan("dhcp4", "slaac")}}
	g.set(t, c)
	g.has(t, net4, net6)
	g.reaches(t, gateway4)
	had, wasIndex, wasFlaps, wasAsked := g.state(t, "lan").Addresses, index(t, "lan"), flaps(t, "lan"), d.log.count("DHCPDISCOVER")
	s := watch(t, gateway4)
	s.alive(t, 20)

	c.VLANs = []api.NetworkVLAN{vlan(10, 10, "lan"), vlan(20, 20, "lan")}
	g.set(t, c)
	g.reaches(t, "10.10.0.1", "10.20.0.1")
	c.VLANs = []api.NetworkVLAN{vlan(10, 10, "lan"), vlan(20, 30, "lan")} // an address of another VLAN
	g.set(t, c)
	g.reaches(t, "10.10.0.1")
	never(t, "10.30.0.1")
	c.VLANs = c.VLANs[:1]
	g.set(t, c)
	g.reaches(t, "10.10.0.1")
	s.alive(t, 20)

	if sent, lost, _ := s.result(); lost > 0 {
		t.Errorf("%d of %d packets were lost", lost, sent)
	}
	if got := g.state(t, "lan").Addresses; !slices.Equal(got, had) {
		t.Errorf("the addresses were %q and are %q", had, got)
	}
	if got := index(t, "lan"); got != wasIndex {
		t.Errorf("the device was %d and is %d", wasIndex, got)
	}
	if got := flaps(t, "lan"); got != wasFlaps {
		t.Errorf("the carrier changed %d times", got-wasFlaps)
	}
	if got := d.log.count("DHCPDISCOVER"); got != wasAsked {
		t.Errorf("the machine looked for an address %d times more", got-wasAsked)
	}
}

// A lease outlives a change that is made while its server is away.
func vlansWithoutServer(t *testing.T, g *guest) {
	g.world.plug(t, 1)
	d := g.world.serveAddresses(t)
	g.world.echo(t)
	c := api.NetworkConfig{Interfaces: []api.NetworkInterface{g.lan("dhcp4")}}
	g.set(t, c)
	g.has(t, net4)
	g.reaches(t, gateway4)
	had := g.state(t, "lan").Addresses
	d.stop()
	s := watch(t, gateway4)
	s.alive(t, 20)
	c.VLANs = []api.NetworkVLAN{vlan(10, 10, "lan")}
	g.set(t, c)
	g.reaches(t, "10.10.0.1")
	s.alive(t, 500) // ten seconds
	if sent, lost, _ := s.result(); lost > 0 {
		t.Errorf("%d of %d packets were lost", lost, sent)
	}
	if got := g.state(t, "lan").Addresses; !slices.Equal(got, had) {
		t.Errorf("the addresses were %q and are %q", had, got)
	}
}

// A frame of 9000 bytes goes all the way, and the VLAN beside keeps to its own.
func jumboFrames(t *testing.T, g *guest) {
	g.world.plug(t, 1)
	g.world.in(t, "ip", "link", "set", g.world.ports[0], "mtu", "9000")
	g.world.in(t, "ip", "link", "set", "switch", "mtu", "9000")
	g.world.echo(t)
	lan := g.lan("10.77.0.10/24")
	lan.MTU = 9000
	g.set(t, api.NetworkConfig{Interfaces: []api.NetworkInterface{lan}, VLANs: []api.NetworkVLAN{vlan(10, 10, "lan")}})
	g.reaches(t, gateway4, "10.10.0.1")
	const headers = 28 // of IPv4 and UDP
	eventually(t, 20*time.Second, func() error { return ask(at(gateway4), 9000-headers) })
	if err := ask(at(gateway4), 9001-headers); err == nil {
		t.Error("a packet of 9001 bytes came back")
	}
	if err := ask(at("10.10.0.1"), 1501-headers); err == nil {
		t.Error("a packet of 1501 bytes came back over the VLAN")
	}
	if s := g.state(t, "lan"); s.MTU != 9000 {
		t.Errorf("the MTU of lan is shown as %d", s.MTU)
	}
}

// A card that goes away is complained about, and found again.
func missingCard(t *testing.T, g *guest) {
	g.world.plug(t, 1, 4)
	g.world.echo(t)
	spare := api.NetworkInterface{Name: "spare", Hwaddr: mac(1, 4)}
	spare.Addresses = []string{"10.44.0.44/24"}
	g.set(t, api.NetworkConfig{Interfaces: []api.NetworkInterface{g.lan("10.77.0.10/24"), spare}})
	g.has(t, "10.44.0.44/32")
	driver, virtio := g.driver(t, 4)
	put(t, driver+"/unbind", virtio)
	eventually(t, 20*time.Second, func() error {
		if err := g.reconcile(t); err == nil || !strings.Contains(err.Error(), mac(1, 4)) && !strings.Contains(err.Error(), "spare") {
			return fmt.Errorf("the area says %w; want a complaint about the card %s", err, mac(1, 4))
		}
		return nil
	})
	g.reaches(t, gateway4) // the others do not care
	put(t, driver+"/bind", virtio)
	eventually(t, time.Minute, func() error { return g.reconcile(t) })
	g.has(t, "10.44.0.44/32")
}
