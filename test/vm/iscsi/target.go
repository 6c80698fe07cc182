// Package iscsi is a target for the machines of package vm_test beside it: one disk
// in memory, which is offered at two portals on the loopback of the host, so that a
// machine has two paths to it. QEMU's user network leads there by its gateway.
//
// It knows what a Linux initiator asks for, no more (RFC 7143 and SPC-4):
//
//	target.go   portals, and PDUs as they are on the wire
//	login.go    logging in, by CHAP, and discovery
//	disk.go     SCSI commands
package iscsi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
)

// A Target is one disk at some portals.
type Target struct {
	Name    string // of the target, such as "iqn.2026-01.org.example:disk"
	WWN     uint64 // of the disk: an NAA of type 5
	User    string // for CHAP
	Secret  string // for CHAP
	Gateway string // address that initiators reach the portals at

	mu     sync.Mutex
	disk   []byte
	listen []net.Listener
	conns  map[net.Conn]bool
	serial uint16 // of the last session
	logins int
}

// Open offers a disk of size bytes at as many portals as asked for.
func (t *Target) Open(size, portals int) error {
	t.disk, t.conns = make([]byte, size), make(map[net.Conn]bool)
	for range portals {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return errors.Join(err, t.Close())
		}
		t.listen = append(t.listen, l)
		go t.accept(l)
	}
	return nil
}

// Close ends all sessions.
func (t *Target) Close() error {
	var errs []error
	for _, l := range t.listen {
		errs = append(errs, l.Close())
	}
	t.Cut()
	return errors.Join(errs...)
}

// Cut ends all connections; initiators come again.
func (t *Target) Cut() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.conns {
		_ = c.Close()
	}
}

// Ports returns the ports of the portals.
func (t *Target) Ports() []int {
	var all []int
	for _, l := range t.listen {
		all = append(all, l.Addr().(*net.TCPAddr).Port) //nolint:forcetypeassert // it listens by TCP
	}
	return all
}

// Logins returns how often somebody was let in to the disk.
func (t *Target) Logins() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.logins
}

func (t *Target) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		t.mu.Lock()
		t.conns[c] = true
		t.mu.Unlock()
		go func() {
			_ = (&session{target: t, conn: c, most: 8192}).serve()
			t.mu.Lock()
			delete(t.conns, c)
			t.mu.Unlock()
			_ = c.Close()
		}()
	}
}

// The operations of PDUs; an answer is one with the bit reply.
const (
	opNop, opCommand, opTask, opLogin, opText, opDataOut, opLogout = 0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06
	opDataIn, opR2T, opReject                                      = 0x25, 0x31, 0x3f
	reply                                                          = 0x20
	immediate                                                      = 0x40
	final                                                          = 0x80
)

// A pdu is a basic header segment of 48 bytes, and data.
type pdu struct {
	head [48]byte
	data []byte
}

func (p *pdu) op() byte          { return p.head[0] & 0x3f }
func (p *pdu) word(i int) uint32 { return binary.BigEndian.Uint32(p.head[i:]) }

// set writes numbers of four bytes at places of the header.
func (p *pdu) set(words map[int]uint32) *pdu {
	for at, w := range words {
		binary.BigEndian.PutUint32(p.head[at:], w)
	}
	return p
}

// answer returns a PDU of a kind to a request, with the tag of that.
func (p *pdu) answer(op byte) *pdu {
	a := new(pdu)
	a.head[0], a.head[1] = op, final
	copy(a.head[16:20], p.head[16:20])
	return a
}

// A session has one connection, as those of open-iscsi have.
type session struct {
	target *Target
	conn   net.Conn
	keys   map[string]string // what the initiator said of itself
	next   uint32            // command that is expected
	status uint32            // number of the next answer
	most   int               // data that the initiator takes in one PDU
	admit  bool              // it has shown that it knows the secret
	later  []*pdu            // came while data was waited for
}

func (s *session) read() (*pdu, error) {
	p := new(pdu)
	if _, err := io.ReadFull(s.conn, p.head[:]); err != nil {
		return nil, err
	}
	size := int(p.word(4) & 0xffffff)
	if p.head[4] != 0 || size > 1<<20 {
		return nil, fmt.Errorf("a PDU has extra headers or %d bytes", size)
	}
	data := make([]byte, (size+3)&^3)
	if _, err := io.ReadFull(s.conn, data); err != nil {
		return nil, err
	}
	p.data = data[:size]
	return p, nil
}

// write sends an answer. Counts is whether it has a number of its own.
func (s *session) write(p *pdu, counts bool) error {
	p.set(map[int]uint32{4: uint32(len(p.data)), 28: s.next, 32: s.next + 31}) //nolint:gosec // small
	if counts {
		p.set(map[int]uint32{24: s.status})
		s.status++
	}
	padded := append(p.head[:], p.data...)
	for len(padded)%4 != 0 {
		padded = append(padded, 0)
	}
	_, err := s.conn.Write(padded)
	return err
}

// serve answers until the initiator is gone.
func (s *session) serve() error {
	if err := s.login(); err != nil {
		return err
	}
	for {
		p, err := s.receive()
		if err != nil {
			return err
		}
		for s.later = append(s.later, p); len(s.later) > 0; {
			p, s.later = s.later[0], s.later[1:]
			if err := s.handle(p); err != nil {
				return err
			}
		}
	}
}

// receive reads a PDU of the full feature phase.
func (s *session) receive() (*pdu, error) {
	p, err := s.read()
	if err == nil && p.head[0]&immediate == 0 && p.op() != opDataOut {
		s.next = p.word(24) + 1
	}
	return p, err
}

func (s *session) handle(p *pdu) error {
	switch p.op() {
	case opNop:
		if p.word(16) == 0xffffffff {
			return nil // it answers a question that was not asked
		}
		a := p.answer(opNop | reply).set(map[int]uint32{20: 0xffffffff})
		a.data = p.data
		return s.write(a, true)
	case opText:
		a := p.answer(opText | reply).set(map[int]uint32{20: 0xffffffff})
		a.data = s.target.list()
		return s.write(a, true)
	case opCommand:
		return s.command(p)
	case opTask:
		return s.write(p.answer(opTask|reply), true)
	case opLogout:
		return errors.Join(s.write(p.answer(opLogout|reply), true), io.EOF)
	}
	a := p.answer(opReject).set(map[int]uint32{16: 0xffffffff})
	a.head[2] = 0x05 // "not supported"
	a.data = p.head[:]
	return s.write(a, true)
}

// list is what discovery tells.
func (t *Target) list() []byte {
	lines := []string{"TargetName=" + t.Name}
	for _, port := range t.Ports() {
		lines = append(lines, fmt.Sprintf("TargetAddress=%s:%d,1", t.Gateway, port))
	}
	return []byte(strings.Join(lines, "\x00") + "\x00")
}
