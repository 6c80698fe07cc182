package install

import (
	"fmt"
	"io"
	"strings"
)

// Sizes of what an install makes, in bytes. They can never be changed on an
// installed disk, so each has room to grow.
const (
	espSize    = 512 << 20 // three UKIs of 35 to 60 MiB during an update, and drivers to come
	seedSize   = 512 << 20 // documents, and the extension images for a machine without network
	sigSize    = 16 << 10  // a PKCS #7 signature in JSON, 4 KiB with a large certificate
	veritySize = 16 << 20  // the hash tree of usrSize, 0.8 % of it, rounded up
	usrSize    = 1 << 30   // 300 MiB today
)

// Types of partitions that do not depend on the architecture (UEFI 2.10,
// section 5.3.3, and Discoverable Partitions Specification).
const (
	espType  = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
	seedType = "0FC63DAF-8483-4772-8E79-3D69D8477DE4" // linux-generic
)

// emptySlot is the label of a slot without a version, as systemd-sysupdate and
// systemd-repart have it.
const emptySlot = "_empty"

// noAuto keeps systemd from trying a slot by itself (Discoverable Partitions
// Specification, "Partition Attribute Flags").
const noAuto = "GUID:63"

// A kind is the types of a slot's partitions on one architecture (Discoverable
// Partitions Specification).
type kind struct{ usr, verity, sig string }

func kinds() []kind {
	return []kind{
		{ // x86-64
			"8484680C-9521-48C6-9C11-B0720656F69E",
			"77FF5F63-E7B6-4633-ACF4-1565B864C0E6",
			"E7BB33FB-06CF-4E81-8273-E543B413E2E2",
		},
		{ // arm64
			"B0E01050-EE5F-4390-949A-9101B17104E9",
			"6E11A4E7-FBCA-4DED-B9E9-E1A512BB664E",
			"C23CE4FF-44BD-4B00-B2D4-B41B3419E02A",
		},
	}
}

// Numbers of the partitions that are written to. The B slot follows; root and
// the data partition are made by systemd-repart at first boot.
const (
	espNumber     = 1
	seedNumber    = 2
	sigNumber     = 3
	verityNumber  = 4
	usrNumber     = 5
	lastPartition = 8
)

// script returns what sfdisk makes the new table from (sfdisk(8), "Input
// formats"). Slot A is the source's, down to the ids: the kernel command line
// finds usr by them. Sizes with units are right for any sector size, and
// partitions start at multiples of 1 MiB.
func script(s source) io.Reader {
	var b strings.Builder
	b.WriteString("label: gpt\n")
	line := func(size uint64, p part) {
		fmt.Fprintf(&b, "size=%dKiB, type=%s, name=%q", size>>10, p.Type, p.Name)
		if p.UUID != "" {
			fmt.Fprintf(&b, ", uuid=%s", p.UUID)
		}
		if p.Attrs != "" {
			fmt.Fprintf(&b, ", attrs=%q", p.Attrs)
		}
		b.WriteByte('\n')
	}
	line(espSize, part{Type: espType, Name: incomplete})
	line(seedSize, part{Type: seedType, Name: "seed-data"})
	line(sigSize, s.sig)
	line(veritySize, s.verity)
	line(usrSize, s.usr)
	line(sigSize, part{Type: s.sig.Type, Name: emptySlot})
	line(veritySize, part{Type: s.verity.Type, Name: emptySlot, Attrs: noAuto})
	line(usrSize, part{Type: s.usr.Type, Name: emptySlot, Attrs: noAuto})
	return strings.NewReader(b.String())
}
