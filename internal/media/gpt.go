package media

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"unicode/utf16"
)

// A partition is a part of a disk, in bytes.
type partition struct {
	label string
	start int64
	size  int64
}

// Sizes of the GUID partition table (UEFI 2.10, 5.3): those of the header, of
// the smallest entry, and what is taken for the most that a table may have.
const (
	gptHeader     = 92
	gptEntry      = 128
	gptMaxEntries = 1024
	gptMaxEntry   = 4096
)

// findPartition returns the one partition of disk with that label.
func findPartition(disk io.ReaderAt, label string) (partition, error) {
	parts, err := readGPT(disk)
	if err != nil {
		return partition{}, err
	}
	var found []partition
	var labels []string
	for _, p := range parts {
		labels = append(labels, fmt.Sprintf("%q", p.label))
		if p.label == label {
			found = append(found, p)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return partition{}, fmt.Errorf("no partition is labelled %q, only %s", label, strings.Join(labels, ", "))
	}
	return partition{}, fmt.Errorf("%d partitions are labelled %q; want one", len(found), label)
}

// readGPT returns the partitions of a disk in the order of its table. The length
// of a sector is not written anywhere: 512 bytes on most disks, 4096 on some,
// and 2048 in images for optical drives. The header is one sector in.
func readGPT(disk io.ReaderAt) ([]partition, error) {
	for _, sector := range []int64{512, 2048, 4096} {
		header := make([]byte, gptHeader)
		if _, err := disk.ReadAt(header, sector); err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("reading the partition table: %w", err)
		}
		if bytes.HasPrefix(header, []byte("EFI PART")) {
			return readEntries(disk, header, sector)
		}
	}
	return nil, errors.New("has no GUID partition table; want a disk image")
}

// readEntries returns the partitions that header tells of (5.3.2).
//
//	offset  bytes  field
//	    12      4  length of the header
//	    16      4  CRC-32 of the header, with this field zero
//	    72      8  first sector of the entries
//	    80      4  number of entries
//	    84      4  length of an entry
//	    88      4  CRC-32 of the entries
func readEntries(disk io.ReaderAt, header []byte, sector int64) ([]partition, error) {
	le := binary.LittleEndian
	sum := le.Uint32(header[16:])
	clear(header[16:20])
	if n := le.Uint32(header[12:]); n != gptHeader {
		return nil, fmt.Errorf("header of the partition table is %d bytes long; want %d", n, gptHeader)
	}
	if crc32.ChecksumIEEE(header) != sum {
		return nil, errors.New("header of the partition table does not match its checksum")
	}
	first, count, size := le.Uint64(header[72:]), le.Uint32(header[80:]), le.Uint32(header[84:])
	if count > gptMaxEntries || size < gptEntry || size > gptMaxEntry || first > 1<<32 {
		return nil, fmt.Errorf("partition table has %d entries of %d bytes in sector %d; want at most %d of %d to %d",
			count, size, first, gptMaxEntries, gptEntry, gptMaxEntry)
	}
	table := make([]byte, count*size)
	if _, err := disk.ReadAt(table, int64(first)*sector); err != nil {
		return nil, fmt.Errorf("reading the entries of the partition table: %w", err)
	}
	if crc32.ChecksumIEEE(table) != le.Uint32(header[88:]) {
		return nil, errors.New("entries of the partition table do not match their checksum")
	}
	var parts []partition
	for ; len(table) > 0; table = table[size:] {
		p, used, err := parseEntry(table, sector)
		if err != nil {
			return nil, err
		}
		if used {
			parts = append(parts, p)
		}
	}
	return parts, nil
}

// parseEntry reads the entry at the start of b (5.3.3): type at 0, first and
// last sector at 32 and 40, label in UTF-16 at 56. A type of zero is no
// partition.
func parseEntry(b []byte, sector int64) (p partition, used bool, err error) {
	if bytes.Equal(b[:16], make([]byte, 16)) {
		return partition{}, false, nil
	}
	var units []uint16
	for at := 56; at < gptEntry; at += 2 {
		u := binary.LittleEndian.Uint16(b[at:])
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	p.label = string(utf16.Decode(units))
	first, last := binary.LittleEndian.Uint64(b[32:]), binary.LittleEndian.Uint64(b[40:])
	if first > last || last > 1<<50 {
		return partition{}, false, fmt.Errorf("partition %q says it covers sectors %d to %d; want the first before the last", p.label, first, last)
	}
	p.start, p.size = int64(first)*sector, int64(last-first+1)*sector //nolint:gosec // below 2^63, checked above
	return p, true, nil
}
