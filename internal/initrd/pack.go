package initrd

import (
	"errors"
	"runtime"
	"sync"
)

// blockSize is what archives begin at a multiple of, in bytes.
const blockSize = 4096

// Pack compresses archives, several at a time, and puts them behind one another, each
// filled up with zeros to a multiple of 4 KiB. Compress must say the same of the same
// bytes.
func Pack(archives [][]byte, compress func([]byte) ([]byte, error)) (out []byte, err error) {
	packed, errs := make([][]byte, len(archives)), make([]error, len(archives))
	turn := make(chan struct{}, runtime.NumCPU())
	var wg sync.WaitGroup
	for i, a := range archives {
		wg.Go(func() {
			turn <- struct{}{}
			packed[i], errs[i] = compress(a)
			<-turn
		})
	}
	wg.Wait()
	for _, p := range packed {
		out = pad(append(out, p...), blockSize)
	}
	return out, errors.Join(errs...)
}
