package install

import (
	"bytes"
	"errors"
	"io"
)

// probe is how much of a disk's start and end is looked at.
const probe = 1 << 20

// A magic is what tells that a disk holds something: bytes at an offset from
// its start. With step, they may also be at any multiple of it up to last.
type magic struct {
	name   string
	offset int
	bytes  string
	step   int
	last   int
}

// magics come from the table of libblkid (util-linux, libblkid/src). Of two
// that fit, the first is the better description.
func magics() []magic {
	return []magic{
		{name: "a GPT partition table", offset: 512, bytes: "EFI PART"},
		{name: "a GPT partition table", offset: 4096, bytes: "EFI PART"}, // 4 KiB sectors
		{name: "LUKS encryption", offset: 0, bytes: "LUKS\xba\xbe"},
		{name: "an LVM physical volume", offset: 512, bytes: "LABELONE"},
		{name: "a member of a ZFS pool", offset: 128 << 10, bytes: "\x0c\xb1\xba\x00\x00\x00\x00\x00", step: 1 << 10, last: 256<<10 - 8},
		{name: "a member of a ZFS pool", offset: 128 << 10, bytes: "\x00\x00\x00\x00\x00\xba\xb1\x0c", step: 1 << 10, last: 256<<10 - 8}, // from a big-endian machine
		{name: "a member of a RAID array", offset: 0, bytes: "\xfc\x4e\x2b\xa9"},
		{name: "a member of a RAID array", offset: 4096, bytes: "\xfc\x4e\x2b\xa9"},
		{name: "a Ceph OSD", offset: 0, bytes: "bluestore block device"},
		{name: "an ext file system", offset: 1080, bytes: "\x53\xef"},
		{name: "an XFS file system", offset: 0, bytes: "XFSB"},
		{name: "a btrfs file system", offset: 64<<10 + 64, bytes: "_BHRfS_M"},
		{name: "an NTFS file system", offset: 3, bytes: "NTFS    "},
		{name: "an exFAT file system", offset: 3, bytes: "EXFAT   "},
		{name: "a FAT file system", offset: 82, bytes: "FAT32   "},
		{name: "a FAT file system", offset: 54, bytes: "FAT16   "},
		{name: "an ISO 9660 file system", offset: 32769, bytes: "CD001"},
		{name: "an erofs file system", offset: 1024, bytes: "\xe2\xe1\xf5\xe0"},
		{name: "swap space", offset: 4086, bytes: "SWAPSPACE2"},
		{name: "an MBR partition table", offset: 510, bytes: "\x55\xaa"},
	}
}

// contents tells what a disk of size bytes holds, or "" for a disk with nothing
// but zeros in its first and last MiB.
func contents(disk io.ReaderAt, size uint64) (string, error) {
	head, err := readAt(disk, 0)
	if err != nil {
		return "", err
	}
	tail, err := readAt(disk, max(int64(size)-probe, 0)) //nolint:gosec // no disk has 8 EiB
	if err != nil {
		return "", err
	}
	if zero(head) && zero(tail) {
		return "", nil
	}
	for _, m := range magics() {
		if m.in(head) {
			return m.name, nil
		}
	}
	if len(tail) >= 512 && bytes.HasPrefix(tail[len(tail)-512:], []byte("EFI PART")) {
		return "a GPT partition table, of which only the backup is left", nil
	}
	return "of unknown kind", nil
}

func (m magic) in(head []byte) bool {
	for at := m.offset; ; at += m.step {
		if at+len(m.bytes) <= len(head) && string(head[at:at+len(m.bytes)]) == m.bytes {
			return true
		}
		if m.step == 0 || at+m.step > m.last {
			return false
		}
	}
}

// readAt returns the probe bytes from offset on, or what there is of them.
func readAt(r io.ReaderAt, offset int64) ([]byte, error) {
	b := make([]byte, probe)
	n, err := r.ReadAt(b, offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b[:n], nil
}

func zero(b []byte) bool { return len(bytes.TrimLeft(b, "\x00")) == 0 }
