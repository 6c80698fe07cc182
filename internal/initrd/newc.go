package initrd

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

// Archives are cpio of the format newc: for each entry a head of 110 bytes, its name
// and a zero, its content, the latter two filled up with zeros to a multiple of four
// bytes (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).
const (
	magic    = "070701"
	headSize = len(magic) + 8*fields
	fields   = 13
	trailer  = "TRAILER!!!" // the name of the last entry
)

// Fields of a head, each a number of eight hexadecimal digits.
const (
	inode    = 0
	mode     = 1
	links    = 4
	mtime    = 5 // seconds since 1970
	fileSize = 6
	devMajor = 7
	devMinor = 8
	nameSize = 11 // with the zero
)

// Types of entries, in their mode.
const (
	typeMask    = 0o170000
	typeRegular = 0o100000
)

// An entry is one of an archive.
type entry struct {
	name string
	head [fields]uint32
	data []byte
}

func (e entry) regular() bool { return e.head[mode]&typeMask == typeRegular }

// size is what it takes of an archive, in bytes.
func (e entry) size() int { return filled(headSize+len(e.name)+1) + filled(len(e.data)) }

func filled(n int) int { return (n + 3) &^ 3 }

var errShort = errors.New("it ends too early")

// parse reads an archive, without its last entry.
func parse(b []byte) (entries []entry, err error) {
	rest := b
	for {
		e, n, err := parseEntry(rest)
		if err != nil {
			return nil, fmt.Errorf("the entry at byte %d of the archive: %w", len(b)-len(rest), err)
		}
		if rest = rest[n:]; e.name == trailer {
			break
		}
		entries = append(entries, e)
	}
	if i := bytes.IndexFunc(rest, func(r rune) bool { return r != 0 }); i >= 0 {
		return nil, fmt.Errorf("there is something behind the archive, at byte %d", len(b)-len(rest)+i)
	}
	return entries, nil
}

func parseEntry(b []byte) (e entry, size int, err error) {
	if len(b) < headSize {
		return e, 0, errShort
	}
	if !bytes.HasPrefix(b, []byte(magic)) {
		return e, 0, fmt.Errorf("it begins with %q; want %q", b[:len(magic)], magic)
	}
	for i := range e.head {
		n, err := strconv.ParseUint(string(b[len(magic)+8*i:len(magic)+8*i+8]), 16, 32)
		if err != nil {
			return e, 0, fmt.Errorf("field %d of its head: %w", i, err)
		}
		e.head[i] = uint32(n)
	}
	if e.head[nameSize] == 0 {
		return e, 0, errors.New("it has no name")
	}
	end := uint64(headSize) + uint64(e.head[nameSize])
	data := (end + 3) &^ 3
	dataEnd := data + uint64(e.head[fileSize])
	all := (dataEnd + 3) &^ 3
	if all > uint64(len(b)) {
		return e, 0, errShort
	}
	if b[end-1] != 0 {
		return e, 0, errors.New("its name does not end")
	}
	e.name, e.data = string(b[headSize:end-1]), b[data:dataEnd]
	return e, int(all), nil //nolint:gosec // at most len(b)
}

// encode appends an entry to an archive.
func encode(b []byte, e entry) []byte {
	e.head[fileSize], e.head[nameSize] = uint32(len(e.data)), uint32(len(e.name)+1) //nolint:gosec // as they were read
	b = append(b, magic...)
	for _, n := range e.head {
		b = fmt.Appendf(b, "%08X", n)
	}
	b = pad(append(append(b, e.name...), 0), 4)
	return pad(append(b, e.data...), 4)
}

// pad fills up with zeros to a multiple of n bytes.
func pad(b []byte, n int) []byte { return append(b, make([]byte, (n-len(b)%n)%n)...) }
