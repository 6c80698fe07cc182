package usbip

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"testing"
)

func TestDeviceIsDescribed(t *testing.T) {
	d := &Device{BusID: "1-1", Vendor: 0x1d6b, Product: 0x0104}
	ours, theirs := net.Pipe()
	go func() { _ = d.serve(theirs) }()
	t.Cleanup(func() { ours.Close() })
	ask := append([]byte{1, 0x11, 0x80, 3, 0, 0, 0, 0, '1', '-', '1'}, make([]byte, 29)...)
	if got := exchange(t, ours, ask, 320); !bytes.Equal(got[:8], []byte{1, 0x11, 0, 3, 0, 0, 0, 0}) || string(got[8+256:8+259]) != "1-1" {
		t.Fatalf("the import is answered with % x", got[:8])
	}
	urb := make([]byte, 48)
	binary.BigEndian.PutUint32(urb, submit)
	binary.BigEndian.PutUint32(urb[4:], 7)
	binary.BigEndian.PutUint32(urb[12:], controlIn)
	binary.BigEndian.PutUint32(urb[24:], 18)
	copy(urb[40:], []byte{0x80, description, 0, 1, 0, 0, 18, 0})
	got := exchange(t, ours, urb, 48+18)
	if binary.BigEndian.Uint32(got) != submit+answer || binary.BigEndian.Uint32(got[4:]) != 7 || binary.BigEndian.Uint32(got[24:]) != 18 {
		t.Errorf("the header of the answer is % x", got[:48])
	}
	if got := got[48:]; got[0] != 18 || got[1] != 1 || binary.LittleEndian.Uint16(got[8:]) != 0x1d6b {
		t.Errorf("the device is described as % x", got)
	}
	copy(urb[40:], []byte{0x80, description, 0, 3, 0, 0, 18, 0})
	if got := exchange(t, ours, urb, 48); int32(binary.BigEndian.Uint32(got[20:])) != pipe {
		t.Errorf("asking for a text ends with %d, want %d", int32(binary.BigEndian.Uint32(got[20:])), pipe)
	}
}

func exchange(t *testing.T, c net.Conn, out []byte, want int) []byte {
	t.Helper()
	if _, err := c.Write(out); err != nil {
		t.Fatal(err)
	}
	in := make([]byte, want)
	if _, err := io.ReadFull(c, in); err != nil {
		t.Fatal(err)
	}
	return in
}

func TestOnlyOneDevice(t *testing.T) {
	ours, theirs := net.Pipe()
	go func() { _ = (&Device{BusID: "1-1"}).serve(theirs) }()
	t.Cleanup(func() { ours.Close() })
	ask := append([]byte{1, 0x11, 0x80, 3, 0, 0, 0, 0, '1', '-', '2'}, make([]byte, 29)...)
	if got := exchange(t, ours, ask, 8); got[7] != unknown {
		t.Errorf("the import of another device is answered with % x", got)
	}
}
