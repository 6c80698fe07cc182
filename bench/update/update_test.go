package main

import (
	"bytes"
	"testing"

	"github.com/incusos/incusos/internal/verity"
)

// What is measured is what the changes are.
func TestMeasure(t *testing.T) {
	const blocks = 4000
	want := map[string]int64{ // blocks that must be fetched
		"no change": 0, "one Go binary": blocks / 20, "one Go binary, longer": blocks / 19, "new kernel": blocks / 4, "everything": blocks,
	}
	for c := range madeUp(blocks) {
		r, err := measure(t.Context(), c, options{})
		if err != nil {
			t.Fatal(err)
		}
		index := int64(512 + 8*(len(c.new)/verity.BlockSize))
		if n, ok := want[c.name]; ok && r.fetched != n*verity.BlockSize+index {
			t.Errorf("%s: %d bytes fetched, want %d blocks and the index", c.name, r.fetched, n)
		}
		if c.name == "nine packages" && r.fetched > int64(len(c.new))/10 {
			t.Errorf("nine packages take %d bytes of %d", r.fetched, len(c.new))
		}
	}
}

func TestChunksAreFoundAgain(t *testing.T) {
	old := noise(1, 1000)
	if n := chunked(old, old); n != 0 {
		t.Errorf("an image lacks %d bytes of itself", n)
	}
	if n := chunked(old, append([]byte("shifted"), old...)); n > largest {
		t.Errorf("after seven bytes more, %d are missing", n)
	}
	var joined []byte
	count := 0
	for c := range chunks(old) {
		joined = append(joined, c...)
		count++
	}
	if usual := len(old) / count; !bytes.Equal(joined, old) || usual < 40<<10 || usual > 120<<10 {
		t.Errorf("%d chunks of %d bytes", count, usual)
	}
}
