package network_test

import (
	"fmt"
	"path"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/network"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/sys/systest"
)

const mac = "02:00:00:00:00:01"

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
		}},
	}
}

func TestRender(t *testing.T) {
	files := network.Render(static())
	want := map[string]string{
		"/run/systemd/network/20-incus-os-mgmt.network": `[Match]
Type=ether
Kind=!*
MACAddress=02:00:00:00:00:01

[Link]
MTUBytes=9000
RequiredForOnline=yes
RequiredFamilyForOnline=ipv4

[Network]
DHCP=no
IPv6AcceptRA=yes
LinkLocalAddressing=ipv6
Address=192.0.2.10/24
LLDP=yes
EmitLLDP=yes

[Route]
Destination=0.0.0.0/0
Gateway=192.0.2.1

[Route]
Destination=2001:db8:1::/48
Gateway=_ipv6ra
`,
		"/run/systemd/resolved.conf.d/20-incus-os.conf":  "[Resolve]\nDNS=192.0.2.53 2001:db8::53\nDomains=example.net\n",
		"/run/systemd/timesyncd.conf.d/20-incus-os.conf": "[Time]\nNTP=ntp.example.net\n",
	}
	if !reflect.DeepEqual(files, want) {
		t.Errorf("rendered:\n%v\nwant:\n%v", files, want)
	}
}

func TestRenderOneKey(t *testing.T) {
	tests := map[string]struct {
		i    api.NetworkInterface
		want []string
	}{
		"both families by DHCP":         {api.NetworkInterface{NetworkAddressing: api.NetworkAddressing{Addresses: []string{"dhcp4", "dhcp6", "slaac"}}}, []string{"DHCP=yes", "IPv6AcceptRA=yes", "ClientIdentifier=mac"}},
		"DHCPv6 without advertisements": {api.NetworkInterface{NetworkAddressing: api.NetworkAddressing{Addresses: []string{"dhcp6"}}}, []string{"DHCP=ipv6", "IPv6AcceptRA=no", "WithoutRA=solicit"}},
		"no address at all":             {api.NetworkInterface{}, []string{"DHCP=no", "LinkLocalAddressing=no", "ConfigureWithoutCarrier=yes", "MTUBytes=1500"}},
		"a card by its name":            {api.NetworkInterface{Hwaddr: "enp1s0"}, []string{"Name=enp1s0", "Kind=!*"}},
		"not required":                  {api.NetworkInterface{NetworkAddressing: api.NetworkAddressing{RequiredForOnline: "no"}}, []string{"RequiredForOnline=no"}},
		"required by default":           {api.NetworkInterface{}, []string{"RequiredForOnline=yes", "RequiredFamilyForOnline=any"}},
		"required with both families":   {api.NetworkInterface{NetworkAddressing: api.NetworkAddressing{RequiredForOnline: "both"}}, []string{"RequiredFamilyForOnline=both"}},
		"gateway from DHCP":             {api.NetworkInterface{NetworkAddressing: api.NetworkAddressing{Routes: []api.NetworkRoute{{To: "10.0.0.0/8", Via: "dhcp4"}}}}, []string{"Gateway=_dhcp4"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tt.i.Name = "x"
			got := network.Render(api.NetworkConfig{Interfaces: []api.NetworkInterface{tt.i}})["/run/systemd/network/20-incus-os-x.network"]
			for _, line := range tt.want {
				if !strings.Contains(got, "\n"+line+"\n") {
					t.Errorf("no line %q in:\n%s", line, got)
				}
			}
		})
	}
}

func TestDefaultLeavesInstancesAlone(t *testing.T) {
	got := network.Render(api.NetworkConfig{})["/run/systemd/network/20-incus-os.network"]
	for _, line := range []string{"Type=ether", "Kind=!*", "Name=en* eth*", "DHCP=yes", "IPv6AcceptRA=yes", "RequiredForOnline=no"} {
		if !strings.Contains(got, line+"\n") {
			t.Errorf("no line %q in:\n%s", line, got)
		}
	}
}

func start(t *testing.T, cfg api.NetworkConfig) (*systest.Rig, *network.Network) {
	rig := systest.New(t, systest.Sensible())
	return rig, network.New(rig.Host, func() api.NetworkConfig { return cfg })
}

func TestSecondApplyDoesNothing(t *testing.T) {
	rig, n := start(t, static())
	if err := n.Apply(t.Context(), static()); err != nil {
		t.Fatal(err)
	}
	p, err := n.Plan(static())
	if err != nil || !p.Empty() {
		t.Errorf("plan after applying: %v\n%s", err, p)
	}
	if got := rig.Programs.Ran(); len(got) != 0 {
		t.Errorf("ran %q to start networkd, want nothing", got)
	}
}

func TestPlanIsTheDifference(t *testing.T) {
	rig, n := start(t, static())
	if err := n.Apply(t.Context(), static()); err != nil {
		t.Fatal(err)
	}
	p, err := n.Plan(api.NetworkConfig{DNS: static().DNS})
	if err != nil {
		t.Fatal(err)
	}
	want := `remove /run/systemd/network/20-incus-os-mgmt.network
remove /run/systemd/timesyncd.conf.d/20-incus-os.conf
write /run/systemd/network/20-incus-os.network
reload systemd-networkd.service
reload systemd-timesyncd.service
`
	if p.String() != want {
		t.Errorf("plan:\n%swant:\n%s", p, want)
	}
	if err := n.Apply(t.Context(), api.NetworkConfig{}); err != nil {
		t.Fatal(err)
	}
	if got := rig.Programs.Ran(); !slices.Equal(got, []string{"networkctl reload"}) {
		t.Errorf("ran %q, want one reload", got)
	}
}

func TestFilesOfTheImageStay(t *testing.T) {
	rig, n := start(t, static())
	const theirs = "/run/systemd/network/70-theirs.network"
	if err := rig.Host.Files.WriteFile(theirs, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := n.Apply(t.Context(), static()); err != nil {
		t.Fatal(err)
	}
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
	for name := range network.Render(static()) {
		file, err := rig.Host.Files.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		dir, err := rig.Host.Files.Stat(path.Dir(name))
		if err != nil {
			t.Fatal(err)
		}
		if file.Mode().Perm() != 0o644 || dir.Mode().Perm() != 0o755 {
			t.Errorf("%s has mode %s in a directory of mode %s, want it readable by all", name, file.Mode(), dir.Mode())
		}
	}
}

func TestMissingCardIsReportedAfterTheRestIsApplied(t *testing.T) {
	cfg := static()
	cfg.Interfaces = append(cfg.Interfaces, api.NetworkInterface{Name: "san", Hwaddr: "02:00:00:00:00:99"})
	rig, n := start(t, cfg)
	if err := n.Apply(t.Context(), cfg); err != nil {
		t.Errorf("Apply() = %v, want nil: a missing card must not undo a change", err)
	}
	err := n.Missing()
	if err == nil || !strings.Contains(err.Error(), `"san"`) || !strings.Contains(err.Error(), "enp1s0") {
		t.Errorf("Missing() = %v, want it to name the interface and the cards there are", err)
	}
	if !rig.Host.Files.Exists("/run/systemd/network/20-incus-os-mgmt.network") {
		t.Error("the other interface was not configured")
	}
}

func TestState(t *testing.T) {
	rig, n := start(t, static())
	rig.Links.Set(
		sys.Link{Name: "enp1s0", Hwaddr: mac, MTU: 9000, Up: true, Physical: true, Addresses: []string{"192.0.2.10/24"}},
		sys.Link{Name: "enp2s0", Hwaddr: "02:00:00:00:00:02", MTU: 1500, Physical: true},
		sys.Link{Name: "incusbr0", Hwaddr: mac, Up: true, Addresses: []string{"10.0.0.1/24"}},
	)
	got, err := n.State()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]api.InterfaceState{
		"mgmt":   {Type: "interface", State: "routable", Hwaddr: mac, MTU: 9000, Addresses: []string{"192.0.2.10/24"}, Roles: []string{"management", "cluster"}},
		"enp2s0": {Type: "physical", State: "no-carrier", Hwaddr: "02:00:00:00:00:02", MTU: 1500},
	}
	if !reflect.DeepEqual(got.Interfaces, want) {
		t.Errorf("state:\n%+v\nwant:\n%+v", got.Interfaces, want)
	}
}

// TestConvergence fails each effect once, on the way from nothing to static
// and on to the default, applies again and expects the machine to match.
func TestConvergence(t *testing.T) {
	for step := 0; ; step++ {
		rig := systest.New(t, systest.Sensible())
		cfg := static()
		cut := &systest.Cutter{At: step}
		host := cut.Host(rig.Host)
		n := network.New(host, func() api.NetworkConfig { return cfg })
		for _, next := range []api.NetworkConfig{static(), {}} {
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
		if !slices.Contains(rig.Programs.Ran(), "networkctl reload") {
			t.Fatalf("after effect %d was cut: networkd was not told", step)
		}
		if cut.Over() {
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
			if err := n.Apply(t.Context(), static()); err != nil {
				t.Fatal(err)
			}
			if s, _ := rig.Units.State(t.Context(), unit); s != "active" {
				t.Errorf("%s is %s, want active", unit, s)
			}
		})
	}
}
