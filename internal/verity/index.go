package verity

import (
	"bytes"
	"fmt"
)

// An Index knows the blocks of an image by their digests. It is made of a tree
// and then has them whole; or it was read from a compact index and has the first
// bytes of each.
type Index struct {
	Superblock
	width  int    // bytes of each digest
	prefix []byte // width bytes for each block
}

// compactWidth is how much of each digest a compact index holds, in bytes. Two
// blocks of a machine's disk have 64 bits in common once in a hundred million
// updates, and then the root hash shows it; for that it is a quarter of a tree,
// which is the greater part of a small update.
const compactWidth = 8

// Index returns the index that a tree is.
func (t *Tree) Index() *Index {
	levels := t.levels()
	if len(levels) == 0 {
		return &Index{t.Superblock, len(Digest{}), bytes.Clone(t.Root[:])}
	}
	at, size := levels[0].first*BlockSize, t.Blocks*int64(len(Digest{}))
	return &Index{t.Superblock, len(Digest{}), t.bytes[at : at+size]}
}

// Compact returns the index with its digests cut short, as ParseIndex reads it:
// the superblock (512 bytes), then 8 bytes for each block of the image.
//
// It is enough to find blocks, and to notice a block that was damaged on its way,
// but an image is trusted only when the tree that Build makes of it has the root
// hash that was signed.
func (x *Index) Compact() []byte {
	out := x.encode()
	for i := range x.Blocks {
		out = append(out, x.digest(i)[:compactWidth]...)
	}
	return out
}

// ParseIndex reads a compact index.
func ParseIndex(b []byte) (*Index, error) {
	s, err := parseSuperblock(b)
	if err != nil {
		return nil, err
	}
	if want := superblockSize + s.Blocks*compactWidth; int64(len(b)) != want {
		return nil, fmt.Errorf("verity: an index of %d bytes for %d blocks; want %d bytes", len(b), s.Blocks, want)
	}
	return &Index{s, compactWidth, bytes.Clone(b[superblockSize:])}, nil
}

// CompactSize returns the size of a compact index for an image, in bytes.
func (s Superblock) CompactSize() int64 { return superblockSize + s.Blocks*compactWidth }

func (x *Index) digest(block int64) []byte {
	return x.prefix[block*int64(x.width) : (block+1)*int64(x.width)]
}

func (x *Index) has(block int64, d Digest) bool { return bytes.Equal(x.digest(block), d[:x.width]) }

// Check reports which of the blocks in data, the first of which should be block
// first of the image, are not: nil if all are right. A last block that is not whole
// is filled up with zeros.
func (x *Index) Check(first int64, data []byte) (wrong []int64) {
	h := newHasher(x.Salt)
	for i := int64(0); i < BlocksOf(int64(len(data))); i++ {
		block := data[i*BlockSize : min((i+1)*BlockSize, int64(len(data)))]
		if len(block) < BlockSize {
			block = append(bytes.Clone(block), make([]byte, BlockSize-len(block))...)
		}
		if first+i >= x.Blocks || !x.has(first+i, h.sum(block)) {
			wrong = append(wrong, first+i)
		}
	}
	return wrong
}

// A finder finds blocks of an index by their digest. Blocks that were taken are
// found no more, so that an image full of zeros costs no more than another.
type finder struct {
	x       *Index
	buckets [][]uint32 // blocks by the first bits of their digests, ascending
}

// bucketBits is how many bits of a digest choose its bucket.
const bucketBits = 16

func bucketOf(prefix []byte) int { return int(prefix[0])<<8 | int(prefix[1]) }

// newFinder returns a finder for the blocks that are wanted.
func newFinder(x *Index, wanted func(block int64) bool) *finder {
	f := &finder{x: x, buckets: make([][]uint32, 1<<bucketBits)}
	counts := make([]uint32, 1<<bucketBits)
	total := 0
	for i := range x.Blocks {
		if wanted(i) {
			counts[bucketOf(x.digest(i))]++
			total++
		}
	}
	all := make([]uint32, 0, total) // one allocation for all buckets
	for b, n := range counts {
		f.buckets[b] = all[len(all) : len(all) : len(all)+int(n)]
		all = all[:len(all)+int(n)]
	}
	for i := range x.Blocks {
		if wanted(i) {
			b := bucketOf(x.digest(i))
			f.buckets[b] = append(f.buckets[b], uint32(i)) //nolint:gosec // at most MaxBlocks
		}
	}
	return f
}

// take returns the blocks that have the digest d, and forgets them.
func (f *finder) take(d Digest) (found []uint32) {
	b := bucketOf(d[:])
	rest := f.buckets[b][:0]
	for _, i := range f.buckets[b] {
		if f.x.has(int64(i), d) {
			found = append(found, i)
		} else {
			rest = append(rest, i)
		}
	}
	f.buckets[b] = rest
	return found
}
