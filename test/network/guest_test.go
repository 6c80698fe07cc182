//go:build vm

package network_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/console"
	"github.com/incusos/incusos/internal/daemon"
	"github.com/incusos/incusos/internal/sys"
)

// A guest is the machine as our daemon sees it, and the world outside.
type guest struct {
	host  sys.Host
	parts daemon.Options
	world *world
	cards map[int]string // the machine's, names by number from 1 on
}

// runGuest runs the scenarios in the machine, and tells the host of each.
func runGuest(t *testing.T) {
	g := newGuest(t)
	for _, s := range scenarios() {
		t.Run(s.name, func(t *testing.T) {
			t.Cleanup(func() {
				if t.Failed() {
					g.explain(t)
				}
				g.reset(t)
				for range 2 { // as with cables
					fmt.Printf("\n@@ %s %s\n", s.name, outcome(t))
				}
			})
			s.run(t, g)
		})
	}
}

func outcome(t *testing.T) string {
	switch {
	case t.Failed():
		return "failed"
	case t.Skipped():
		return "skipped"
	}
	return "ok"
}

func newGuest(t *testing.T) *guest {
	t.Helper()
	g := &guest{host: sys.Real(), cards: make(map[int]string)}
	screen := console.New(g.host.Files, io.Discard)
	t.Cleanup(screen.Close)
	g.parts = daemon.Wire(g.host, screen, func() (daemon.First, error) { return daemon.First{}, nil })
	g.run(t, "udevadm", "settle", "--timeout=60") // who renames cards has done it
	g.world = newWorld(t, g.host)
	g.run(t, "ip", "netns", "add", "aside")
	g.run(t, "ip", "link", "set", g.byMAC(t, hostsCard), "netns", "aside")
	for n := 1; n <= cards; n++ {
		g.cards[n] = g.byMAC(t, mac(1, n))
		g.world.take(t, g.byMAC(t, mac(2, n)))
	}
	return g
}

// hostsCard leads to the host, as every machine's of package vm does. It has no
// part in this: QEMU gives such an address to who is told none.
const hostsCard = "52:54:00:12:34:56"

// byMAC waits for a card to appear, and returns its name.
func (g *guest) byMAC(t *testing.T, mac string) (name string) {
	t.Helper()
	eventually(t, 30*time.Second, func() error {
		devices, err := filepath.Glob("/sys/class/net/*/device")
		if err != nil {
			return err
		}
		for _, d := range devices {
			if dir := filepath.Dir(d); permanent(dir) == mac {
				name = filepath.Base(dir)
				return nil
			}
		}
		return fmt.Errorf("no card has the address %s", mac)
	})
	return name
}

// set changes the configuration as a PUT does, with nothing to confirm.
func (g *guest) set(t *testing.T, c api.NetworkConfig) {
	t.Helper()
	if err := g.try(t, c); err != nil {
		t.Fatal(err)
	}
}

func (g *guest) try(t *testing.T, c api.NetworkConfig) error {
	t.Helper()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	return g.parts.Machine.Network.Try(ctx, c, 0)
}

// reconcile does what the daemon does every ten minutes.
func (g *guest) reconcile(t *testing.T) error {
	t.Helper()
	for _, a := range g.parts.Areas {
		if a.Name() == "network" {
			return a.Reconcile(t.Context())
		}
	}
	return errors.New("there is no area network")
}

// state is what the API shows of a device.
func (g *guest) state(t *testing.T, name string) api.InterfaceState {
	t.Helper()
	doc, err := g.parts.Machine.Network.Get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return doc.State.Interfaces[name]
}

// reset takes the machine and the world back to where they began.
func (g *guest) reset(t *testing.T) {
	t.Helper()
	for n := range g.cards {
		g.cable(n, true)
	}
	if err := g.parts.Machine.Network.Try(context.WithoutCancel(t.Context()), api.NetworkConfig{}, 0); err != nil {
		t.Error(err)
	}
	g.world.reset(t)
}

// cable has the host pull a cable out, or put it back. It says so twice: what the
// kernel says on the same line may come in between.
func (g *guest) cable(n int, on bool) {
	word := "off"
	if on {
		word = "on"
	}
	for range 2 {
		fmt.Printf("\n@@ cable %d %s\n", n, word)
	}
}

// explain prints what a person would look at.
func (g *guest) explain(t *testing.T) {
	t.Helper()
	for _, line := range [][]string{
		{"ip", "-br", "address"}, {"ip", "-d", "-br", "link"}, {"ip", "route"}, {"networkctl", "--no-pager", "list"}, {"nft", "list", "ruleset"},
		{"bridge", "vlan"}, {"ip", "netns", "exec", "world", "ip", "-br", "address"}, {"journalctl", "-b", "-n", "30", "--no-pager", "-u", "systemd-networkd"},
	} {
		out, err := g.host.Exec.Run(context.WithoutCancel(t.Context()), sys.Command(line[0], line[1:]...))
		t.Logf("%s: %v\n%s", strings.Join(line, " "), err, out)
	}
}

// run runs a program in the machine.
func (g *guest) run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := g.host.Exec.Run(t.Context(), sys.Command(name, args...))
	if err != nil {
		t.Fatalf("%s %s: %v", name, strings.Join(args, " "), err)
	}
	return string(out)
}

// eventually waits until f is content.
func eventually(t *testing.T, within time.Duration, f func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatalf("not within %v: %v", within, err)
}

// has waits until the machine has an address in each of the networks.
func (g *guest) has(t *testing.T, networks ...string) {
	t.Helper()
	eventually(t, time.Minute, func() error {
		doc, err := g.parts.Machine.Network.Get(t.Context())
		if err != nil {
			return err
		}
		for _, network := range networks {
			if !within(doc.State, network) {
				return fmt.Errorf("no address in %s; there is %+v", network, doc.State.Interfaces)
			}
		}
		return nil
	})
}

func within(s api.NetworkState, network string) bool {
	_, n, err := net.ParseCIDR(network)
	if err != nil {
		panic(err)
	}
	for _, i := range s.Interfaces {
		for _, a := range i.Addresses {
			if ip, _, err := net.ParseCIDR(a); err == nil && n.Contains(ip) {
				return true
			}
		}
	}
	return false
}
