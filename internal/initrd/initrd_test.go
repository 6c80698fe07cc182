package initrd

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// file is a file of so many bytes.
func file(name string, size int) entry {
	e := entry{name: name, data: make([]byte, size)}
	for i := range e.data {
		e.data[i] = byte(i * size)
	}
	e.head[mode], e.head[links], e.head[mtime] = typeRegular|0o644, 1, 1764280000
	return e
}

func directory(name string) entry {
	e := entry{name: name}
	e.head[mode], e.head[links], e.head[mtime] = 0o040755, 2, 1764280000
	return e
}

// archive is what cpio makes of entries: inodes are counted unless they are given.
func archive(entries ...entry) (b []byte) {
	for i, e := range entries {
		if e.head[inode] == 0 {
			e.head[inode] = uint32(1000 + i)
		}
		b = encode(b, e)
	}
	return pad(encode(b, entry{name: trailer, head: [fields]uint32{links: 1}}), 512)
}

// sorted are the entries of archives as Split may not change them.
func sorted(t interface{ Fatal(...any) }, archives ...[]byte) (all []entry) {
	for _, a := range archives {
		entries, err := parse(a)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			e.head[inode], e.head[devMajor], e.head[devMinor] = 0, 0, 0
			if e.regular() && (len(e.data) > 0 || e.head[links] > 1) {
				e.head[mtime] = 0
			}
			all = append(all, e)
		}
	}
	slices.SortFunc(all, func(a, b entry) int { return cmp.Compare(a.name, b.name) })
	return all
}

func names(t interface{ Fatal(...any) }, b []byte) (list []string) {
	entries, err := parse(b)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		list = append(list, e.name)
	}
	return list
}

func TestSplit(t *testing.T) {
	link := entry{name: "bin", data: []byte("usr/bin"), head: [fields]uint32{mode: 0o120777, links: 1}}
	empty := file("usr/lib/clock-epoch", 0)
	got, err := Split(archive(
		link, directory("usr"), directory("usr/lib"), empty,
		file("usr/lib/libcrypto.so.3", 6<<20), directory("usr/lib/modules"), file("usr/lib/modules/erofs.ko.xz", 5000), file("usr/lib/small", 10),
	))
	if err != nil {
		t.Fatal(err)
	}
	want := [][]string{
		{"bin", "usr", "usr/lib", "usr/lib/clock-epoch", "usr/lib/modules"},
		{"usr/lib/small"},
		{"usr/lib/modules/erofs.ko.xz"},
		{"usr/lib/libcrypto.so.3"},
	}
	if len(got) != len(want) {
		t.Fatalf("there are %d archives, want %d", len(got), len(want))
	}
	for i, w := range want {
		if n := names(t, got[i]); !slices.Equal(n, w) {
			t.Errorf("archive %d has %q, want %q", i, n, w)
		}
	}
	// The time of the build is in the first archive alone.
	first, _ := parse(got[0])
	if first[3].head[mtime] != empty.head[mtime] {
		t.Errorf("the time of an empty file became %d", first[3].head[mtime])
	}
	small, _ := parse(got[1])
	if small[0].head[mtime] != fileTime {
		t.Errorf("a file keeps the time %d", small[0].head[mtime])
	}
}

// What Split may never do, whatever is in an archive.
func TestSplitKeepsWhatThereIs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		entries := drawTree(t)
		before := archive(entries...)
		archives, err := Split(before)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := sorted(t, archives...), sorted(t, before); !slices.EqualFunc(got, want, same) {
			t.Fatalf("of %d entries there are %d, or they are others", len(want), len(got))
		}
		there := map[string]bool{".": true}
		where := make(map[string]int)
		for i, a := range archives {
			list, _ := parse(a)
			if len(a) > limit && !oneFile(list) {
				t.Errorf("archive %d has %d bytes and %d entries", i, len(a), len(list))
			}
			for _, e := range list {
				if !there[path.Dir(e.name)] {
					t.Errorf("%q comes before its directory", e.name)
				}
				there[e.name], where[e.name] = true, i
			}
		}
		linked := make(map[uint32]string)
		for _, e := range entries {
			first, ok := linked[e.head[inode]]
			if ok && e.head[links] > 1 && where[first] != where[e.name] {
				t.Errorf("%q and %q are one file in two archives", first, e.name)
			}
			linked[e.head[inode]] = e.name
		}
		if again, err := Split(before); err != nil || !slices.EqualFunc(again, archives, bytes.Equal) {
			t.Errorf("a second time there are other archives (%v)", err)
		}
	})
}

func same(a, b entry) bool {
	return a.name == b.name && a.head == b.head && bytes.Equal(a.data, b.data)
}

func oneFile(entries []entry) bool {
	for _, e := range entries {
		if e.head[inode] != entries[0].head[inode] {
			return false
		}
	}
	return true
}

// drawTree draws directories and files in them, some with several names. As cpio does,
// the last name has the content.
func drawTree(t *rapid.T) (entries []entry) {
	dirs := []string{"usr", "usr/bin", "usr/lib", "usr/lib/modules", "etc"}
	for _, d := range dirs {
		entries = append(entries, directory(d))
	}
	sizes := rapid.OneOf(rapid.IntRange(0, 5000), rapid.IntRange(10_000, 120_000), rapid.SampledFrom([]int{alone, limit + 1}))
	for i := range rapid.IntRange(0, 15).Draw(t, "files") {
		name := fmt.Sprintf("%s/%d", rapid.SampledFrom(dirs).Draw(t, "directory"), i)
		e := file(name, sizes.Draw(t, "size"))
		if n := rapid.SampledFrom([]int{0, 0, 0, 0, 2}).Draw(t, "more names"); n > 0 {
			e.head[inode], e.head[links] = uint32(50+i), uint32(n+1)
			for j := range n {
				other := e
				other.data = nil
				if j > 0 {
					other.name = fmt.Sprintf("usr/%d-%d", i, j)
				}
				entries = append(entries, other)
			}
			e.name += "-last"
		}
		entries = append(entries, e)
	}
	return entries
}

// A file that comes, goes or grows changes the archive it is in, and at most the one
// before.
func TestSmallChangesStaySmall(t *testing.T) {
	var old []entry
	for i := range 40 {
		old = append(old, file(fmt.Sprintf("usr/lib/file-%03d", i), 1000+7919*i%200_000))
	}
	before, err := Split(archive(old...))
	if err != nil || len(before) < 5 {
		t.Fatalf("%d archives, %v; too few to see anything", len(before), err)
	}
	changes := map[string]func(at int) []entry{
		"comes": func(at int) []entry {
			return slices.Insert(slices.Clone(old), at, file(fmt.Sprintf("usr/lib/file-%03da", at), 3000))
		},
		"goes": func(at int) []entry { return slices.Delete(slices.Clone(old), at, at+1) },
		"grows": func(at int) []entry {
			grown := slices.Clone(old)
			grown[at] = file(old[at].name, len(old[at].data)+4000)
			return grown
		},
	}
	for what, change := range changes {
		for at := 0; at < len(old); at += 6 { // each would take half a minute
			after, err := Split(archive(change(at)...))
			if err != nil {
				t.Fatal(err)
			}
			other := slices.DeleteFunc(after, func(a []byte) bool {
				return slices.ContainsFunc(before, func(b []byte) bool { return bytes.Equal(a, b) })
			})
			if len(other) > 2 {
				t.Errorf("file %d %s: %d of %d archives are other ones", at, what, len(other), len(before))
			}
		}
	}
}

func TestSplitRefuses(t *testing.T) {
	good := archive(directory("usr"), file("usr/a", 10))
	tests := map[string]struct {
		archive []byte
		want    string
	}{
		"nothing":         {nil, "byte 0 of the archive: it ends too early"},
		"a cut":           {good[:len(good)/4], "it ends too early"},
		"another format":  {append([]byte("070707"), good[6:]...), `begins with "070707"; want "070701"`},
		"no number":       {append([]byte("070701000000zz"), good[14:]...), "field 0 of its head"},
		"more behind":     {append(bytes.Clone(good), "x"...), "something behind the archive"},
		"a name twice":    {archive(directory("usr"), directory("usr")), `has "usr" twice`},
		"an endless name": {bytes.Replace(good, []byte("usr\x00"), []byte("usrx"), 1), "its name does not end"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := Split(tt.archive); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Split() = %v, want %q in it", err, tt.want)
			}
		})
	}
}

func TestPack(t *testing.T) {
	archives := [][]byte{[]byte("one"), bytes.Repeat([]byte("2"), 4096), []byte("three")}
	got, err := Pack(archives, func(b []byte) ([]byte, error) { return append([]byte("("), append(b, ')')...), nil })
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[int]string{0: "(one)\x00", 4096: "(22", 8192: "2)\x00", 12288: "(three)\x00"} {
		if !strings.HasPrefix(string(got[at:]), want) {
			t.Errorf("at %d there is %q, want %q", at, got[at:at+8], want)
		}
	}
	if len(got) != 16384 {
		t.Errorf("it has %d bytes, want 16384", len(got))
	}
	broken := errors.New("no room")
	if _, err := Pack(archives, func([]byte) ([]byte, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Errorf("Pack() = %v, want %v", err, broken)
	}
}

// Whatever mkosi makes: no panic, and what is taken keeps its entries.
func FuzzSplit(f *testing.F) {
	f.Add(archive(directory("usr"), file("usr/a", 10)))
	f.Fuzz(func(t *testing.T, b []byte) {
		archives, err := Split(b)
		if err != nil {
			return
		}
		entries, err := parse(b)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, a := range archives {
			n += len(names(t, a))
		}
		if n != len(entries) {
			t.Errorf("%d entries became %d", len(entries), n)
		}
	})
}
