package nvme

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"testing"
	"time"
)

// A host that knows just enough to see that the subsystem answers as it should.
type host struct {
	t    *testing.T
	conn net.Conn
	id   uint16
}

func dial(t *testing.T, s *Subsystem) *host {
	t.Helper()
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.Port()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	h := &host{t: t, conn: c}
	h.send(initialize, make([]byte, 128), nil)
	if p := h.read(); p[0] != initialized || len(p) != 128 {
		t.Fatalf("the connection is answered with % x", p[:8])
	}
	return h
}

func (h *host) send(kind byte, header, data []byte) {
	h.t.Helper()
	if err := (&queue{conn: h.conn}).write(kind, 0, header, data); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) read() []byte {
	h.t.Helper()
	p, err := (&queue{conn: h.conn}).read()
	if err != nil {
		h.t.Fatal(err)
	}
	return p
}

// do sends a command and returns data, value and status. Out is for a write.
func (h *host) do(sqe, out []byte, inCapsule bool) (data []byte, value uint64, status uint16) {
	h.t.Helper()
	h.id++
	binary.LittleEndian.PutUint16(sqe[2:], h.id)
	if binary.LittleEndian.Uint32(sqe[32:]) == 0 {
		binary.LittleEndian.PutUint32(sqe[32:], 1<<20)
	}
	carried := out
	if !inCapsule {
		carried = nil
	}
	h.send(command, append(make([]byte, 8), sqe...), carried)
	for {
		switch p := h.read(); p[0] {
		case dataToHost:
			data = append(data, p[24:]...)
		case readyToTransfer:
			d := make([]byte, 24)
			copy(d[8:], p[8:12])
			h.send(dataToUs, d, out)
		default:
			return data, binary.LittleEndian.Uint64(p[8:]), binary.LittleEndian.Uint16(p[22:]) >> 1
		}
	}
}

func connect(queue byte) []byte {
	sqe := make([]byte, 64)
	sqe[0], sqe[4], sqe[42] = fabrics, 1, queue
	return sqe
}

func names(nqn string) []byte {
	b := make([]byte, 1024)
	copy(b[256:], nqn)
	copy(b[512:], "nqn.2014-08.org.nvmexpress:uuid:0")
	return b
}

func TestDrive(t *testing.T) {
	s := &Subsystem{NQN: "nqn.2026-01.org.example:drive", Serial: "drive-1"}
	if err := s.Open(1 << 20); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	admin, io := dial(t, s), dial(t, s)
	if _, _, status := dial(t, s).do(connect(0), names("nqn.other"), true); status != connectRefused {
		t.Errorf("connecting to another subsystem ends with %#x", status)
	}
	if _, id, status := admin.do(connect(0), names(s.NQN), true); id != 1 || status != 0 {
		t.Fatalf("connecting ends with %d, %#x", id, status)
	}
	sqe := make([]byte, 64)
	sqe[0], sqe[40] = 6, 1
	if data, _, _ := admin.do(sqe, nil, false); len(data) != 4096 || !bytes.HasPrefix(data[768:], []byte(s.NQN)) || !bytes.HasPrefix(data[4:], []byte("drive-1  ")) {
		t.Errorf("the controller is described in %d bytes", len(data))
	}
	if _, _, status := io.do(connect(1), names(s.NQN), true); status != 0 {
		t.Fatalf("connecting a queue ends with %#x", status)
	}
	content := bytes.Repeat([]byte("sixteen bytes..."), 4096/16)
	for _, op := range []byte{write, read} {
		sqe := make([]byte, 64)
		sqe[0], sqe[40], sqe[48] = op, 8, 7
		data, _, status := io.do(sqe, content, false)
		if status != 0 || op == read && !bytes.Equal(data, content) {
			t.Errorf("command %d ends with %#x and %d bytes", op, status, len(data))
		}
	}
	sqe = make([]byte, 64)
	sqe[0], sqe[42] = read, 1
	if _, _, status := io.do(sqe, nil, false); status != outOfRange {
		t.Errorf("reading beyond the end ends with %#x", status)
	}
	if got := s.Hosts(); len(got) != 1 || got[0] != "nqn.2014-08.org.nvmexpress:uuid:0" {
		t.Errorf("Hosts() = %q", got)
	}
}

func TestCutEndsConnections(t *testing.T) {
	s := &Subsystem{NQN: "nqn.2026-01.org.example:drive"}
	if err := s.Open(1 << 20); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	h := dial(t, s)
	s.Cut()
	if err := h.conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := h.conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("reading ends with %v, want that the connection is gone", err)
	}
}
