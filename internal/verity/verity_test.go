package verity_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/incusos/incusos/internal/verity"
)

// patterned returns blocks that are each one byte repeated.
func patterned(blocks int) []byte {
	var b []byte
	for i := range blocks {
		b = append(b, bytes.Repeat([]byte{byte(i*7 + i/256)}, verity.BlockSize)...)
	}
	return b
}

func build(t testing.TB, data, salt []byte) *verity.Tree {
	t.Helper()
	s := verity.Superblock{UUID: uuid(), Blocks: verity.BlocksOf(int64(len(data))), Salt: salt}
	tree, err := verity.Build(t.Context(), s, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func uuid() [16]byte {
	return [16]byte{0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88}
}

// What is wanted was made by veritysetup 2.6.1 from the same data: the root hash,
// and the SHA-256 of the tree with its superblock.
func TestTreesAreThoseOfVeritysetup(t *testing.T) {
	tests := []struct {
		blocks     int
		salt       string
		root, tree string
	}{
		{1, "00", "b587fa297299ce9c602e58292b51379402bf7b1074f6b18679c2fb871c917ca8", "3746230111da8911acebf77a62892f6c090cb58fd6b5bd23ffbdf0aafddb1541"},
		{2, "", "cd849c790357e40945a0ec7b3bb058fee1d8c75fea9581f533659399c8ff28b2", "c972c0a984f967be6b100aebb7458db1b2c0a3e52d0b62fd276fbfc9f55c54c6"},
		{127, strings.Repeat("aa", 32), "296a23ee8301607af190d81c3b8999bebe729f45d14016c8867eadd9d7190e7d", "a9842edeca3bdb58eb8f7933a6af8a8a8e3555850c3281ba533b712b53bffd0c"},
		{128, strings.Repeat("aa", 32), "d9d3252deaf207d96dccd470a4cd827b63fe5c66eb0deab08205f6165bc5c277", "fa03dcf4bc88144336aca34ef2aace7a59a233141ca812c293db1950069a5217"},
		{129, strings.Repeat("aa", 32), "cc04d71bdd675eb5886b0f7ac7c32d487ab9e35e5c1c27607ef7fdd0be708a01", "39a9faf6b2add866f57d237f1a18cf5b06411a6d88bee90e5a4679b9fef8e03e"},
		{128 * 128, strings.Repeat("01", 16), "99d46c8d117b85776d888c5f07703d4749a784ade7494476159ade6d3a514bfa", "3b99d7c3f9f12c1422f77e2dc6672efc071d8ab261b7b24b2d226cbe7e064ae2"},
		{128*128 + 1, strings.Repeat("ff", 256), "f8ff102ac44619bcee775719a8002ef4d79ecd1b047a2e06be11a4c1936be1a9", "8762a3c457b8e2ee012db68431556ec77843faa4108a39425cc5d10f867e29f4"},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt.blocks), func(t *testing.T) {
			salt, _ := hex.DecodeString(tt.salt)
			tree := build(t, patterned(tt.blocks), salt)
			if tree.Root.String() != tt.root {
				t.Errorf("root hash is %v, want %s", tree.Root, tt.root)
			}
			if got := fmt.Sprintf("%x", sha256.Sum256(tree.Bytes())); got != tt.tree {
				t.Errorf("tree is %s, want %s", got, tt.tree)
			}
			if int64(len(tree.Bytes())) != tree.TreeSize() {
				t.Errorf("tree has %d bytes, want %d", len(tree.Bytes()), tree.TreeSize())
			}
			again, err := verity.ReadTree(bytes.NewReader(tree.Bytes()), tree.Root, tree.TreeSize())
			if err != nil || !bytes.Equal(again.Bytes(), tree.Bytes()) {
				t.Errorf("reading the tree gives something else (%v)", err)
			}
		})
	}
}

// The program of cryptsetup, where there is one, accepts our trees and we its.
func TestVeritysetupAgrees(t *testing.T) {
	program, err := exec.LookPath("veritysetup")
	if err != nil {
		t.Skip("there is no veritysetup here; TestTreesAreThoseOfVeritysetup has its results")
	}
	data := random(t, 700*verity.BlockSize)
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	ours := build(t, data, []byte("salt"))
	image := write("image", data)
	out, err := exec.CommandContext(t.Context(), program, "verify", image, write("ours", ours.Bytes()), ours.Root.String()).CombinedOutput()
	if err != nil {
		t.Errorf("veritysetup refuses our tree: %v %s", err, out)
	}
	theirs := write("theirs", nil)
	out, err = exec.CommandContext(t.Context(), program, "format", image, theirs, "--salt", hex.EncodeToString([]byte("salt"))).CombinedOutput()
	if err != nil {
		t.Fatalf("veritysetup: %v %s", err, out)
	}
	f, err := os.Open(theirs)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // only read
	if _, err := verity.ReadTree(f, ours.Root, 1<<20); err != nil {
		t.Error(err)
	}
}

// Whatever single bit of a tree is changed, it is noticed. The bits that are bound to nothing
// are the UUID.
func TestReadTreeNoticesAnyChange(t *testing.T) {
	tree := build(t, patterned(300), []byte("some salt"))
	for range 500 {
		b := bytes.Clone(tree.Bytes())
		at := rand.IntN(len(b) * 8)
		if at/8 >= 16 && at/8 < 32 {
			continue
		}
		b[at/8] ^= 1 << (at % 8)
		if _, err := verity.ReadTree(bytes.NewReader(b), tree.Root, 1<<20); err == nil {
			t.Errorf("bit %d of byte %d was changed and the tree accepted", at%8, at/8)
		}
	}
}

func TestReadTreeSaysWhatIsWrong(t *testing.T) {
	tree := build(t, patterned(300), nil)
	change := func(at int, with ...byte) []byte {
		b := bytes.Clone(tree.Bytes())
		copy(b[at:], with)
		return b
	}
	tests := map[string]struct {
		tree  []byte
		root  verity.Digest
		limit int64
		want  string
	}{
		"nothing":           {nil, tree.Root, 1 << 20, "reading the superblock: EOF"},
		"something else":    {make([]byte, 8192), tree.Root, 1 << 20, "no superblock; want 512 bytes that start with \"verity\""},
		"another version":   {change(8, 2), tree.Root, 1 << 20, "superblock differs at byte 8"},
		"salt behind":       {change(12, 0), tree.Root, 1 << 20, "superblock differs at byte 12"},
		"another algorithm": {change(32, []byte("sha512")...), tree.Root, 1 << 20, "superblock differs at byte 35"},
		"small blocks":      {change(64, 0, 2), tree.Root, 1 << 20, "superblock differs at byte 65"},
		"no data":           {change(72, 0, 0), tree.Root, 1 << 20, "superblock says 0 blocks of data; want 1 to 16777216"},
		"fewer blocks":      {change(72, 296&0xff, 296>>8), tree.Root, 1 << 20, "superblock says 296 blocks of data, and the tree has digests of another number"},
		"more blocks":       {change(72, 316&0xff, 316>>8), tree.Root, 1 << 20, "superblock says 316 blocks of data, and the tree has digests of another number"},
		"endless data":      {change(72, 255, 255, 255, 255, 255), tree.Root, 1 << 20, "superblock says 1099511627775 blocks of data"},
		"endless salt":      {change(80, 1, 1), tree.Root, 1 << 20, "superblock says a salt of 257 bytes; want at most 256"},
		"a large tree":      {tree.Bytes(), tree.Root, 16000, "a tree of 20480 bytes; want at most 16000"},
		"a short tree":      {tree.Bytes()[:9000], tree.Root, 1 << 20, "reading the tree: unexpected EOF"},
		"another root":      {tree.Bytes(), verity.Digest{1}, 1 << 20, "the tree does not belong to the root hash 0100"},
		"a damaged leaf":    {change(3*verity.BlockSize, 1, 2, 3), tree.Root, 1 << 20, "block 3 of the tree is damaged"},
		"a filled block":    {change(1000, 1), tree.Root, 1 << 20, "something behind the superblock; want zeros"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := verity.ReadTree(bytes.NewReader(tt.tree), tt.root, tt.limit)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("ReadTree said %v, want %q", err, tt.want)
			}
		})
	}
}

func TestBuildNeedsAllOfTheImage(t *testing.T) {
	broken := errors.New("the disk has a bad place")
	tests := map[string]struct {
		s    verity.Superblock
		data badDisk
		want string
	}{
		"a short image":  {verity.Superblock{Blocks: 3}, badDisk{data: patterned(2)}, "the image ends before block 2"},
		"a bad place":    {verity.Superblock{Blocks: 600}, badDisk{data: patterned(600), bad: map[int64]bool{300: true}, err: broken}, "reading block 300: the disk has a bad place"},
		"no image":       {verity.Superblock{}, badDisk{}, "an image of 0 blocks; want 1 to 16777216"},
		"too large salt": {verity.Superblock{Blocks: 1, Salt: make([]byte, 257)}, badDisk{}, "a salt of 257 bytes; want at most 256"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := verity.Build(t.Context(), tt.s, tt.data); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Build said %v, want %q", err, tt.want)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := verity.Build(ctx, verity.Superblock{Blocks: 600}, badDisk{data: patterned(600)}); !errors.Is(err, context.Canceled) {
		t.Errorf("Build said %v after its context ended", err)
	}
}

// A badDisk has blocks that cannot be read.
type badDisk struct {
	data []byte
	bad  map[int64]bool
	err  error
}

func (d badDisk) ReadAt(p []byte, at int64) (int, error) {
	for b := at / verity.BlockSize; b*verity.BlockSize < at+int64(len(p)); b++ {
		if d.bad[b] {
			return 0, d.err
		}
	}
	return bytes.NewReader(d.data).ReadAt(p, at)
}

func TestDigests(t *testing.T) {
	tree := build(t, patterned(1), nil)
	if d, err := verity.ParseDigest(tree.Root.String()); err != nil || d != tree.Root {
		t.Errorf("%v reads as %v (%v)", tree.Root, d, err)
	}
	for _, s := range []string{"", "12", strings.Repeat("g", 64), strings.Repeat("AB", 32), strings.Repeat("0", 66)} {
		if _, err := verity.ParseDigest(s); err == nil {
			t.Errorf("%q is taken for a root hash", s)
		}
	}
}

func TestIndexes(t *testing.T) {
	data := patterned(200)[:199*verity.BlockSize+100]
	for name, data := range map[string][]byte{"a tree": data, "one block": data[:10]} {
		t.Run(name, func(t *testing.T) {
			tree := build(t, data, []byte("salt"))
			compact, err := verity.ParseIndex(tree.Index().Compact())
			if err != nil {
				t.Fatal(err)
			}
			if got := int64(len(compact.Compact())); got != tree.CompactSize() {
				t.Errorf("the compact index has %d bytes, want %d", got, tree.CompactSize())
			}
			for _, x := range []*verity.Index{tree.Index(), compact} {
				if wrong := x.Check(0, data); wrong != nil {
					t.Errorf("blocks %v of the image itself are wrong", wrong)
				}
				damaged := bytes.Clone(data)
				damaged[len(data)-1] ^= 1
				if wrong := fmt.Sprint(x.Check(0, damaged)); wrong != fmt.Sprint([]int64{tree.Blocks - 1}) {
					t.Errorf("wrong are %v, want the last one", wrong)
				}
				if wrong := x.Check(x.Blocks, []byte("more")); len(wrong) != 1 {
					t.Error("a block behind the image is right")
				}
			}
		})
	}
	tree := build(t, data, nil)
	for _, b := range [][]byte{nil, tree.Index().Compact()[:600], append(tree.Index().Compact(), 0)} {
		if _, err := verity.ParseIndex(b); err == nil {
			t.Errorf("%d bytes are taken for an index", len(b))
		}
	}
}

func FuzzReadTree(f *testing.F) {
	tree := build(f, patterned(200), []byte("salt"))
	f.Add(tree.Bytes())
	f.Add(build(f, patterned(1), nil).Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := verity.ReadTree(bytes.NewReader(b), tree.Root, 1<<20)
		if err == nil && !bytes.Equal(got.Bytes(), b[:len(got.Bytes())]) {
			t.Error("a tree was read that is not what was written")
		}
	})
}

func FuzzParseIndex(f *testing.F) {
	f.Add(build(f, patterned(200), []byte("salt")).Index().Compact())
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := verity.ParseIndex(b)
		if err == nil && !bytes.Equal(x.Compact(), b) {
			t.Error("an index was read that is not what was written")
		}
	})
}

func random(t testing.TB, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(b) //nolint:errcheck // never fails
	return b
}
