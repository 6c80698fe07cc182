// Package verity knows dm-verity hash trees as bytes: it makes and checks them,
// and it says what of a new image a machine has already.
//
// A tree lists a salted SHA-256 for each block of 4 KiB of an image, and is itself
// bound to one root hash, which is signed. So it is the index of an update: blocks
// that the machine has anywhere are found by hashing them with the salt of the new
// image, and only the rest has to be fetched. Resuming is the same: blocks that
// are right already are found where they belong.
//
//	verity.go  superblock and geometry
//	tree.go    make a tree, read one and check it against its root hash
//	index.go   the leaves of a tree, whole or cut short, by which blocks are known
//	hash.go    hash blocks on all processors
//	plan.go    which blocks are in place, which can be copied, which are missing
//	order.go   in what order blocks are copied within the image that is overwritten
//	copy.go    copy them
//
// Where blocks are read from and written to, and how missing ones are fetched, is
// for packages fetch and update to know. The formats are those of the kernel
// (Documentation/admin-guide/device-mapper/verity.rst) and of cryptsetup (its page
// "DMVerity", on-disk format version 1).
package verity

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
)

// BlockSize is the size of blocks of data and of trees, in bytes.
const BlockSize = 4096

// MaxBlocks is the most blocks an image may have: 64 GiB of data.
const MaxBlocks = 1 << 24

// perBlock is how many digests a block of a tree holds.
const perBlock = BlockSize / sha256.Size

// A Digest is the salted hash of a block. The zero Digest is the hash of none.
type Digest [sha256.Size]byte

func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// ParseDigest reads a root hash: 64 hexadecimal digits.
func ParseDigest(s string) (Digest, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != sha256.Size || s != strings.ToLower(s) {
		return Digest{}, fmt.Errorf("%q is no root hash; want %d hexadecimal digits in lower case", s, 2*sha256.Size)
	}
	return Digest(b), nil
}

// A Superblock describes an image and how it is hashed. It is not bound to the
// root hash: a wrong one makes a tree that does not verify.
type Superblock struct {
	UUID   [16]byte
	Blocks int64  // of data, 1 to MaxBlocks
	Salt   []byte // at most 256 bytes, hashed before each block
}

// superblockSize is how much of the first block of a tree is used.
const superblockSize = 512

// Places in a superblock, in bytes; numbers are little-endian.
const (
	atMagic     = 0   // "verity", 2 zeros
	atVersion   = 8   // uint32, 1
	atType      = 12  // uint32, 1: the salt comes first
	atUUID      = 16  // 16 bytes
	atAlgorithm = 32  // 32 bytes, "sha256"
	atDataSize  = 64  // uint32
	atHashSize  = 68  // uint32
	atBlocks    = 72  // uint64
	atSaltSize  = 80  // uint16, then 6 zeros
	atSalt      = 88  // 256 bytes, then zeros
	maxSalt     = 256 // bytes
)

// encode returns the superblock as the first superblockSize bytes of a tree.
func (s Superblock) encode() []byte {
	b := make([]byte, superblockSize)
	copy(b[atMagic:], "verity")
	binary.LittleEndian.PutUint32(b[atVersion:], 1)
	binary.LittleEndian.PutUint32(b[atType:], 1)
	copy(b[atUUID:], s.UUID[:])
	copy(b[atAlgorithm:], "sha256")
	binary.LittleEndian.PutUint32(b[atDataSize:], BlockSize)
	binary.LittleEndian.PutUint32(b[atHashSize:], BlockSize)
	binary.LittleEndian.PutUint64(b[atBlocks:], uint64(s.Blocks))      //nolint:gosec // checked before
	binary.LittleEndian.PutUint16(b[atSaltSize:], uint16(len(s.Salt))) //nolint:gosec // checked before
	copy(b[atSalt:atSalt+maxSalt], s.Salt)
	return b
}

// check reports what an encoded superblock could not say.
func (s Superblock) check() error {
	if s.Blocks < 1 || s.Blocks > MaxBlocks {
		return fmt.Errorf("verity: an image of %d blocks; want 1 to %d", s.Blocks, MaxBlocks)
	}
	if len(s.Salt) > maxSalt {
		return fmt.Errorf("verity: a salt of %d bytes; want at most %d", len(s.Salt), maxSalt)
	}
	return nil
}

// parseSuperblock reads the superblock that b starts with. It takes the one form
// that encode writes and no other: version 1, SHA-256, blocks of 4 KiB, and zeros
// in what is not used.
func parseSuperblock(b []byte) (Superblock, error) {
	if len(b) < superblockSize || !bytes.HasPrefix(b, []byte("verity\x00\x00")) {
		return Superblock{}, fmt.Errorf("verity: no superblock; want %d bytes that start with \"verity\"", superblockSize)
	}
	b = b[:superblockSize]
	blocks, salt := binary.LittleEndian.Uint64(b[atBlocks:]), binary.LittleEndian.Uint16(b[atSaltSize:])
	if blocks < 1 || blocks > MaxBlocks {
		return Superblock{}, fmt.Errorf("verity: superblock says %d blocks of data; want 1 to %d", blocks, MaxBlocks)
	}
	if salt > maxSalt {
		return Superblock{}, fmt.Errorf("verity: superblock says a salt of %d bytes; want at most %d", salt, maxSalt)
	}
	s := Superblock{
		UUID:   [16]byte(b[atUUID:]),
		Blocks: int64(blocks),
		Salt:   bytes.Clone(b[atSalt : atSalt+int(salt)]),
	}
	if want := s.encode(); !bytes.Equal(b, want) {
		return Superblock{}, fmt.Errorf("verity: superblock differs at byte %d from what it should be; want version 1, hash type 1, sha256, blocks of %d bytes and zeros elsewhere",
			firstDifference(b, want), BlockSize)
	}
	return s, nil
}

func firstDifference(a, b []byte) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return len(a)
}

// A level is where the digests of one level of a tree are.
type level struct {
	first  int64 // block of the tree; the superblock is block 0
	blocks int64
}

// levels returns the levels of a tree, from the one that lists the data up to the
// one of a single block. An image of one block has none: its digest is the root
// hash. In the tree they lie the other way round, the top first.
func (s Superblock) levels() []level {
	var all []level
	for n := s.Blocks; n > 1; {
		n = (n + perBlock - 1) / perBlock
		all = append(all, level{blocks: n})
	}
	at := int64(1)
	for i := len(all) - 1; i >= 0; i-- {
		all[i].first = at
		at += all[i].blocks
	}
	return all
}

// DataSize returns the size of the image in bytes, its last block filled up.
func (s Superblock) DataSize() int64 { return s.Blocks * BlockSize }

// TreeSize returns the size of the tree with its superblock, in bytes.
func (s Superblock) TreeSize() int64 {
	n := int64(1)
	for _, l := range s.levels() {
		n += l.blocks
	}
	return n * BlockSize
}

// BlocksOf returns how many blocks size bytes take.
func BlocksOf(size int64) int64 { return (size + BlockSize - 1) / BlockSize }
