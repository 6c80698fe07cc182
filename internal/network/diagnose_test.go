package network

import (
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/sys/systest"
)

// nameServer answers every question but those with silence, and returns its port.
func nameServer(t *testing.T) (port string) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			answer := slices.Clone(buf[:n])
			for _, b := range [][]byte{{1}, answer} { // the first is none
				if _, err := conn.WriteTo(b, from); err != nil {
					return
				}
				answer[2], answer[3] = 0x80, 5 // refused, which is an answer
			}
		}
	}()
	_, port, err = net.SplitHostPort(conn.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func TestDiagnose(t *testing.T) {
	rig := systest.New(t, systest.Sensible())
	rig.Links.Set(
		sys.Link{Name: "_p020000000001", Hwaddr: "02:00:00:00:00:01", Up: true, Physical: true},
		sys.Link{Name: "_vlan", Hwaddr: "02:00:00:00:00:01", Up: true, Addresses: []string{"192.0.2.10/24", "2001:db8::10/64"}},
		sys.Link{Name: "enp2s0", Hwaddr: "02:00:00:00:00:02", Physical: true},
		sys.Link{Name: "incusbr0", Up: true, Addresses: []string{"10.0.0.1/24"}},
	)
	rig.Links.SetGateways(sys.Gateway{Link: "_vlan", Address: "192.0.2.1", State: "reachable"}, sys.Gateway{Link: "_vlan", Address: "fe80::1", State: "failed"})
	err := rig.Host.Files.WriteFile(resolvers, []byte("# by resolved\nnameserver 127.0.0.1\nnameserver 127.0.0.1\nnameserver oops\nnameserver ::ffff:0.0.0.1\noptions edns0\n"), 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if err := rig.Host.Files.MkdirAll("/run/incus-os", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := rig.Host.Files.WriteFile(cardsFile, []byte(`{"02:00:00:00:00:01":"enp1s0"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	cfg := api.NetworkConfig{
		Time:       api.NetworkTime{NTPServers: []string{"ntp.example.net"}},
		Interfaces: []api.NetworkInterface{{Name: "lan", Hwaddr: "02:00:00:00:00:01"}},
	}
	n := New(rig.Host, func() api.NetworkConfig { return cfg })
	n.port = nameServer(t)
	got := n.Diagnose(t.Context())
	for i, line := range got {
		if server, _, ok := strings.Cut(line, "does not answer: "); ok && strings.HasPrefix(line, "name server") {
			got[i] = server + "does not answer: WHY" // as the system puts it
		}
	}
	want := []string{
		"card enp1s0, 02:00:00:00:00:01: connected",
		"  addresses: none",
		"lan, 02:00:00:00:00:01: connected",
		"  addresses: 192.0.2.10/24, 2001:db8::10/64",
		"  gateway 192.0.2.1: answers",
		"  gateway fe80::1: does not answer; check its address and the switch",
		"enp2s0, 02:00:00:00:00:02: no carrier; check the cable and the switch",
		"  addresses: none",
		"name server 127.0.0.1: answers",
		"name server ::ffff:0.0.0.1: does not answer: WHY",
		"clock: not set by a time server yet; systemd-timesyncd.service is inactive and asks ntp.example.net",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("diagnosis (-want +got):\n%s", diff)
	}
}

func TestDiagnoseOfAMachineWithoutNetwork(t *testing.T) {
	rig := systest.New(t, systest.Sensible())
	rig.Links.Set()
	if err := rig.Host.Files.WriteFile(synced, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	got := New(rig.Host, func() (c api.NetworkConfig) { return c }).Diagnose(t.Context())
	want := []string{
		"gateway: none; only what is on the same network can be reached",
		"name servers: none; set dns.nameservers, or have DHCP name them",
	}
	if len(got) != 3 || !slices.Equal(got[:2], want) || !strings.HasPrefix(got[2], "clock: set by a time server, last at "+time.Now().UTC().Format("2006-")) {
		t.Errorf("diagnosis is %q", got)
	}
}

func TestReached(t *testing.T) {
	for state, want := range map[string]string{
		"reachable": "answers", "permanent": "answers", "stale": "has answered", "incomplete": "does not answer", "none": "was not asked yet",
	} {
		if got := reached(state); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q, want %q", state, got, want)
		}
	}
}

func FuzzParseResolvers(f *testing.F) {
	f.Add("nameserver 192.0.2.53\nnameserver fe80::1%eth0\n", []byte{0x49, 0x4f, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add("nameserver\n", []byte{})
	f.Fuzz(func(t *testing.T, text string, answer []byte) {
		for _, s := range parseResolvers(text) {
			if strings.ContainsAny(s, " \n\t") {
				t.Errorf("%q is a name server", s)
			}
		}
		if isAnswer(answer) && len(answer) < 12 {
			t.Errorf("%q is an answer", answer)
		}
	})
}
