// Package nvme is an NVMe subsystem for the machines of package vm_test beside it:
// one drive in memory, reached by TCP at a port on the loopback of this host.
//
// It knows what a Linux host asks for, no more (NVM Express Base Specification 2.0,
// and its TCP transport):
//
//	subsystem.go   connections, and PDUs as they are on the wire
//	admin.go       what the drive is, and connecting to it
package nvme

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
)

// A Subsystem is one drive.
type Subsystem struct {
	NQN    string
	Serial string

	mu     sync.Mutex
	disk   []byte
	listen net.Listener
	conns  map[net.Conn]bool
	hosts  []string // names of those that connected, once each
}

// Open offers a drive of size bytes.
func (s *Subsystem) Open(size int) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.disk, s.listen, s.conns = make([]byte, size), l, make(map[net.Conn]bool)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns[c] = true
			s.mu.Unlock()
			go func() {
				_ = (&queue{sub: s, conn: c}).serve()
				_ = c.Close()
				s.mu.Lock()
				delete(s.conns, c)
				s.mu.Unlock()
			}()
		}
	}()
	return nil
}

// Close takes the drive away.
func (s *Subsystem) Close() error {
	err := s.listen.Close()
	s.Cut()
	return err
}

// Cut ends all connections; hosts come again.
func (s *Subsystem) Cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		_ = c.Close()
	}
}

// Port returns where the drive is.
func (s *Subsystem) Port() int { return s.listen.Addr().(*net.TCPAddr).Port } //nolint:forcetypeassert // it listens by TCP

// Hosts returns what those that connected call themselves.
func (s *Subsystem) Hosts() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.hosts)
}

// The kinds of PDUs.
const (
	initialize, initialized      = 0, 1
	command, response            = 4, 5
	dataToUs, dataToHost         = 6, 7
	readyToTransfer              = 9
	lastPDU                 byte = 4
	sector                       = 512
)

// A queue is one connection: number 0 is for administration.
type queue struct {
	sub    *Subsystem
	conn   net.Conn
	number uint16
	config uint64   // what the host set of the controller
	head   uint16   // of the submission queue
	later  [][]byte // came while data was waited for
}

// read returns a PDU, header and all.
func (q *queue) read() ([]byte, error) {
	head := make([]byte, 8)
	if _, err := io.ReadFull(q.conn, head); err != nil {
		return nil, err
	}
	size := binary.LittleEndian.Uint32(head[4:])
	if size < 8 || size > 2<<20 {
		return nil, fmt.Errorf("a PDU of %d bytes", size)
	}
	p := append(head, make([]byte, size-8)...)
	_, err := io.ReadFull(q.conn, p[8:])
	return p, err
}

// write sends a PDU with a header of some length, of which the first eight bytes
// are filled in here.
func (q *queue) write(kind, flags byte, header, data []byte) error {
	header[0], header[1], header[2] = kind, flags, byte(len(header))
	if len(data) > 0 {
		header[3] = byte(len(header))
	}
	binary.LittleEndian.PutUint32(header[4:], uint32(len(header)+len(data))) //nolint:gosec // small
	_, err := q.conn.Write(append(header, data...))
	return err
}

func (q *queue) serve() error {
	p, err := q.read()
	if err != nil {
		return err
	}
	if p[0] != initialize {
		return errors.New("the first PDU does not initialize a connection")
	}
	h := make([]byte, 128)
	binary.LittleEndian.PutUint32(h[12:], 1<<20) // data that is taken at once
	if err := q.write(initialized, 0, h, nil); err != nil {
		return err
	}
	for {
		p, err := q.read()
		if err != nil {
			return err
		}
		for q.later = append(q.later, p); len(q.later) > 0; {
			p, q.later = q.later[0], q.later[1:]
			if p[0] != command || len(p) < 72 {
				return fmt.Errorf("a PDU of kind %d, want a command", p[0])
			}
			if err := q.handle(p[8:72], p[72:]); err != nil {
				return err
			}
		}
	}
}

// A result is what a command comes to.
type result struct {
	data   []byte // for the host
	value  uint64
	status uint16
}

// The ways of failing, with type and code as they are in a status field.
const (
	invalidOpcode   = 0x0001
	invalidField    = 0x0002
	outOfRange      = 0x0080
	invalidLogPage  = 0x0109
	connectRefused  = 0x0182
	flush           = 0x00
	write           = 0x01
	read            = 0x02
	fabrics         = 0x7f
	asyncEvent      = 0x0c
	wholeSubmission = 127
)

// handle carries out a command, with the data that came with it.
func (q *queue) handle(sqe, data []byte) error {
	if q.head++; q.head > wholeSubmission {
		q.head = 0
	}
	var r result
	switch op := sqe[0]; {
	case op == fabrics:
		r = q.fabrics(sqe, data)
	case q.number == 0 && op == asyncEvent:
		return nil // none will happen
	case q.number == 0:
		r = q.admin(sqe)
	default:
		var err error
		if r, err = q.block(sqe); err != nil {
			return err
		}
	}
	if length := int(binary.LittleEndian.Uint32(sqe[32:])); len(r.data) > length {
		r.data = r.data[:length]
	}
	if len(r.data) > 0 {
		h := make([]byte, 24)
		copy(h[8:10], sqe[2:4])
		binary.LittleEndian.PutUint32(h[16:], uint32(len(r.data))) //nolint:gosec // small
		if err := q.write(dataToHost, lastPDU, h, r.data); err != nil {
			return err
		}
	}
	h := make([]byte, 24)
	binary.LittleEndian.PutUint64(h[8:], r.value)
	binary.LittleEndian.PutUint16(h[16:], q.head)
	binary.LittleEndian.PutUint16(h[18:], q.number)
	copy(h[20:22], sqe[2:4])
	binary.LittleEndian.PutUint16(h[22:], r.status<<1)
	return q.write(response, 0, h, nil)
}

// block reads and writes sectors.
func (q *queue) block(sqe []byte) (result, error) {
	first, count := binary.LittleEndian.Uint64(sqe[40:]), uint64(binary.LittleEndian.Uint16(sqe[48:]))+1
	switch op := sqe[0]; {
	case op == flush:
		return result{}, nil
	case op != read && op != write:
		return result{status: invalidOpcode}, nil
	case first > 1<<40 || (first+count)*sector > uint64(len(q.sub.disk)):
		return result{status: outOfRange}, nil
	case op == read:
		q.sub.mu.Lock()
		defer q.sub.mu.Unlock()
		return result{data: slices.Clone(q.sub.disk[first*sector : (first+count)*sector])}, nil
	}
	data, err := q.fetch(sqe, int(count)*sector) //nolint:gosec // 64 Ki sectors at most
	q.sub.mu.Lock()
	defer q.sub.mu.Unlock()
	copy(q.sub.disk[first*sector:], data)
	return result{}, err
}

// fetch asks for the data of a write.
func (q *queue) fetch(sqe []byte, size int) ([]byte, error) {
	h := make([]byte, 24)
	copy(h[8:10], sqe[2:4])
	binary.LittleEndian.PutUint16(h[10:], 1)
	binary.LittleEndian.PutUint32(h[16:], uint32(size)) //nolint:gosec // small
	if err := q.write(readyToTransfer, 0, h, nil); err != nil {
		return nil, err
	}
	data := make([]byte, size)
	for got := 0; got < size; {
		p, err := q.read()
		if err != nil {
			return nil, err
		}
		if p[0] != dataToUs {
			q.later = append(q.later, p)
			continue
		}
		at, part := int(binary.LittleEndian.Uint32(p[12:])), p[min(int(p[3]), len(p)):]
		if len(p) < 24 || len(part) == 0 || at+len(part) > size {
			return nil, fmt.Errorf("%d bytes of data for byte %d of %d", len(part), at, size)
		}
		got += copy(data[at:], part)
	}
	return data, nil
}
