package media

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"strings"
	"testing"
)

// table returns a disk with sectors of 512 bytes and a table of one entry, whose
// checksums fit.
func table(change func(header, entry []byte)) []byte {
	disk := make([]byte, 4096)
	header, entry := disk[512:512+gptHeader], disk[1024:1024+gptEntry]
	le := binary.LittleEndian
	copy(header, "EFI PART")
	le.PutUint32(header[12:], gptHeader)
	le.PutUint64(header[72:], 2)
	le.PutUint32(header[80:], 1)
	le.PutUint32(header[84:], gptEntry)
	entry[0] = 1
	le.PutUint64(entry[32:], 4)
	le.PutUint64(entry[40:], 7)
	copy(entry[56:], "a\x00b\x00")
	change(header, entry)
	le.PutUint32(header[88:], crc32.ChecksumIEEE(entry))
	le.PutUint32(header[16:], crc32.ChecksumIEEE(header))
	return disk
}

func TestReadGPT(t *testing.T) {
	le := binary.LittleEndian
	damage := func(at int) []byte {
		disk := table(func(_, _ []byte) {})
		disk[at] ^= 1
		return disk
	}

	tests := map[string]struct {
		disk []byte
		want string // how the refusal starts; "" means accepted
	}{
		"one partition":          {table(func(_, _ []byte) {}), ""},
		"an unused entry":        {table(func(_, entry []byte) { entry[0] = 0 }), ""},
		"nothing":                {nil, "has no GUID partition table"},
		"a damaged header":       {damage(512 + 56), "header of the partition table does not match its checksum"},
		"a damaged entry":        {damage(1024 + 56), "entries of the partition table do not match their checksum"},
		"a longer header":        {table(func(header, _ []byte) { header[12] = 96 }), "header of the partition table is 96 bytes long; want 92"},
		"a million entries":      {table(func(header, _ []byte) { le.PutUint32(header[80:], 1e6) }), "partition table has 1000000 entries"},
		"entries of one byte":    {table(func(header, _ []byte) { le.PutUint32(header[84:], 1) }), "partition table has 1 entries of 1 bytes"},
		"entries beyond the end": {table(func(header, _ []byte) { header[72] = 200 }), "reading the entries of the partition table: EOF"},
		"a partition that ends first": {table(func(_, entry []byte) { entry[32] = 9 }),
			`partition "ab" says it covers sectors 9 to 7`},
		"a partition beyond measure": {table(func(_, entry []byte) { entry[47] = 0xff }),
			`partition "ab" says it covers sectors 4 to 18374686479671623687`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := readGPT(bytes.NewReader(tt.disk))
			got := ""
			if err != nil {
				got = err.Error()
			}
			if !strings.HasPrefix(got, tt.want) || (got == "") != (tt.want == "") {
				t.Errorf("said %q, want %q", got, tt.want)
			}
		})
	}
}

func FuzzReadGPT(f *testing.F) {
	f.Add(table(func(_, _ []byte) {}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= 512+gptHeader { // give the checksum of the header a chance
			header := b[512 : 512+gptHeader]
			clear(header[16:20])
			binary.LittleEndian.PutUint32(header[16:], crc32.ChecksumIEEE(header))
		}
		parts, err := readGPT(bytes.NewReader(b))
		if err != nil {
			return
		}
		for _, p := range parts {
			if p.start < 0 || p.size <= 0 || p.start+p.size < 0 {
				t.Errorf("partition %q from %d, %d bytes long", p.label, p.start, p.size)
			}
		}
	})
}
