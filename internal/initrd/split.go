// Package initrd cuts an initrd into archives, so that a small change of it stays small.
//
// What is one compressed stream is another one behind the first byte that changes. The
// kernel takes several archives, each compressed by itself, and skips zeros between
// them (init/initramfs.c, unpack_to_rootfs). Each begins at a multiple of 4 KiB, which
// are the blocks of package verity: one that has not changed is found again wherever
// it is.
//
//	newc.go   the format of archives, as bytes
//	split.go  what belongs together
//	pack.go   archives become an initrd
//
// Package image has it run on what mkosi made of image/mkosi.images/initrd.
package initrd

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// Sizes in bytes, as archives are before they are compressed. Smaller archives would
// save little of an update, which brings a library of 6 MB, and cost a kernel image more
// than it may have.
const (
	limit = 1 << 20   // of an archive, unless it is one file
	alone = 256 << 10 // files from here on have an archive of their own
	usual = 512 << 10 // of archives of several files
)

// fileTime is the time of change of all files: archives would be other ones after each
// build if the time of that was in them. It is not 0, which systemd takes for none.
const fileTime = 1

// A unit is what must stay together: one entry, or all names of a file with several.
type unit []entry

func (u unit) size() (n int) {
	for _, e := range u {
		n += e.size()
	}
	return n
}

// Kinds of units, in the order of their archives.
const (
	bare    = iota // directories, links and empty files: before what lies in them
	small          // files
	modules        // of the kernel: all change with it
	large          // files that are an archive each
)

func (u unit) kind() int {
	switch {
	case len(u) == 1 && (!u[0].regular() || len(u[0].data) == 0):
		return bare
	case u.size() >= alone:
		return large
	case strings.HasPrefix(u[0].name, "usr/lib/modules/"):
		return modules
	}
	return small
}

// begins reports whether an archive begins with a file. That is said by its name, so
// that boundaries stay where they are when another file comes, goes or grows; the larger
// it is, the more probably, so that archives have about the usual size.
func (u unit) begins() bool {
	sum := sha256.Sum256([]byte(u[0].name))
	return uint64(binary.BigEndian.Uint32(sum[:]))*usual < uint64(u.size())<<32 //nolint:gosec // not negative
}

// Split cuts an archive of the format newc, not compressed, into several. Together they
// have its entries: directories before what is in them, the names of a file in one
// archive. Numbers of inodes are counted anew in each, and files have the same time of
// change, whenever they were made; what is empty keeps its own (systemd looks at that of
// /usr/lib/clock-epoch).
func Split(archive []byte) ([][]byte, error) {
	entries, err := parse(archive)
	if err != nil {
		return nil, err
	}
	units, err := unite(entries)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(units, func(a, b unit) int { return a.kind() - b.kind() })
	var archives [][]byte
	for _, g := range group(units) {
		archives = append(archives, build(g))
	}
	return archives, nil
}

// unite returns the units in the order of their first entries.
func unite(entries []entry) (units []unit, err error) {
	type file struct{ inode, major, minor uint32 }
	names, linked := make(map[string]bool), make(map[file]int)
	for _, e := range entries {
		if names[e.name] {
			return nil, fmt.Errorf("the archive has %q twice; which one counts would depend on their order", e.name)
		}
		names[e.name] = true
		id := file{e.head[inode], e.head[devMajor], e.head[devMinor]}
		if i, ok := linked[id]; ok && e.regular() && e.head[links] > 1 {
			units[i] = append(units[i], e)
			continue
		}
		if e.regular() && e.head[links] > 1 {
			linked[id] = len(units)
		}
		units = append(units, unit{e})
	}
	return units, nil
}

// group cuts units, which are sorted by kind, into archives.
func group(units []unit) (groups [][]unit) {
	size := 0
	for i, u := range units {
		kind := u.kind()
		if i == 0 || kind == large || kind != units[i-1].kind() || size+u.size() > limit || kind != bare && u.begins() {
			groups, size = append(groups, nil), headSize+filled(len(trailer)+1)
		}
		last := len(groups) - 1
		groups[last] = append(groups[last], u)
		size += u.size()
	}
	return groups
}

// build makes an archive.
func build(units []unit) (b []byte) {
	number := uint32(0)
	for _, u := range units {
		number++
		for _, e := range u {
			e.head[inode], e.head[devMajor], e.head[devMinor] = number, 0, 0
			if u.kind() != bare {
				e.head[mtime] = fileTime
			}
			b = encode(b, e)
		}
	}
	return encode(b, entry{name: trailer, head: [fields]uint32{links: 1}})
}
