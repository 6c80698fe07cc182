package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"

	"github.com/incusos/incusos/internal/publish"
	"github.com/incusos/incusos/internal/verity"
)

// madeUp returns changes of an image of so many blocks, the size of real ones.
func madeUp(blocks int) iter.Seq[change] {
	return func(yield func(change) bool) {
		r := rand.New(rand.NewPCG(6, 6)) //nolint:gosec // the same changes each time
		old := noise(1, blocks)
		for _, c := range []struct {
			name string
			make func([]byte) []byte
		}{
			{"no change", func(b []byte) []byte { return b }},
			{"one Go binary", func(b []byte) []byte { return overwrite(b, blocks/3, noise(2, blocks/20)) }},
			{"one Go binary, longer", func(b []byte) []byte { return insert(b, blocks/3, blocks/20, noise(2, blocks/19)) }},
			{"nine packages", func(b []byte) []byte { return runs(r, b, blocks*528/67420, blocks*2746/67420) }},
			{"new kernel", func(b []byte) []byte { return overwrite(b, blocks/2, noise(3, blocks/4)) }},
			{"everything", func([]byte) []byte { return noise(4, blocks) }},
		} {
			if !yield(change{name: c.name, old: old, new: c.make(bytes.Clone(old))}) {
				return
			}
		}
	}
}

// noise is what compressed blocks look like.
func noise(seed byte, blocks int) []byte {
	b := make([]byte, blocks*verity.BlockSize)
	rand.NewChaCha8([32]byte{seed}).Read(b) //nolint:errcheck // never fails
	return b
}

// overwrite replaces blocks from one on.
func overwrite(b []byte, at int, with []byte) []byte {
	copy(b[at*verity.BlockSize:], with)
	return b
}

// insert replaces n blocks by others, and moves what is behind them.
func insert(b []byte, at, n int, with []byte) []byte {
	return append(append(bytes.Clone(b[:at*verity.BlockSize]), with...), b[(at+n)*verity.BlockSize:]...)
}

// runs changes total blocks in so many runs.
func runs(r *rand.Rand, b []byte, count, total int) []byte {
	blocks := len(b) / verity.BlockSize
	for i := range count {
		n := total / count
		if i < total%count {
			n++
		}
		overwrite(b, r.IntN(blocks-n), noise(byte(10+i), n))
	}
	return b
}

// kernel is the name of the kernel image among the images of a build.
const kernel = "kernel"

// builds returns the images of two builds.
func builds(old, next string) (iter.Seq[change], error) {
	before, err := publish.FindBuild(old)
	if err != nil {
		return nil, err
	}
	after, err := publish.FindBuild(next)
	if err != nil {
		return nil, err
	}
	files := map[string][2]string{"usr": {before.Usr, after.Usr}, kernel: {before.UKI, after.UKI}}
	for name, file := range after.Applications {
		files[name] = [2]string{before.Applications[name], file}
	}
	var all []change
	for _, name := range slices.Sorted(maps.Keys(files)) {
		c, f := change{name: name, application: after.Applications[name] != ""}, files[name]
		if f[0] != "" {
			if c.old, err = os.ReadFile(f[0]); err != nil {
				return nil, err
			}
		}
		if c.new, err = os.ReadFile(f[1]); err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Base(f[1]), err)
		}
		all = append(all, c)
	}
	return func(yield func(change) bool) {
		for _, c := range all {
			if !yield(c) {
				return
			}
		}
	}, nil
}

// Sizes of chunks in bytes, those that casync and desync take by default; 64 KiB are
// usual.
const smallest, largest = 16 << 10, 256 << 10

// chunked returns how many bytes of an image are in chunks that another has not, as
// they are before compression. Chunks end where a rolling hash of the bytes before
// says so, so that they are found again wherever they are.
func chunked(old, next []byte) (missing int64) {
	have := make(map[[32]byte]bool)
	for c := range chunks(old) {
		have[sha256.Sum256(c)] = true
	}
	for c := range chunks(next) {
		if sum := sha256.Sum256(c); !have[sum] {
			have[sum] = true
			missing += int64(len(c))
		}
	}
	return missing
}

func chunks(b []byte) iter.Seq[[]byte] {
	gear := gears()
	return func(yield func([]byte) bool) {
		for len(b) > 0 {
			n, h := min(smallest, len(b)), uint64(0)
			for ; n < min(largest, len(b)); n++ {
				if h = h<<1 + gear[b[n]]; h>>(64-16) == 0 { // once in 64 KiB
					break
				}
			}
			if !yield(b[:n]) {
				return
			}
			b = b[n:]
		}
	}
}

// gears returns a number for each byte, of which a rolling hash is made: what was
// added 64 bytes ago has been shifted out.
func gears() (g [256]uint64) {
	r := rand.New(rand.NewPCG(7, 7)) //nolint:gosec // the same chunks each time
	for i := range g {
		g[i] = r.Uint64()
	}
	return g
}
