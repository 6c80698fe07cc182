package verity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
)

// A Tree is a hash tree that is known to fit its root hash.
type Tree struct {
	Superblock
	Root  Digest
	bytes []byte // all of it
}

// Build reads an image and returns its tree. A last block that is not whole is
// filled up with zeros.
func Build(ctx context.Context, s Superblock, data io.ReaderAt) (*Tree, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	leaves := make([]Digest, s.Blocks)
	if err := sums(ctx, data, s.Salt, 0, leaves); err != nil {
		return nil, err
	}
	for i, d := range leaves {
		if d == (Digest{}) {
			return nil, unreadable(data, int64(i))
		}
	}
	t := &Tree{Superblock: s, bytes: make([]byte, s.TreeSize())}
	copy(t.bytes, s.encode())
	levels := s.levels()
	if len(levels) == 0 {
		t.Root = leaves[0]
		return t, nil
	}
	for i, d := range leaves {
		copy(t.digest(levels[0], int64(i)), d[:])
	}
	h := newHasher(s.Salt)
	for n, l := range levels[1:] {
		for i := range levels[n].blocks {
			d := h.sum(t.block(levels[n], i))
			copy(t.digest(l, i), d[:])
		}
	}
	t.Root = h.sum(t.block(levels[len(levels)-1], 0))
	return t, nil
}

// unreadable says why a block could not be hashed.
func unreadable(data io.ReaderAt, block int64) error {
	_, err := data.ReadAt(make([]byte, BlockSize), block*BlockSize)
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("verity: the image ends before block %d", block)
	}
	return fmt.Errorf("verity: reading block %d: %w", block, err)
}

// ReadTree reads a tree of at most limit bytes and checks every digest in it
// against root. What comes behind the tree is not read.
func ReadTree(r io.Reader, root Digest, limit int64) (*Tree, error) {
	head := make([]byte, BlockSize)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, fmt.Errorf("verity: reading the superblock: %w", err)
	}
	s, err := parseSuperblock(head)
	if err != nil {
		return nil, err
	}
	if size := s.TreeSize(); size > limit {
		return nil, fmt.Errorf("verity: a tree of %d bytes; want at most %d", size, limit)
	}
	t := &Tree{Superblock: s, Root: root, bytes: make([]byte, s.TreeSize())}
	copy(t.bytes, head)
	if _, err := io.ReadFull(r, t.bytes[BlockSize:]); err != nil {
		return nil, fmt.Errorf("verity: reading the tree: %w", err)
	}
	if err := t.check(); err != nil {
		return nil, err
	}
	return t, nil
}

// check compares each block of the tree with its digest in the level above, from
// the top down.
func (t *Tree) check() error {
	if len(bytes.Trim(t.bytes[superblockSize:BlockSize], "\x00")) > 0 {
		return errors.New("verity: there is something behind the superblock; want zeros")
	}
	levels, h := t.levels(), newHasher(t.Salt)
	if len(levels) == 0 {
		return nil // the digest of the only block is the root hash
	}
	if top := levels[len(levels)-1]; h.sum(t.block(top, 0)) != t.Root {
		return fmt.Errorf("verity: the tree does not belong to the root hash %v", t.Root)
	}
	for n := len(levels) - 2; n >= 0; n-- {
		for i := range levels[n].blocks {
			if d := h.sum(t.block(levels[n], i)); !bytes.Equal(d[:], t.digest(levels[n+1], i)) {
				return fmt.Errorf("verity: block %d of the tree is damaged: it does not belong to the root hash %v", levels[n].first+i, t.Root)
			}
		}
	}
	return t.ends(levels[0])
}

// ends compares how many digests there are with how many blocks the superblock speaks
// of, which no digest has in it: it may name some fewer, or some more, without any block
// of the tree being another.
func (t *Tree) ends(leaves level) error {
	from := leaves.first*BlockSize + int64(t.Blocks)*int64(len(Digest{}))
	behind := t.bytes[from : (leaves.first+leaves.blocks)*BlockSize]
	last := t.digest(leaves, int64(t.Blocks)-1)
	if bytes.Equal(last, make([]byte, len(last))) || len(bytes.Trim(behind, "\x00")) > 0 {
		return fmt.Errorf("verity: the superblock says %d blocks of data, and the tree has digests of another number", t.Blocks)
	}
	return nil
}

// Bytes returns the tree as it is on a disk. It must not be changed.
func (t *Tree) Bytes() []byte { return t.bytes }

// block returns block i of a level.
func (t *Tree) block(l level, i int64) []byte {
	return t.bytes[(l.first+i)*BlockSize : (l.first+i+1)*BlockSize]
}

// digest returns digest i of a level.
func (t *Tree) digest(l level, i int64) []byte {
	at := l.first*BlockSize + i*int64(len(Digest{}))
	return t.bytes[at : at+int64(len(Digest{}))]
}
