// Package usbip offers one USB device of no use to the machines of package vm_test
// beside it: what a kernel asks a device before it takes it for one, it answers
// (kernel documentation, usb/usbip_protocol; USB 2.0, chapter 9).
package usbip

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
)

// Port is where usbip looks for devices; it takes no other.
const Port = 3240

// A Device can be attached by one machine at a time.
type Device struct {
	BusID   string // such as "1-1"
	Vendor  uint16
	Product uint16

	mu       sync.Mutex
	listen   net.Listener
	conn     net.Conn
	attached int
}

// Open offers the device on the loopback of this host.
func (d *Device) Open() error {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", Port))
	if err != nil {
		return fmt.Errorf("offering a USB device: %w", err)
	}
	d.listen = l
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_ = d.serve(c)
				_ = c.Close()
			}()
		}
	}()
	return nil
}

// Close takes the device away.
func (d *Device) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn != nil {
		_ = d.conn.Close()
	}
	return d.listen.Close()
}

// Attached returns how often somebody attached the device.
func (d *Device) Attached() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.attached
}

const (
	version     = 0x0111
	askImport   = 0x8003
	giveImport  = 0x0003
	submit      = 1
	unlink      = 2
	answer      = 2 // added to the command
	unknown     = 1 // status of an import: no such device
	pipe        = -32
	highSpeed   = 3
	busAndDev   = 1<<16 | 2
	controlIn   = 1
	getStatus   = 0
	description = 6
)

// serve answers one request to import, and then URBs.
func (d *Device) serve(c net.Conn) error {
	var head [8]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return err
	}
	if code := binary.BigEndian.Uint16(head[2:]); code != askImport {
		return fmt.Errorf("request %#x, want one to import", code)
	}
	var id [32]byte
	if _, err := io.ReadFull(c, id[:]); err != nil {
		return err
	}
	reply := binary.BigEndian.AppendUint16(nil, version)
	reply = binary.BigEndian.AppendUint16(reply, giveImport)
	if string(id[:len(d.BusID)+1]) != d.BusID+"\x00" {
		_, err := c.Write(binary.BigEndian.AppendUint32(reply, unknown))
		return err
	}
	if _, err := c.Write(append(binary.BigEndian.AppendUint32(reply, 0), d.entry()...)); err != nil {
		return err
	}
	d.mu.Lock()
	d.conn = c
	d.attached++
	d.mu.Unlock()
	for {
		if err := d.urb(c); err != nil {
			return err
		}
	}
}

// entry describes the device in 312 bytes.
func (d *Device) entry() []byte {
	b := make([]byte, 312)
	copy(b, "/sys/devices/pretended/"+d.BusID)
	copy(b[256:], d.BusID)
	binary.BigEndian.PutUint32(b[288:], busAndDev>>16)
	binary.BigEndian.PutUint32(b[292:], busAndDev&0xffff)
	binary.BigEndian.PutUint32(b[296:], highSpeed)
	binary.BigEndian.PutUint16(b[300:], d.Vendor)
	binary.BigEndian.PutUint16(b[302:], d.Product)
	copy(b[306:], []byte{0xff, 0, 0, 1, 1, 1}) // class, configuration and how many there are
	return b
}

// urb answers one transfer, or says that one is not under way.
func (d *Device) urb(c net.Conn) error {
	var h [48]byte
	if _, err := io.ReadFull(c, h[:]); err != nil {
		return err
	}
	word := func(i int) uint32 { return binary.BigEndian.Uint32(h[i:]) }
	out := make([]byte, 48)
	copy(out, h[:8])
	binary.BigEndian.PutUint32(out, word(0)+answer)
	switch word(0) {
	case unlink:
		_, err := c.Write(out)
		return err
	case submit:
	default:
		return fmt.Errorf("command %d, want one to submit or unlink", word(0))
	}
	size := int(min(word(24), 1<<16))
	if word(12) != controlIn {
		if _, err := io.CopyN(io.Discard, c, int64(size)); err != nil {
			return err
		}
	}
	data, ok := d.control(h[40:48])
	data = data[:min(len(data), size)]
	sent := len(data)
	if word(12) != controlIn {
		data, sent = nil, size
	}
	status := int32(0)
	if !ok {
		status, data, sent = pipe, nil, 0
	}
	binary.BigEndian.PutUint32(out[20:], uint32(status)) //nolint:gosec // negative, as errors of the kernel are
	binary.BigEndian.PutUint32(out[24:], uint32(sent))   //nolint:gosec // small
	_, err := c.Write(append(out, data...))
	return err
}

// control answers what is asked of endpoint 0. Settings are taken and forgotten.
func (d *Device) control(setup []byte) (data []byte, ok bool) {
	if setup[0]&0x80 == 0 {
		return nil, true
	}
	switch {
	case setup[1] == getStatus:
		return []byte{1, 0}, true // powered by itself
	case setup[1] == description && setup[3] == 1:
		le := binary.LittleEndian
		b := []byte{18, 1, 0, 2, 0xff, 0, 0, 64}
		b = le.AppendUint16(le.AppendUint16(b, d.Vendor), d.Product)
		return append(b, 0, 1, 0, 0, 0, 1), true
	case setup[1] == description && setup[3] == 2: // one configuration, one interface, no endpoint
		return []byte{9, 2, 18, 0, 1, 1, 0, 0xc0, 0, 9, 4, 0, 0, 0, 0xff, 0, 0, 0}, true
	}
	return nil, false
}
