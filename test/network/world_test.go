//go:build vm

package network_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/incusos/incusos/internal/sys"
)

// outside is the network namespace of the world.
const outside = "world"

// Networks of the world: the untagged one, and one for each VLAN.
const (
	gateway4, gateway6 = "10.77.0.1", "fd77::1"
	net4, net6         = "10.77.0.0/24", "fd77::/64"
	beyond             = "198.51.100.1" // behind the gateway
)

// vlans are those that the switch of the world carries. The gateway of each is
// 10.ID.0.1.
var vlans = []int{10, 20, 30}

// A world is what the cables lead to.
type world struct {
	host  sys.Host
	ports []string // names by number from 1 on, less one
}

func newWorld(t *testing.T, host sys.Host) *world {
	t.Helper()
	w := &world{host: host}
	w.do(t, "ip", "netns", "add", outside)
	w.in(t, "ip", "link", "set", "lo", "up")
	inside(t, outside, func() (struct{}, error) { // no answer for an address on another network
		return struct{}{}, errors.Join(
			os.WriteFile("/proc/sys/net/ipv4/conf/all/arp_ignore", []byte("1"), 0o644),
			os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_ra", []byte("0"), 0o644),
		)
	})
	return w
}

// take makes a card one of the world's.
func (w *world) take(t *testing.T, card string) {
	t.Helper()
	w.do(t, "ip", "link", "set", card, "netns", outside)
	w.ports = append(w.ports, card)
}

func (w *world) do(t *testing.T, name string, args ...string) {
	t.Helper()
	if _, err := w.host.Exec.Run(context.WithoutCancel(t.Context()), sys.Command(name, args...)); err != nil {
		t.Fatalf("%s %s: %v", name, strings.Join(args, " "), err)
	}
}

// in runs a program in the world.
func (w *world) in(t *testing.T, line ...string) {
	t.Helper()
	w.do(t, "ip", append([]string{"netns", "exec", outside}, line...)...)
}

// reset leaves nothing but cards.
func (w *world) reset(t *testing.T) {
	t.Helper()
	for _, device := range []string{"trunk", "switch", "peer", "wg0", "dummy0"} {
		_, _ = w.host.Exec.Run(context.WithoutCancel(t.Context()), sys.Command("ip", "netns", "exec", outside, "ip", "link", "del", device)) // most are not there
	}
	for _, p := range w.ports {
		w.in(t, "ip", "link", "set", p, "down")
		w.in(t, "ip", "link", "set", p, "mtu", "1500")
	}
	_, _ = w.host.Exec.Run(context.WithoutCancel(t.Context()), sys.Command("ip", "netns", "exec", outside, "ip", "address", "del", beyond+"/32", "dev", "lo"))
}

// plug makes a switch of these ports, numbers from 1 on, and a gateway at it: on
// the untagged network, and on each VLAN.
func (w *world) plug(t *testing.T, ports ...int) {
	t.Helper()
	var names []string
	for _, p := range ports {
		names = append(names, w.ports[p-1])
	}
	w.plugDevices(t, names...)
}

func (w *world) plugDevices(t *testing.T, names ...string) {
	t.Helper()
	w.in(t, "ip", "link", "add", "switch", "type", "bridge", "vlan_filtering", "1", "forward_delay", "0")
	for _, p := range names {
		w.in(t, "ip", "link", "set", p, "master", "switch")
		w.in(t, "ip", "link", "set", p, "up")
	}
	w.in(t, "ip", "link", "set", "switch", "up")
	for _, a := range []string{gateway4 + "/24", gateway6 + "/64"} {
		w.in(t, "ip", "address", "add", a, "dev", "switch", "nodad")
	}
	w.in(t, "ip", "address", "replace", beyond+"/32", "dev", "lo")
	for _, id := range vlans {
		w.vlan(t, id, names)
	}
}

func (w *world) vlan(t *testing.T, id int, ports []string) {
	t.Helper()
	vid, name := fmt.Sprint(id), fmt.Sprintf("switch.%d", id)
	for _, p := range ports {
		w.in(t, "bridge", "vlan", "add", "dev", p, "vid", vid)
	}
	w.in(t, "bridge", "vlan", "add", "dev", "switch", "vid", vid, "self")
	w.in(t, "ip", "link", "add", "link", "switch", "name", name, "type", "vlan", "id", vid)
	w.in(t, "ip", "link", "set", name, "up")
	w.in(t, "ip", "address", "add", fmt.Sprintf("10.%d.0.1/24", id), "dev", name)
}

// A dhcp is a server of addresses, and of router advertisements.
type dhcp struct {
	log  *words
	stop func()
}

// serveAddresses starts one at the switch until the scenario ends.
func (w *world) serveAddresses(t *testing.T) *dhcp {
	t.Helper()
	d := &dhcp{log: &words{}}
	c := sys.Command("ip", "netns", "exec", outside, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--port=0",
		"--no-ping", "--interface=switch", "--bind-interfaces", "--dhcp-authoritative", "--dhcp-leasefile=/run/leases-"+t.Name()[strings.LastIndexByte(t.Name(), '/')+1:],
		"--dhcp-range=10.77.0.100,10.77.0.199,255.255.255.0,1h", "--enable-ra", "--dhcp-range=fd77::,ra-only,64", "--log-facility=-", "--log-dhcp")
	c.Stdout, c.Stderr = d.log, d.log
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	p, err := w.host.Exec.Start(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	d.stop = sync.OnceFunc(func() {
		cancel()
		_ = p.Wait() // ended by us
	})
	t.Cleanup(func() {
		d.stop()
		if t.Failed() {
			t.Logf("the DHCP server said:\n%s", d.log)
		}
	})
	return d
}

// inside runs f with a thread that is in the world: sockets that it makes are
// there, and stay there.
func inside[T any](t *testing.T, namespace string, f func() (T, error)) T {
	t.Helper()
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // and never give it back: it ends with the goroutine
		fd, err := unix.Open("/run/netns/"+namespace, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWNET)
			_ = unix.Close(fd)
		}
		if err != nil {
			done <- result{err: err}
			return
		}
		v, err := f()
		done <- result{v, err}
	}()
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	return r.v
}

// echo has the world take UDP at each of its addresses and send it back, from the
// address that it was sent to.
func (w *world) echo(t *testing.T) {
	t.Helper()
	conns := inside(t, outside, func() (conns []net.PacketConn, err error) {
		addresses, err := net.InterfaceAddrs()
		for _, a := range addresses {
			if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
				conn, listenErr := net.ListenPacket("udp", at(n.IP.String()))
				if err = errors.Join(err, listenErr); listenErr == nil {
					conns = append(conns, conn)
				}
			}
		}
		return conns, err
	})
	for _, conn := range conns {
		t.Cleanup(func() { conn.Close() })
		go echo(conn)
	}
}

func echo(conn net.PacketConn) {
	b := make([]byte, 64<<10)
	for {
		n, from, err := conn.ReadFrom(b)
		if err != nil {
			return
		}
		_, _ = conn.WriteTo(b[:n], from) // who asked counts what comes
	}
}

// settle is how long what should not happen has to happen all the same.
const settle = 3 * time.Second
