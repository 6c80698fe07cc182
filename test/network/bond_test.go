//go:build vm

package network_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/incusos/incusos/api"
)

func uplink(mode string) api.NetworkBond {
	b := api.NetworkBond{Name: "uplink", Mode: mode, Members: []string{mac(1, 2), mac(1, 3)}}
	b.Addresses = []string{"10.77.0.20/24"}
	return b
}

// A bond goes on without the cable that it was using.
func activeBackup(t *testing.T, g *guest) {
	g.world.plug(t, 2, 3)
	g.world.echo(t)
	g.set(t, api.NetworkConfig{Bonds: []api.NetworkBond{uplink("active-backup")}, VLANs: []api.NetworkVLAN{vlan(10, 10, "uplink")}})
	g.reaches(t, gateway4, "10.10.0.1")
	s := watch(t, gateway4)
	s.alive(t, 20)
	for _, n := range []int{2, 3} { // one of them is the active one
		g.cable(n, false)
		eventually(t, 20*time.Second, func() error { return carrier(t, n, "0") })
		s.alive(t, 20)
		g.reaches(t, "10.10.0.1")
		g.cable(n, true)
		eventually(t, 20*time.Second, func() error { return carrier(t, n, "1") })
		s.alive(t, 20)
	}
	if sent, lost, worst := s.result(); worst > 5 {
		t.Errorf("%d packets of %d were lost, up to %d seconds at a time", lost, sent, worst)
	}
	if st := g.state(t, "uplink"); st.Type != "bond" || len(st.Members) != 2 {
		t.Errorf("the state is %+v", st)
	}
}

// carrier wants a card of the machine, whatever it is called by now, to have a
// carrier or none.
func carrier(t *testing.T, n int, want string) error {
	t.Helper()
	cards, err := filepath.Glob("/sys/class/net/*/device")
	if err != nil {
		return err
	}
	for _, c := range cards {
		dir := filepath.Dir(c)
		if permanent(dir) != mac(1, n) {
			continue
		}
		b, err := os.ReadFile(dir + "/carrier")
		if got := strings.TrimSpace(string(b)); err != nil || got != want {
			return fmt.Errorf("the carrier of card %d is %q, %w; want %s", n, got, err, want)
		}
		return nil
	}
	return fmt.Errorf("there is no card %d", n)
}

// permanent is the address that a card was made with, whatever it has by now.
func permanent(dir string) string {
	link, err := netlink.LinkByName(filepath.Base(dir))
	if err != nil {
		return "" // gone meanwhile
	}
	return link.Attrs().PermHWAddr.String()
}

// A bond finds its switch, and uses both cables.
func lacp(t *testing.T, g *guest) {
	g.world.in(t, "ip", "link", "add", "trunk", "type", "bond", "mode", "802.3ad", "miimon", "100", "lacp_rate", "fast")
	for _, n := range []int{2, 3} {
		g.world.in(t, "ip", "link", "set", g.world.ports[n-1], "master", "trunk")
	}
	g.world.plugDevices(t, "trunk")
	g.world.echo(t)
	g.set(t, api.NetworkConfig{Bonds: []api.NetworkBond{uplink("802.3ad")}, VLANs: []api.NetworkVLAN{vlan(20, 20, "uplink")}})
	g.reaches(t, gateway4, "10.20.0.1")
	eventually(t, time.Minute, func() error {
		s := g.state(t, "uplink")
		if s.LACP == nil || s.LACP.RemoteMAC == "" || s.LACP.RemoteMAC == "00:00:00:00:00:00" {
			return fmt.Errorf("no partner in the state: %+v", s.LACP)
		}
		return nil
	})
	s := watch(t, gateway4)
	s.alive(t, 20)
	g.cable(2, false)
	s.alive(t, 50)
	g.reaches(t, "10.20.0.1")
}
