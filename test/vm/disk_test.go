//go:build vm

package vm_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs/partition/gpt"
)

// Labels in the partition table of an installed disk.
var (
	usrLabel = regexp.MustCompile(`^IncusOS_[0-9]{12}$`)
	espLabel = regexp.MustCompile(`(?i)^esp$`)
)

const sector = 512

// openDisk opens the disk of a machine that is switched off.
func openDisk(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// partition returns where the partition with a label lies, in bytes.
func partition(t *testing.T, disk *os.File, label *regexp.Regexp) (start, size int64) {
	t.Helper()
	table, err := gpt.Read(disk, sector, sector)
	if err != nil {
		t.Fatal(err)
	}
	var labels []string
	for _, p := range table.Partitions {
		if p.Type == gpt.Unused {
			continue
		}
		if label.MatchString(p.Name) {
			return int64(p.Start) * sector, int64(p.End-p.Start+1) * sector
		}
		labels = append(labels, p.Name)
	}
	t.Fatalf("%s has no partition %s, only %q", disk.Name(), label, labels)
	return 0, 0
}

// occupy writes a partition table with one partition, as a disk in use has.
func occupy(t *testing.T, name, label string) {
	t.Helper()
	f := openDisk(t, name)
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	table := &gpt.Table{
		LogicalSectorSize: sector, PhysicalSectorSize: sector, ProtectiveMBR: true,
		Partitions: []*gpt.Partition{{Index: 1, Start: 2048, End: 206847, Type: gpt.LinuxFilesystem, Name: label}},
	}
	if err := table.Write(f, info.Size()); err != nil {
		t.Fatal(err)
	}
}

// ends returns a digest of where partition tables are.
func ends(t *testing.T, name string) [sha256.Size]byte {
	t.Helper()
	f := openDisk(t, name)
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 2<<20)
	_, err1 := f.ReadAt(b[:1<<20], 0)
	_, err2 := f.ReadAt(b[1<<20:], info.Size()-1<<20)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(b)
}

// flipBit changes one bit of a disk.
func flipBit(t *testing.T, disk *os.File, at int64) {
	t.Helper()
	b := make([]byte, 1)
	if _, err := disk.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := disk.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

// changeCommandLine replaces a word of the kernel command line in each UKI of
// a disk, as somebody would who wants a shell. Nothing moves: only the
// signature can tell.
func changeCommandLine(t *testing.T, disk *os.File) {
	t.Helper()
	start, size := partition(t, disk, espLabel)
	places := find(t, disk, start, size, []byte("usrhash="))
	if len(places) == 0 {
		t.Fatal("no kernel command line with usrhash= is on the ESP")
	}
	for _, at := range places {
		from, line := commandLine(t, disk, at)
		word := longestWord(line)
		if len(word) < len("init=/sh") {
			t.Fatalf("the command line %q has no word to replace", line)
		}
		evil := "init=/sh" + strings.Repeat(" ", len(word)-len("init=/sh"))
		t.Logf("replacing %q by %q", word, evil)
		if _, err := disk.WriteAt([]byte(evil), from+int64(strings.Index(line, word))); err != nil {
			t.Fatal(err)
		}
	}
}

// unsign takes the signature off a UKI of a disk.
func unsign(t *testing.T, disk *os.File) {
	t.Helper()
	start, size := partition(t, disk, espLabel)
	places := find(t, disk, start, size, []byte(".cmdline"))
	if len(places) == 0 {
		t.Fatal("no UKI is on the ESP")
	}
	for _, at := range places {
		header := make([]byte, 4096)
		if _, err := disk.ReadAt(header, at-int64(len(header))); err != nil {
			t.Fatal(err)
		}
		pe := bytes.LastIndex(header, []byte(peMagic))
		if pe < 0 || !bytes.HasPrefix(header[pe+peOptional:], []byte(pe32plus)) {
			continue // the words, but no section of a program
		}
		from := at - int64(len(header)-pe)
		if _, err := disk.WriteAt(withoutSignature(t, header[pe:]), from); err != nil {
			t.Fatal(err)
		}
		t.Logf("took the signature off the program at byte %d", from)
		return
	}
	t.Fatal("no section .cmdline of a program is on the ESP")
}

// Offsets from the signature of a PE header, and what is there (PE Format
// specification, "Optional Header Data Directories").
const (
	peMagic       = "PE\x00\x00"
	peOptional    = 24                     // the optional header
	peCertificate = peOptional + 112 + 4*8 // in that of a PE32+: the fifth directory
	pe32plus      = "\x0b\x02"             // what the optional header begins with
)

// withoutSignature returns a program whose entry that leads to certificates is that of
// one without any. What comes before its header may be missing.
func withoutSignature(t *testing.T, program []byte) []byte {
	t.Helper()
	program = bytes.Clone(program)
	entry := program[bytes.Index(program, []byte(peMagic))+peCertificate:][:8]
	if bytes.Equal(entry, make([]byte, 8)) {
		t.Fatal("the program is not signed to begin with")
	}
	clear(entry)
	return program
}

// commandLine returns the text around at and where it starts. Sections of a
// UKI are padded with zeros and start with a new block.
func commandLine(t *testing.T, disk *os.File, at int64) (from int64, line string) {
	t.Helper()
	const around = 4096
	b := make([]byte, 2*around)
	if _, err := disk.ReadAt(b, at-around); err != nil {
		t.Fatal(err)
	}
	first := bytes.LastIndexByte(b[:around], 0) + 1
	b, from = b[first:], at-around+int64(first)
	if end := bytes.IndexByte(b, 0); end >= 0 {
		b = b[:end]
	}
	return from, string(b)
}

// longestWord leaves out usrhash=: without it the machine would not get far
// enough to show that the change was noticed.
func longestWord(line string) string {
	longest := ""
	for _, word := range strings.Fields(line) {
		if len(word) > len(longest) && !strings.HasPrefix(word, "usrhash=") {
			longest = word
		}
	}
	return longest
}

// find returns where text is in a part of a disk.
func find(t *testing.T, disk *os.File, start, size int64, text []byte) []int64 {
	t.Helper()
	var places []int64
	b := make([]byte, 1<<20)
	step := int64(len(b) - len(text) + 1)
	for at := start; at < start+size; at += step {
		n, err := disk.ReadAt(b[:min(int64(len(b)), start+size-at)], at)
		if err != nil {
			t.Fatal(err)
		}
		for off := 0; ; off++ {
			i := bytes.Index(b[off:n], text)
			if i < 0 {
				break
			}
			off += i
			places = append(places, at+int64(off))
		}
	}
	return places
}

func TestCommandLineIsChangedInPlace(t *testing.T) {
	name := t.TempDir() + "/disk.raw"
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(name, 256<<20); err != nil {
		t.Fatal(err)
	}
	occupy(t, name, "esp")
	f := openDisk(t, name)
	// Across the border of what find reads at once.
	at := int64(2048*sector + 1<<20 - 20)
	if _, err := f.WriteAt([]byte("\x00rw panic-on-corruption usrhash=00ff quiet\x00"), at); err != nil {
		t.Fatal(err)
	}
	changeCommandLine(t, f)
	_, got := commandLine(t, f, at+2)
	if want := "rw init=/sh            usrhash=00ff quiet"; got != want {
		t.Errorf("the command line is now %q, want %q", got, want)
	}
}
