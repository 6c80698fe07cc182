//go:build vm

package image_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"testing"

	"github.com/incusos/incusos/internal/sys"
)

// extractInitrd makes a tree of the initrd, as the kernel does: one archive after the
// other.
func (b *built) extractInitrd(t *testing.T) {
	t.Helper()
	if err := os.Mkdir(string(b.initrd), 0o755); err != nil {
		t.Fatal(err)
	}
	for at, frame := range archivesOf(t, b.sections[".initrd"]) {
		var cpio bytes.Buffer
		unpack := b.command("/usr/bin/zstd", "-dcq")
		unpack.Stdin, unpack.Stdout = bytes.NewReader(frame), &cpio
		if _, err := sys.Real().Exec.Run(t.Context(), unpack); err != nil {
			t.Fatalf("archive %d of the initrd: %v", at, err)
		}
		extract := b.command("/usr/bin/cpio", "-id", "--quiet", "--no-preserve-owner", "-D", string(b.initrd))
		extract.Stdin = &cpio
		if _, err := sys.Real().Exec.Run(t.Context(), extract); err != nil {
			t.Fatalf("archive %d of the initrd: %v", at, err)
		}
	}
}

// testInitrd holds what an update needs to find most of an initrd again: many archives,
// each by itself, at places that blocks begin at.
func testInitrd(t *testing.T, b *built) {
	archives := archivesOf(t, b.sections[".initrd"])
	most := 0
	for _, a := range archives {
		most = max(most, len(a))
	}
	if len(archives) < 20 || most > 3<<20 {
		t.Errorf("it has %d archives, the largest of %d bytes; want at least 20, and none larger than libcrypto", len(archives), most)
	}
}

// archivesOf cuts an initrd into its compressed archives: frames of zstd, each at a
// multiple of 4 KiB, and zeros between them.
func archivesOf(t *testing.T, initrd []byte) (archives [][]byte) {
	t.Helper()
	for at := 0; at < len(initrd); {
		size := frameSize(initrd[at:])
		if size < 0 {
			t.Fatalf("at byte %d of the initrd there is no archive compressed with zstd", at)
		}
		archives = append(archives, initrd[at:at+size])
		end := at + size
		if at = (end + 4095) &^ 4095; at > len(initrd) || bytes.Trim(initrd[end:at], "\x00") != nil {
			t.Fatalf("archive %d ends at byte %d, and is not filled up with zeros to %d", len(archives)-1, end, at)
		}
	}
	return archives
}

// frameSize returns how long the frame is that b begins with; -1 if that is none (RFC
// 8878, section 3.1.1).
func frameSize(b []byte) int {
	if len(b) < 5 || binary.LittleEndian.Uint32(b) != 0xfd2fb528 {
		return -1
	}
	descriptor := b[4]
	single, checksum := descriptor>>5&1, descriptor>>2&1
	content := [4]int{int(single), 2, 4, 8}[descriptor>>6]
	at := 5 + int(1-single) + [4]int{0, 1, 2, 4}[descriptor&3] + content
	for {
		if len(b) < at+3 {
			return -1
		}
		head := uint32(b[at]) | uint32(b[at+1])<<8 | uint32(b[at+2])<<16
		size := int(head >> 3)
		if head>>1&3 == 1 { // a byte and how often it stands there
			size = 1
		}
		if at += 3 + size; head&1 == 1 {
			break
		}
	}
	if at += 4 * int(checksum); at > len(b) {
		return -1
	}
	return at
}
