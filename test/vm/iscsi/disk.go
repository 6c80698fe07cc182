package iscsi

import (
	"encoding/binary"
	"fmt"
)

const block = 512

// What is wrong with a command: sense key, and additional sense code.
const (
	invalidOperation = 0x0520
	invalidField     = 0x0524
	outOfRange       = 0x0521
)

// command carries out one SCSI command (SAM-5, SPC-4 and SBC-3).
func (s *session) command(p *pdu) error {
	cdb := p.head[32:48]
	first, count, transfers := extent(cdb)
	switch {
	case p.word(8) != 0 || p.word(12) != 0: // another unit than number 0
		return s.done(p, nil, invalidField)
	case transfers && first+count > uint64(len(s.target.disk)/block):
		return s.done(p, nil, outOfRange)
	case transfers && cdb[0]&0x1f == 0x08: // READ
		s.target.mu.Lock()
		data := append([]byte(nil), s.target.disk[first*block:(first+count)*block]...)
		s.target.mu.Unlock()
		return s.done(p, data, 0)
	case transfers: // WRITE
		if err := s.fetch(p, first*block, count*block); err != nil {
			return err
		}
		return s.done(p, nil, 0)
	}
	data, sense := s.target.tell(cdb)
	return s.done(p, data, sense)
}

// extent returns which blocks READ and WRITE of each length are about.
func extent(cdb []byte) (first, count uint64, ok bool) {
	switch cdb[0] {
	case 0x08, 0x0a:
		count = uint64(cdb[4])
		if count == 0 {
			count = 256
		}
		return uint64(binary.BigEndian.Uint32(cdb) & 0x1fffff), count, true
	case 0x28, 0x2a:
		return uint64(binary.BigEndian.Uint32(cdb[2:])), uint64(binary.BigEndian.Uint16(cdb[7:])), true
	case 0x88, 0x8a:
		first = min(binary.BigEndian.Uint64(cdb[2:]), 1<<60)
		return first, uint64(binary.BigEndian.Uint32(cdb[10:])), true
	}
	return 0, 0, false
}

// tell answers commands that only ask.
func (t *Target) tell(cdb []byte) (data []byte, sense int) {
	blocks := uint64(len(t.disk) / block)
	switch cdb[0] {
	case 0x00, 0x35, 0x91, 0x1b: // TEST UNIT READY, SYNCHRONIZE CACHE, START STOP UNIT
		return nil, 0
	case 0x03: // REQUEST SENSE
		return limit([]byte{0x70, 17: 0}, int(cdb[4])), 0
	case 0x12:
		return t.inquiry(cdb)
	case 0x1a: // MODE SENSE(6): a header, no pages
		return limit([]byte{3, 0, 0, 0}, int(cdb[4])), 0
	case 0x5a:
		return limit([]byte{0, 6, 0, 0, 0, 0, 0, 0}, int(binary.BigEndian.Uint16(cdb[7:]))), 0
	case 0x25: // READ CAPACITY(10)
		data = binary.BigEndian.AppendUint32(nil, uint32(blocks-1)) //nolint:gosec // disks here are small
		return binary.BigEndian.AppendUint32(data, block), 0
	case 0x9e:
		if cdb[1]&0x1f != 0x10 {
			return nil, invalidField
		}
		data = binary.BigEndian.AppendUint64(nil, blocks-1)
		data = append(binary.BigEndian.AppendUint32(data, block), make([]byte, 20)...)
		return limit(data, int(binary.BigEndian.Uint32(cdb[10:]))), 0
	case 0xa0: // REPORT LUNS: number 0 alone
		return limit([]byte{3: 8, 15: 0}, int(binary.BigEndian.Uint32(cdb[6:]))), 0
	}
	return nil, invalidOperation
}

// inquiry says what the disk is; page 83h has its WWN.
func (t *Target) inquiry(cdb []byte) (data []byte, sense int) {
	most := int(binary.BigEndian.Uint16(cdb[3:]))
	serial := fmt.Sprintf("%016x", t.WWN)
	switch {
	case cdb[1]&1 == 0:
		data = append([]byte{0, 0, 5, 0x12, 31, 0, 0, 2}, fmt.Sprintf("%-8s%-16s%-4s", "IncusOS", "test disk", "1")...)
	case cdb[2] == 0x00:
		data = []byte{0, 0x00, 0, 3, 0x00, 0x80, 0x83}
	case cdb[2] == 0x80:
		data = append([]byte{0, 0x80, 0, byte(len(serial))}, serial...)
	case cdb[2] == 0x83:
		data = binary.BigEndian.AppendUint64([]byte{0, 0x83, 0, 12, 0x01, 0x03, 0, 8}, t.WWN)
	default:
		return nil, invalidField
	}
	return limit(data, most), 0
}

func limit(data []byte, most int) []byte { return data[:min(len(data), most)] }

// done sends what a command returns, and how it went.
func (s *session) done(p *pdu, data []byte, sense int) error {
	wanted := int(p.word(20))
	sent := limit(data, wanted)
	for at, n := 0, uint32(0); at < len(sent); n++ {
		size := min(len(sent)-at, s.most)
		in := p.answer(opDataIn).set(map[int]uint32{20: 0xffffffff, 36: n, 40: uint32(at)}) //nolint:gosec // small
		copy(in.head[8:16], p.head[8:16])
		in.data = sent[at : at+size]
		at += size
		if at < len(sent) {
			in.head[1] = 0
		}
		if err := s.write(in, false); err != nil {
			return err
		}
	}
	a := p.answer(opCommand | reply)
	if reads := p.head[1]&0x40 != 0; reads && len(sent) < wanted && sense == 0 {
		a.head[1] |= 0x02                                     // less than there was room for
		a.set(map[int]uint32{44: uint32(wanted - len(sent))}) //nolint:gosec // small
	}
	if sense != 0 {
		a.head[3] = 0x02 // CHECK CONDITION
		a.data = []byte{0, 18, 0x70, 0, byte(sense >> 8), 9: 10, 14: byte(sense), 19: 0}
	}
	return s.write(a, true)
}

// fetch asks for the data of a WRITE, a burst at a time.
func (s *session) fetch(p *pdu, at, size uint64) error {
	const burst = 64 << 10
	for done, n := uint64(0), uint32(0); done < size; n++ {
		part := min(size-done, burst)
		ask := p.answer(opR2T).set(map[int]uint32{20: n, 24: s.status, 36: n, 40: uint32(done), 44: uint32(part)}) //nolint:gosec // small
		copy(ask.head[8:16], p.head[8:16])
		if err := s.write(ask, false); err != nil {
			return err
		}
		for got := uint64(0); got < part; {
			d, err := s.receive()
			if err != nil {
				return err
			}
			if d.op() != opDataOut {
				s.later = append(s.later, d)
				continue
			}
			offset, length := uint64(d.word(40)), uint64(len(d.data))
			if offset+length > size || length == 0 {
				return fmt.Errorf("there are %d bytes of data for byte %d of %d", length, offset, size)
			}
			s.target.mu.Lock()
			copy(s.target.disk[at+offset:], d.data)
			s.target.mu.Unlock()
			got += length
		}
		done += part
	}
	return nil
}
