//go:build vm

package network_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// port is where everybody echoes.
const port = "7007"

// reaches waits until what echoes at hosts answers the machine.
func (g *guest) reaches(t *testing.T, hosts ...string) {
	t.Helper()
	for _, h := range hosts {
		eventually(t, time.Minute, func() error { return ask(at(h), 64) })
	}
}

func at(host string) string { return net.JoinHostPort(host, port) }

// never checks that a host is out of reach, for a while.
func never(t *testing.T, host string) {
	t.Helper()
	for end := time.Now().Add(settle); time.Now().Before(end); {
		if ask(at(host), 64) == nil {
			t.Errorf("%s answers; want it out of reach", host)
			return
		}
	}
}

// ask sends so many bytes to an address, in one piece, and wants them back.
func ask(address string, size int) error {
	conn, err := whole.Dial("udp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	return askOn(conn, size)
}

func askOn(conn net.Conn, size int) error {
	if _, err := conn.Write(make([]byte, size)); err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	b := make([]byte, 64<<10)
	n, err := conn.Read(b)
	if err == nil && n != size {
		return fmt.Errorf("%d bytes came back, want %d", n, size)
	}
	return err
}

// whole has packets sent in one piece (ip(7), IP_MTU_DISCOVER).
var whole = net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
	})
	if err != nil {
		return err
	}
	return failed
}}

// connects reports whether the world gets a TCP connection to an address.
func (w *world) connects(t *testing.T, address string) bool {
	t.Helper()
	return inside(t, outside, func() (bool, error) {
		conn, err := net.DialTimeout("tcp", address, 2*time.Second)
		if err != nil {
			return false, nil
		}
		return true, conn.Close()
	})
}

// open has the machine listen, and accept whoever comes.
func (g *guest) open(t *testing.T, address string) {
	t.Helper()
	accept(t, func() (net.Listener, error) { return net.Listen("tcp", address) })
}

func accept(t *testing.T, listen func() (net.Listener, error)) {
	t.Helper()
	l, err := listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
}

// A stream asks a host all the time and counts what gets lost.
type stream struct {
	mu         sync.Mutex
	sent, lost int
	worst, row int // answers missing one after the other
	stop       context.CancelFunc
	over       chan struct{}
}

// watch begins a stream to a host: one packet after the other, and 20 ms between.
func watch(t *testing.T, host string) *stream {
	t.Helper()
	conn, err := net.Dial("udp", at(host))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	s := &stream{stop: cancel, over: make(chan struct{})}
	t.Cleanup(func() { s.stop(); <-s.over; conn.Close() })
	go func() {
		defer close(s.over)
		for ; ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
			s.count(askOn(conn, 32))
		}
	}()
	return s
}

func (s *stream) count(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent++
	s.row++
	if err == nil {
		s.row = 0
		return
	}
	s.lost++
	s.worst = max(s.worst, s.row)
}

func (s *stream) result() (sent, lost, worst int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sent, s.lost, s.worst
}

// alive waits until answers have come for so many packets from now on.
func (s *stream) alive(t *testing.T, packets int) {
	t.Helper()
	began, before, _ := s.result()
	eventually(t, time.Minute, func() error {
		sent, lost, _ := s.result()
		if sent-lost-(began-before) < packets {
			return fmt.Errorf("%d of %d packets were answered", sent-lost-(began-before), sent-began)
		}
		return nil
	})
}

// flaps is how often a device lost or found its carrier.
func flaps(t *testing.T, device string) int {
	t.Helper()
	return number(t, device, "carrier_changes")
}

func index(t *testing.T, device string) int {
	t.Helper()
	return number(t, device, "ifindex")
}

func number(t *testing.T, device, attribute string) int {
	t.Helper()
	b, err := os.ReadFile("/sys/class/net/" + device + "/" + attribute)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// words are what a program says.
type words struct {
	mu sync.Mutex
	b  strings.Builder
}

func (w *words) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(b)
}

func (w *words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

func (w *words) count(text string) int { return strings.Count(w.String(), text) }
