package network_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/network"
	"github.com/incusos/incusos/internal/sys/systest"
)

// cardsOfFour is a machine with four cards.
func cardsOfFour() systest.Machine {
	m := systest.Sensible()
	m.NICs = nil
	for i := 1; i <= 4; i++ {
		m.NICs = append(m.NICs, systest.NIC{Name: fmt.Sprintf("enp%ds0", i), Hwaddr: fmt.Sprintf("02:00:00:00:00:%02x", i), Up: true})
	}
	return m
}

// configuration draws a valid document for that machine.
func configuration(t *rapid.T) (cfg api.NetworkConfig) {
	devices := 0
	addressing := func(label string) api.NetworkAddressing {
		devices++
		a := api.NetworkAddressing{
			MTU:               rapid.SampledFrom([]int{0, 1500, 9000}).Draw(t, label+" mtu"),
			RequiredForOnline: rapid.SampledFrom([]string{"", "any", "ipv4", "ipv6", "both", "no"}).Draw(t, label+" required"),
			Roles:             rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"management", "cluster", "instances", "storage"}), 0, 2, rapid.ID).Draw(t, label+" roles"),
		}
		if rapid.Bool().Draw(t, label+" static") {
			a.Addresses = []string{fmt.Sprintf("198.51.100.%d/24", devices)}
			a.Routes = []api.NetworkRoute{{To: "10.0.0.0/8", Via: "198.51.100.254", OnLink: rapid.Bool().Draw(t, label+" onlink")}}
		}
		if rapid.Bool().Draw(t, label+" rule") {
			a.FirewallRules = []api.NetworkFirewallRule{{Action: "accept", Source: "2001:db8::/32", Protocol: "udp", Port: 53}, {Action: "drop"}}
		}
		return a
	}
	ethernet := func(label string) *api.NetworkEthernet {
		if !rapid.Bool().Draw(t, label+" ethernet") {
			return nil
		}
		return &api.NetworkEthernet{DisableGRO: rapid.Bool().Draw(t, label+" gro"), WakeOnLAN: rapid.Bool().Draw(t, label+" wake")}
	}
	var parents []string
	bonded := map[string]int{}
	for i, n := range cardsOfFour().NICs {
		called := rapid.SampledFrom([]string{n.Name, n.Hwaddr, strings.ToUpper(n.Hwaddr)}).Draw(t, "called")
		name := fmt.Sprint("dev", i)
		switch rapid.SampledFrom([]string{"spare", "interface", "own name", "bond"}).Draw(t, "use") {
		case "own name":
			name = n.Name
			fallthrough
		case "interface":
			d := api.NetworkInterface{Name: name, Hwaddr: called, NetworkAddressing: addressing(name), Ethernet: ethernet(name), StrictHwaddr: rapid.Bool().Draw(t, "strict")}
			if rapid.Bool().Draw(t, "dhcp") {
				d.Addresses = append(d.Addresses, "dhcp4", "slaac")
			}
			d.VLANTags = rapid.SliceOfNDistinct(rapid.IntRange(1, 4094), 0, 3, rapid.ID).Draw(t, "tags")
			cfg.Interfaces = append(cfg.Interfaces, d)
			parents = append(parents, name)
		case "bond":
			bond := rapid.SampledFrom([]string{"bond0", "bond1"}).Draw(t, "bond")
			if _, ok := bonded[bond]; !ok {
				bonded[bond] = len(cfg.Bonds)
				mode := rapid.SampledFrom(strings.Fields("balance-rr active-backup balance-xor broadcast 802.3ad balance-tlb balance-alb")).Draw(t, "mode")
				cfg.Bonds = append(cfg.Bonds, api.NetworkBond{Name: bond, Mode: mode, NetworkAddressing: addressing(bond), Ethernet: ethernet(bond)})
				parents = append(parents, bond)
			}
			b := &cfg.Bonds[bonded[bond]]
			b.Members = append(b.Members, called)
		}
	}
	for i := 0; len(parents) > 0 && i < rapid.IntRange(0, 3).Draw(t, "vlans"); i++ {
		name := fmt.Sprint("vlan", i)
		v := api.NetworkVLAN{Name: name, Parent: rapid.SampledFrom(parents).Draw(t, "parent"), ID: 100 + i, NetworkAddressing: addressing(name)}
		v.MTU = 0
		cfg.VLANs = append(cfg.VLANs, v)
	}
	if rapid.Bool().Draw(t, "tunnel") {
		key := base64.StdEncoding.EncodeToString(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "peer"))
		cfg.Wireguard = []api.NetworkWireguard{{Name: "wg0", Port: 51820, NetworkAddressing: addressing("wg0"), Peers: []api.NetworkWireguardPeer{{PublicKey: key, AllowedIPs: []string{"::/0"}}}}}
	}
	return cfg
}

// TestAnyConfigurationIsReached goes from one valid document to another:
// each is checked and applied, and has nothing left to do then.
func TestAnyConfigurationIsReached(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		rig := systest.New(t, cardsOfFour())
		var cfg api.NetworkConfig
		n := network.New(rig.Host, func() api.NetworkConfig { return cfg })
		for range 2 {
			cfg = configuration(rt)
			if err := cfg.Validate(); err != nil {
				rt.Fatalf("%v\n%+v", err, cfg)
			}
			if err := n.Check(cfg); err != nil {
				rt.Fatal(err)
			}
			if err := n.Apply(t.Context(), cfg); err != nil {
				rt.Fatal(err)
			}
			if p, err := n.Plan(cfg); err != nil || !p.Empty() {
				rt.Fatalf("after applying, to do: %v\n%s", err, p)
			}
			if err := n.Health(t.Context()); err != nil {
				rt.Fatal(err)
			}
			state, err := n.State(t.Context())
			if err != nil {
				rt.Fatal(err)
			}
			for _, d := range names(cfg) {
				if s, ok := state.Interfaces[d]; !ok || s.State == "missing" || s.State == "no-carrier" {
					rt.Fatalf("%s is %+v", d, s)
				}
			}
		}
	})
}

func names(cfg api.NetworkConfig) (names []string) {
	for _, i := range cfg.Interfaces {
		names = append(names, i.Name)
	}
	for _, b := range cfg.Bonds {
		names = append(names, b.Name)
	}
	for _, v := range cfg.VLANs {
		names = append(names, v.Name)
	}
	for _, w := range cfg.Wireguard {
		names = append(names, w.Name)
	}
	return names
}
