package install

import (
	"bytes"
	"testing"
)

func TestContents(t *testing.T) {
	tests := map[string]struct {
		at   int
		text string
		want string
	}{
		"nothing":              {0, "", ""},
		"one byte at the end":  {8<<20 - 1, "x", "of unknown kind"},
		"one byte in between":  {4 << 20, "x", ""},
		"GPT":                  {512, "EFI PART", "a GPT partition table"},
		"GPT of 4 KiB sectors": {4096, "EFI PART", "a GPT partition table"},
		"backup GPT":           {8<<20 - 512, "EFI PART", "a GPT partition table, of which only the backup is left"},
		"LUKS":                 {0, "LUKS\xba\xbe\x00\x02", "LUKS encryption"},
		"ext4":                 {1080, "\x53\xef", "an ext file system"},
		"a ZFS uberblock":      {128<<10 + 37<<10, "\x0c\xb1\xba\x00\x00\x00\x00\x00", "a member of a ZFS pool"},
		"an MBR":               {510, "\x55\xaa", "an MBR partition table"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			disk := make([]byte, 8<<20)
			copy(disk[tt.at:], tt.text)
			if got, err := contents(bytes.NewReader(disk), uint64(len(disk))); got != tt.want || err != nil {
				t.Errorf("contents() = %q, %v; want %q", got, err, tt.want)
			}
		})
	}
}

func TestUsedBytes(t *testing.T) {
	super := func(bits byte, blocks uint32) []byte {
		b := make([]byte, 4096)
		copy(b[1024:], "\xe2\xe1\xf5\xe0")
		b[1024+12], b[1024+36], b[1024+37] = bits, byte(blocks), byte(blocks>>8)
		return b
	}
	tests := map[string]struct {
		head []byte
		want uint64 // 0 means refused
	}{
		"erofs":               {super(12, 256), 1 << 20},
		"another":             {make([]byte, 4096), 2 << 20},
		"larger than it lies": {super(12, 513), 0},
		"no blocks":           {super(12, 0), 0},
		"absurd blocks":       {super(60, 1), 0},
		"shorter than a head": {make([]byte, 10), 2 << 20},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := usedBytes(bytes.NewReader(tt.head), 2<<20)
			if got != tt.want || (err != nil) != (tt.want == 0) {
				t.Errorf("usedBytes() = %d, %v; want %d", got, err, tt.want)
			}
		})
	}
}
