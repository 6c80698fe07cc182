package verity

import (
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
)

// chunk is how many blocks are read at once: 1 MiB.
const chunk = 256

// window is how many blocks of a source are hashed before they are looked up. It
// bounds the memory a source takes: 16 MiB of data are 128 KiB of digests.
const window = 16 * chunk

// A hasher hashes blocks with one salt.
type hasher struct {
	salt []byte
	h    hash.Hash
}

func newHasher(salt []byte) hasher { return hasher{salt, sha256.New()} }

func (h hasher) sum(block []byte) (d Digest) {
	h.h.Reset()
	h.h.Write(h.salt) //nolint:errcheck // never fails
	h.h.Write(block)  //nolint:errcheck // never fails
	h.h.Sum(d[:0])
	return d
}

// sums hashes the blocks of r from first on into out, on all processors. A block
// that cannot be read, or that is behind the end of r, gets the zero Digest; the
// last one is filled up with zeros. The only error is that of ctx.
func sums(ctx context.Context, r io.ReaderAt, salt []byte, first int64, out []Digest) error {
	chunks := int64(len(out)+chunk-1) / chunk
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(int64(runtime.GOMAXPROCS(0)), chunks) {
		wg.Go(func() {
			buf, h := make([]byte, chunk*BlockSize), newHasher(salt)
			for c := next.Add(1) - 1; c < chunks && ctx.Err() == nil; c = next.Add(1) - 1 {
				some := out[c*chunk : min((c+1)*chunk, int64(len(out)))]
				h.chunk(r, buf[:len(some)*BlockSize], first+c*chunk, some)
			}
		})
	}
	wg.Wait()
	return ctx.Err()
}

// chunk hashes the blocks of r from first on, reading them into buf.
func (h hasher) chunk(r io.ReaderAt, buf []byte, first int64, out []Digest) {
	if n, err := r.ReadAt(buf, first*BlockSize); n == len(buf) || errors.Is(err, io.EOF) {
		h.blocks(buf, n, out)
		return
	}
	for i := range out { // a place on the disk is bad: the blocks around it are not
		block := buf[i*BlockSize : (i+1)*BlockSize]
		n, err := r.ReadAt(block, (first+int64(i))*BlockSize)
		if n < len(block) && !errors.Is(err, io.EOF) {
			n = 0
		}
		h.blocks(block, n, out[i:i+1])
	}
}

// blocks hashes those blocks of buf of which there is something in its first n
// bytes.
func (h hasher) blocks(buf []byte, n int, out []Digest) {
	clear(buf[n:])
	for i := range out {
		out[i] = Digest{}
		if i*BlockSize < n {
			out[i] = h.sum(buf[i*BlockSize : (i+1)*BlockSize])
		}
	}
}
