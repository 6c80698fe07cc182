package network_test

import (
	"encoding/base64"
	"fmt"
	"path"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/network"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/sys/systest"
)

const (
	mac  = "02:00:00:00:00:01"
	card = "_p020000000001"
)

// static is a configuration in which every service has something to read.
func static() api.NetworkConfig {
	return api.NetworkConfig{
		DNS:  api.NetworkDNS{Nameservers: []string{"192.0.2.53", "2001:db8::53"}, SearchDomains: []string{"example.net"}},
		Time: api.NetworkTime{NTPServers: []string{"ntp.example.net"}},
		Interfaces: []api.NetworkInterface{{
			Name: "mgmt", Hwaddr: strings.ToUpper(mac), LLDP: true,
			NetworkAddressing: api.NetworkAddressing{
				MTU: 9000, RequiredForOnline: "ipv4",
				Addresses: []string{"192.0.2.10/24", "slaac"},
				Routes:    []api.NetworkRoute{{To: "0.0.0.0/0", Via: "192.0.2.1"}, {To: "2001:db8:1::/48", Via: "slaac"}},
			},
			Ethernet: &api.NetworkEthernet{DisableGRO: true},
		}},
		VLANs: []api.NetworkVLAN{{Name: "san", Parent: "mgmt", ID: 30, NetworkAddressing: api.NetworkAddressing{Addresses: []string{"198.51.100.5/24"}}}},
		Wireguard: []api.NetworkWireguard{{
			Name: "wg0", Port: 51820, NetworkAddressing: api.NetworkAddressing{Addresses: []string{"10.9.0.1/24"}},
		}},
	}
}

// bonded uses the same card in another way.
func bonded() api.NetworkConfig {
	cfg := static()
	cfg.Bonds = []api.NetworkBond{{Name: "mgmt", Mode: "802.3ad", Members: []string{"enp1s0"}, NetworkAddressing: cfg.Interfaces[0].NetworkAddressing}}
	cfg.Interfaces, cfg.Wireguard = nil, nil
	return cfg
}

func start(t *testing.T, cfg api.NetworkConfig) (*systest.Rig, *network.Network) {
	rig := systest.New(t, systest.Sensible())
	return rig, network.New(rig.Host, func() api.NetworkConfig { return cfg })
}

func apply(t *testing.T, n *network.Network, cfg api.NetworkConfig) {
	t.Helper()
	if err := n.Apply(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
}

func TestInterfaceIsABridgeBesideTheHost(t *testing.T) {
	rig, n := start(t, static())
	apply(t, n, static())
	for name, want := range map[string]sys.Link{
		card:             {Master: "mgmt", Hwaddr: mac, MTU: 9000, Physical: true},
		"_i020000000001": {Master: "mgmt", MTU: 9000},
		"mgmt":           {MTU: 9000},
		"_vmgmt":         {Hwaddr: mac, MTU: 9000, Addresses: []string{"192.0.2.10/24"}},
		"san":            {MTU: 1500, Addresses: []string{"198.51.100.5/24"}},
		"wg0":            {MTU: 1500, Addresses: []string{"10.9.0.1/24"}},
	} {
		got, ok := rig.Links.Get(name)
		if !ok || got.Master != want.Master || got.MTU != want.MTU || got.Physical != want.Physical || !slices.Equal(got.Addresses, want.Addresses) || want.Hwaddr != "" && got.Hwaddr != want.Hwaddr {
			t.Errorf("%s is %+v, want %+v", name, got, want)
		}
	}
	if c, _ := rig.Links.Get(card); c.Current == mac || c.Current == "" {
		t.Errorf("the card still answers to %s, which is the host's", c.Current)
	}
}

func TestCardsBecomeWhatTheyWere(t *testing.T) {
	rig, n := start(t, static())
	apply(t, n, static())
	apply(t, n, bonded())
	if c, _ := rig.Links.Get(card); c.Master != "_bmgmt" || c.Current != mac {
		t.Errorf("in the bond the card is %+v", c)
	}
	apply(t, n, api.NetworkConfig{})
	links, _ := rig.Links.List()
	want := []sys.Link{{Name: "enp1s0", Hwaddr: mac, Current: mac, MTU: 9000, Enabled: true, Up: true, Physical: true, Addresses: []string{"192.0.2.10/24"}}}
	if diff := cmp.Diff(want, links); diff != "" {
		t.Errorf("devices (-want +got):\n%s", diff)
	}
}

func TestWhatTheSystemListensOnIsReached(t *testing.T) {
	rig, n := start(t, static())
	ports := []int{9443}
	n.Listens = func() []int { return ports }
	apply(t, n, static())
	ports = nil
	p, err := n.Plan(static())
	if err != nil || !slices.Equal(p.Tell, []string{"firewall"}) {
		t.Errorf("after a port was closed, tell %q, %v", p.Tell, err)
	}
	rules, err := rig.Host.Files.ReadFile("/run/incus-os/firewall/20-incus-os.nft")
	if err != nil || !strings.Contains(string(rules), "\t\ttcp dport 9443 accept\n") {
		t.Errorf("the port is not open: %v\n%s", err, rules)
	}
}

func TestLinksKeepTheNamesOfCards(t *testing.T) {
	_, n := start(t, static())
	apply(t, n, static())
	links, err := n.Links()
	if err != nil || !slices.ContainsFunc(links, func(l sys.Link) bool { return l.Name == "enp1s0" && l.Physical && l.Hwaddr == mac }) {
		t.Errorf("Links() = %+v, %v", links, err)
	}
}

func TestBridgeWithInstancesStays(t *testing.T) {
	cfg := static()
	cfg.Interfaces[0].Name, cfg.VLANs[0].Parent = "enp1s0", "enp1s0"
	rig, n := start(t, cfg)
	apply(t, n, cfg)
	links, _ := rig.Links.List()
	rig.Links.Set(append(links, sys.Link{Name: "veth1234", Master: "enp1s0", Up: true})...)
	p, err := n.Plan(api.NetworkConfig{})
	if err != nil || !strings.Contains(p.String(), "keep bridge enp1s0, to which instances are connected, without its card\n") {
		t.Errorf("plan: %v\n%s", err, p)
	}
	apply(t, n, api.NetworkConfig{})
	if l, _ := rig.Links.Get("veth1234"); l.Master != "enp1s0" {
		t.Error("the bridge is gone, and the instances are without it")
	}
	if l, _ := rig.Links.Get(card); l.Master != "" || l.Current != mac || !slices.Equal(l.Addresses, []string{"192.0.2.10/24"}) {
		t.Errorf("the card, whose name is taken, is %+v", l)
	}
}

func TestCardsAreLeftToUdevUntilItIsDone(t *testing.T) {
	rig, n := start(t, static())
	for name, content := range map[string]string{"/sys/class/net/enp1s0/ifindex": "2\n", "/run/udev/control": ""} {
		if err := rig.Host.Files.MkdirAll(path.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := rig.Host.Files.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	apply(t, n, static())
	if _, ok := rig.Links.Get("enp1s0"); !ok || n.Health(t.Context()) == nil {
		t.Error("the card was taken while udev was at it")
	}
	if err := rig.Host.Files.MkdirAll("/run/udev/data/n2", 0o755); err != nil {
		t.Fatal(err)
	}
	apply(t, n, static())
	if l, _ := rig.Links.Get(card); l.Master != "mgmt" {
		t.Errorf("the card is %+v once udev is done", l)
	}
}

func TestSecondApplyDoesNothing(t *testing.T) {
	rig, n := start(t, static())
	apply(t, n, static())
	before := rig.Programs.Ran()
	p, err := n.Plan(static())
	if err != nil || !p.Empty() || !p.Steps().Empty() {
		t.Errorf("plan after applying: %v\n%s", err, p)
	}
	apply(t, n, static())
	if got := rig.Programs.Ran(); !slices.Equal(got, before) {
		t.Errorf("ran %q the second time", got[len(before):])
	}
}

func TestPlanIsTheDifferenceInWords(t *testing.T) {
	_, n := start(t, static())
	p, err := n.Plan(static())
	if err != nil {
		t.Fatal(err)
	}
	want := `take card enp1s0 (02:00:00:00:00:01) (connections over it may end)
set up VLAN san
set up interface mgmt
set up tunnel wg0
replace the rules of the firewall
reload systemd-networkd.service
reload systemd-udevd.service
reload systemd-resolved.service
reload systemd-timesyncd.service
`
	if p.String() != want {
		t.Errorf("plan:\n%swant:\n%s", p, want)
	}
	apply(t, n, static())
	changed := static()
	changed.VLANs[0].ID = 31
	changed.Wireguard = nil
	p, err = n.Plan(changed)
	if err != nil {
		t.Fatal(err)
	}
	want = `take down wg0 (connections over it may end)
change VLAN san (connections over it may end)
change interface mgmt (connections over it may end)
replace the rules of the firewall
reload systemd-networkd.service
`
	if p.String() != want {
		t.Errorf("plan:\n%swant:\n%s", p, want)
	}
}

// TestVLANDoesNotFlapTheUplink looks at what Apply touches when the address of one
// VLAN changes.
func TestVLANDoesNotFlapTheUplink(t *testing.T) {
	_, n := start(t, static())
	apply(t, n, static())
	changed := static()
	changed.VLANs[0].Addresses = []string{"198.51.100.6/24"}
	p, err := n.Plan(changed)
	if err != nil || len(p.Delete) != 0 || len(p.Write) != 1 || !slices.Equal(p.Tell, []string{"systemd-networkd.service"}) {
		t.Errorf("to change an address of a VLAN, delete %q, write %d files, tell %q; %v", p.Delete, len(p.Write), p.Tell, err)
	}
}

func TestFilesOfTheImageStay(t *testing.T) {
	rig, n := start(t, static())
	const theirs = "/run/systemd/network/70-theirs.network"
	if err := rig.Host.Files.MkdirAll(path.Dir(theirs), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := rig.Host.Files.WriteFile(theirs, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	apply(t, n, static())
	apply(t, n, api.NetworkConfig{})
	if !rig.Host.Files.Exists(theirs) {
		t.Error("a file of the image was removed")
	}
}

// TestServicesCanReadTheirFiles runs with the umask of incus-osd.service.
func TestServicesCanReadTheirFiles(t *testing.T) {
	rig, n := start(t, static())
	old := syscall.Umask(0o077)
	err := n.Apply(t.Context(), static())
	syscall.Umask(old)
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range network.Render(static(), given()) {
		file, err := rig.Host.Files.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		dir, err := rig.Host.Files.Stat(path.Dir(name))
		if err != nil {
			t.Fatal(err)
		}
		want := "-rw-r--r--"
		if f.Secret {
			want = "-rw-r-----"
		}
		if file.Mode().String() != want || dir.Mode().Perm() != 0o755 {
			t.Errorf("%s has mode %s in a directory of mode %s, want %s in one readable by all", name, file.Mode(), dir.Mode(), want)
		}
	}
}

func TestKeyOfATunnelIsMadeOnceAndKept(t *testing.T) {
	rig, n := start(t, static())
	if _, err := n.Plan(static()); err != nil {
		t.Fatal(err)
	}
	const file = "/var/lib/incus-os/wireguard.wg0.key"
	if rig.Host.Files.Exists(file) {
		t.Error("a plan made a key")
	}
	apply(t, n, static())
	first, err := rig.Host.Files.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := base64.StdEncoding.DecodeString(string(first)); err != nil || len(b) != 32 || b[0]&7 != 0 || b[31]&192 != 64 {
		t.Error("the key is none of Curve25519")
	}
	if fi, err := rig.Host.Files.Stat(file); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("the key has mode %v, %v", fi.Mode(), err)
	}
	apply(t, n, api.NetworkConfig{})
	apply(t, n, static())
	if again, err := rig.Host.Files.ReadFile(file); err != nil || string(again) != string(first) {
		t.Errorf("the key is another one now; %v", err)
	}
}

func TestMissingCardIsReportedAfterTheRestIsApplied(t *testing.T) {
	cfg := static()
	cfg.Interfaces = append(cfg.Interfaces, api.NetworkInterface{Name: "back", Hwaddr: "02:00:00:00:00:99"}, api.NetworkInterface{Name: "usb", Hwaddr: "enx99"})
	rig, n := start(t, cfg)
	apply(t, n, cfg)
	err := n.Health(t.Context())
	if err == nil || !strings.Contains(err.Error(), `"back"`) || !strings.Contains(err.Error(), `"usb"`) || !strings.Contains(err.Error(), "enp1s0") {
		t.Errorf("Health() = %v, want it to name the interfaces and the cards there are", err)
	}
	if l, _ := rig.Links.Get("_vmgmt"); len(l.Addresses) == 0 {
		t.Error("the other interface was not configured")
	}
	if err := n.Check(cfg); err == nil || !strings.HasPrefix(err.Error(), "interfaces[1].hwaddr: ") {
		t.Errorf("Check() = %v, want it to refuse the card", err)
	}
	// It is plugged in.
	links, _ := rig.Links.List()
	rig.Links.Set(append(links, sys.Link{Name: "enp9s0", Hwaddr: "02:00:00:00:00:99", MTU: 1500, Up: true, Physical: true})...)
	if err := n.Health(t.Context()); err == nil || !strings.Contains(err.Error(), "02:00:00:00:00:99 (enp9s0) has just appeared") {
		t.Errorf("Health() = %v, want it to name the card that nobody set up yet", err)
	}
	apply(t, n, cfg)
	if l, ok := rig.Links.Get("_p020000000099"); !ok || l.Master != "back" {
		t.Errorf("the card that was plugged in is %+v", l)
	}
}

func TestCableIsPartOfHealth(t *testing.T) {
	rig, n := start(t, static())
	apply(t, n, static())
	if err := n.Health(t.Context()); err != nil {
		t.Fatal(err)
	}
	links, _ := rig.Links.List()
	links[0].Enabled, links[0].Up = true, false
	rig.Links.Set(links...)
	if err := n.Health(t.Context()); err == nil || !strings.Contains(err.Error(), "no carrier; check the cable") {
		t.Errorf("Health() = %v without cable", err)
	}
	state, err := n.State(t.Context())
	if err != nil || state.Interfaces["mgmt"].State != "no-carrier" {
		t.Errorf("state without cable is %+v, %v", state.Interfaces["mgmt"], err)
	}
}

func TestOneCardUnderTwoNamesIsRefused(t *testing.T) {
	_, n := start(t, static())
	cfg := static()
	cfg.Interfaces = append(cfg.Interfaces, api.NetworkInterface{Name: "again", Hwaddr: "enp1s0"})
	if err := n.Check(cfg); err == nil || !strings.Contains(err.Error(), "the same card") {
		t.Errorf("Check() = %v", err)
	}
}

func TestState(t *testing.T) {
	rig, n := start(t, static())
	apply(t, n, static())
	links, _ := rig.Links.List()
	rig.Links.Set(append(links, sys.Link{Name: "enp2s0", Hwaddr: "02:00:00:00:00:02", MTU: 1500, Physical: true}, sys.Link{Name: "incusbr0", Up: true, Addresses: []string{"10.0.0.1/24"}})...)
	rig.Links.SetRoutes(sys.Route{Link: "_vmgmt", To: "0.0.0.0/0", Via: "192.0.2.1"})
	rig.Links.SetWireguard("wg0", sys.Wireguard{PublicKey: "K=", Port: 51820, Peers: []sys.WireguardPeer{{PublicKey: "P=", AllowedIPs: []string{"10.9.0.2/32"}, Keepalive: 25e9, Rx: 7}}})
	for name, content := range map[string]string{"statistics/rx_bytes": "42\n", "speed": "1000\n"} {
		file := "/sys/class/net/" + card + "/" + name
		if err := rig.Host.Files.MkdirAll(path.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := rig.Host.Files.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := n.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	roles := []string{"management", "cluster"}
	want := map[string]api.InterfaceState{
		"mgmt": {
			Type: "interface", State: "routable", Hwaddr: mac, MTU: 9000, Speed: "1000", Addresses: []string{"192.0.2.10/24"}, Roles: roles,
			Routes: []api.NetworkRoute{{To: "0.0.0.0/0", Via: "192.0.2.1"}}, Stats: api.InterfaceStats{RxBytes: 42},
		},
		"san": {Type: "vlan", State: "routable", Hwaddr: "02:ff:00:00:00:00", MTU: 1500, Addresses: []string{"198.51.100.5/24"}, Roles: roles},
		"wg0": {
			Type: "wireguard", State: "routable", MTU: 1500, Addresses: []string{"10.9.0.1/24"}, Roles: roles,
			Wireguard: &api.WireguardState{PublicKey: "K=", ListeningPort: 51820, Peers: []api.WireguardPeerState{{
				PublicKey: "P=", AllowedIPs: []string{"10.9.0.2/32"}, PersistentKeepalive: "25s", Stats: api.InterfaceStats{RxBytes: 7},
			}}},
		},
		"enp2s0": {Type: "physical", State: "no-carrier", Hwaddr: "02:00:00:00:00:02", MTU: 1500},
	}
	if diff := cmp.Diff(want, got.Interfaces); diff != "" {
		t.Errorf("state (-want +got):\n%s", diff)
	}
	if len(got.Warnings) != 1 || !strings.HasPrefix(got.Warnings[0], "clock: not set by a time server yet") {
		t.Errorf("warnings: %q", got.Warnings)
	}
}

func TestStateOfABond(t *testing.T) {
	rig, n := start(t, bonded())
	apply(t, n, bonded())
	file := "/sys/class/net/_bmgmt/bonding/ad_partner_mac"
	if err := rig.Host.Files.MkdirAll(path.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := rig.Host.Files.WriteFile(file, []byte("02:00:00:00:00:77\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	state, err := n.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := state.Interfaces["mgmt"]
	lacp := &api.InterfaceLACP{LocalMAC: "02:ff:00:00:00:00", RemoteMAC: "02:00:00:00:00:77"}
	want := map[string]api.BondMemberState{mac: {Type: "bond_member", State: "enslaved", Hwaddr: mac, MTU: 1500, LACP: lacp}}
	if got.Type != "bond" || got.Hwaddr != mac || !cmp.Equal(got.LACP, lacp) || !cmp.Equal(got.Members, want) {
		t.Errorf("the bond is %+v; members differ by %s", got, cmp.Diff(want, got.Members))
	}
}

// TestConvergence fails each effect once, on the way from nothing to one
// configuration after the other, applies again and expects the machine to match.
func TestConvergence(t *testing.T) {
	for step := 1; ; step++ {
		rig := systest.New(t, systest.Sensible())
		cfg := static()
		cut := &systest.Cutter{At: step}
		n := network.New(cut.Host(rig.Host), func() api.NetworkConfig { return cfg })
		for _, next := range []api.NetworkConfig{static(), bonded(), {}} {
			cfg = next
			if err := n.Apply(t.Context(), cfg); err != nil {
				if err := n.Apply(t.Context(), cfg); err != nil {
					t.Fatalf("after effect %d was cut: %v", step, err)
				}
			}
			if p, err := n.Plan(next); err != nil || !p.Empty() {
				t.Fatalf("after effect %d was cut and applied again, to do: %v\n%s", step, err, p)
			}
		}
		l, _ := rig.Links.Get("enp1s0")
		if links, _ := rig.Links.List(); len(links) != 1 || l.Current != mac || len(l.Addresses) != 1 {
			t.Fatalf("after effect %d was cut, the machine has %+v", step, links)
		}
		if cut.Over() {
			if step < 60 {
				t.Errorf("only %d effects were cut", step)
			}
			return
		}
	}
}

func TestServiceThatDoesNotStartIsTriedAgain(t *testing.T) {
	for _, unit := range []string{"systemd-networkd.service", "systemd-resolved.service", "systemd-timesyncd.service"} {
		t.Run(unit, func(t *testing.T) {
			rig, n := start(t, static())
			rig.Units.Fail(unit, fmt.Errorf("starting %s: busy", unit))
			if err := n.Apply(t.Context(), static()); err == nil {
				t.Fatal("Apply succeeded although a service did not start")
			}
			rig.Units.Fail(unit, nil)
			apply(t, n, static())
			if s, _ := rig.Units.State(t.Context(), unit); s != "active" {
				t.Errorf("%s is %s, want active", unit, s)
			}
		})
	}
}
