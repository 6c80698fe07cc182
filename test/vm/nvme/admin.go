package nvme

import (
	"encoding/binary"
	"slices"
	"strings"
)

// Properties of a controller, by their offsets.
const (
	capabilities  = 0x00
	versionNumber = 0x08
	configuration = 0x14
	statusOf      = 0x1c
	version13     = 0x00010300
)

// fabrics connects a queue, and reads and sets properties.
func (q *queue) fabrics(sqe, data []byte) result {
	le := binary.LittleEndian
	switch sqe[4] {
	case 0x01: // connect
		text := func(b []byte) string { s, _, _ := strings.Cut(string(b), "\x00"); return s }
		if len(data) < 1024 || text(data[256:512]) != q.sub.NQN {
			return result{status: connectRefused}
		}
		q.number = le.Uint16(sqe[42:])
		q.sub.admit(text(data[512:768]))
		return result{value: 1} // the one controller
	case 0x00: // set a property
		if le.Uint32(sqe[44:]) == configuration {
			q.config = le.Uint64(sqe[48:])
		}
		return result{}
	case 0x04:
		switch le.Uint32(sqe[44:]) {
		case capabilities: // 128 entries, contiguous; 10 seconds; commands for drives
			return result{value: wholeSubmission | 1<<16 | 20<<24 | 1<<37}
		case versionNumber:
			return result{value: version13}
		case configuration:
			return result{value: q.config}
		case statusOf: // enabled, and shut down, as soon as that is asked for
			ready := q.config & 1
			if q.config>>14&3 != 0 {
				ready |= 2 << 2
			}
			return result{value: ready}
		}
		return result{status: invalidField}
	}
	return result{status: invalidOpcode}
}

func (s *Subsystem) admit(host string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.hosts, host) {
		s.hosts = append(s.hosts, host)
	}
}

// admin answers commands of queue 0.
func (q *queue) admin(sqe []byte) result {
	switch sqe[0] {
	case 0x06:
		return q.sub.identify(sqe)
	case 0x09: // set features: four queues at most
		if sqe[40] == 0x07 {
			return result{value: 3<<16 | 3}
		}
		return result{}
	case 0x0a: // get features
		return result{}
	case 0x02: // no log
		return result{status: invalidLogPage}
	case 0x18, 0x08: // keep alive, abort
		return result{value: 1}
	}
	return result{status: invalidOpcode}
}

// identify says what the subsystem is.
func (s *Subsystem) identify(sqe []byte) result {
	le := binary.LittleEndian
	b := make([]byte, 4096)
	switch sqe[40] {
	case 0x00: // the drive
		sectors := uint64(len(s.disk) / sector)
		for _, at := range []int{0, 8, 16} {
			le.PutUint64(b[at:], sectors)
		}
		copy(b[104:], s.uuid()) // NGUID
		b[130] = 9              // sectors of 2^9 bytes
	case 0x01: // the controller
		copy(b[4:], padded(s.Serial, 20))
		copy(b[24:], padded("IncusOS test drive", 40))
		copy(b[64:], padded("1", 8))
		b[77] = 5 // transfers of 2^5 pages
		le.PutUint16(b[78:], 1)
		le.PutUint32(b[80:], version13)
		b[111] = 1                  // for input and output
		le.PutUint16(b[320:], 100)  // keep alive in steps of 10 seconds
		b[512], b[513] = 0x66, 0x44 // sizes of entries
		le.PutUint16(b[514:], wholeSubmission+1)
		le.PutUint32(b[516:], 1)
		b[525] = 0
		le.PutUint32(b[536:], 1|1<<20)
		copy(b[768:], s.NQN)
		le.PutUint32(b[1792:], 4) // commands come without data
		le.PutUint32(b[1796:], 1)
		b[1803] = 1
	case 0x02: // the list of drives
		if le.Uint32(sqe[4:]) == 0 {
			le.PutUint32(b, 1)
		}
	case 0x03: // the names of the drive
		b[0], b[1] = 3, 16
		copy(b[4:], s.uuid())
	default:
		return result{status: invalidField}
	}
	return result{data: b}
}

// uuid is made of the serial number.
func (s *Subsystem) uuid() []byte { return []byte(padded(s.Serial, 16))[:16] }

func padded(s string, size int) string { return s + strings.Repeat(" ", max(size-len(s), 0)) }
