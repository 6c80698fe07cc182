package verity

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Copy carries out the copies of a plan. What is copied is checked again; blocks
// that are no longer what they were, or cannot be read, are added to those that
// are missing. An error is one of the target, or that of ctx.
func (p *Plan) Copy(ctx context.Context, x *Index, target Target, sources []Source) error {
	buf := make([]byte, chunk*BlockSize)
	lost := make(map[int64]bool)
	for _, c := range p.Copies {
		if err := ctx.Err(); err != nil {
			return err
		}
		from := io.NewSectionReader(target, 0, target.Size)
		if c.Source != FromTarget {
			from = io.NewSectionReader(sources[c.Source], 0, sources[c.Source].Size)
		}
		data := buf[:c.Blocks*BlockSize]
		n, err := from.ReadAt(data, c.From*BlockSize)
		if n < len(data) && !errors.Is(err, io.EOF) {
			n = 0 // one bad block loses the whole copy; they are rare
		}
		clear(data[n:])
		wrong := x.Check(c.To, data)
		for _, b := range wrong {
			lost[b] = true
		}
		if err := target.write(c.To, data, wrong); err != nil {
			return err
		}
	}
	p.Copies = nil
	p.lose(lost)
	return nil
}

// lose adds blocks to those that are missing.
func (p *Plan) lose(blocks map[int64]bool) {
	if len(blocks) == 0 {
		return
	}
	for _, r := range p.Missing {
		for i := range r.Blocks {
			blocks[r.First+i] = true
		}
	}
	all := make([]int64, 0, len(blocks))
	for b := range blocks {
		all = append(all, b)
	}
	slices.Sort(all)
	p.Missing = nil
	for _, b := range all {
		p.miss(b)
	}
}

// Fill writes those blocks of data, the first of which is block first of the
// image, that are what x says, and returns the others.
func (t Target) Fill(x *Index, first int64, data []byte) (wrong []int64, err error) {
	wrong = x.Check(first, data)
	return wrong, t.write(first, data, wrong)
}

// write writes the blocks of data from block first on, but for those in except,
// which is ascending.
func (t Target) write(first int64, data []byte, except []int64) error {
	at := int64(0)
	end := int64(len(data))
	for _, w := range except {
		if err := t.writeAt(data[at:(w-first)*BlockSize], first*BlockSize+at); err != nil {
			return err
		}
		at = min((w-first+1)*BlockSize, end)
	}
	return t.writeAt(data[at:], first*BlockSize+at)
}

// writeAt writes what of data is before the end of the image.
func (t Target) writeAt(data []byte, at int64) error {
	data = data[:max(0, min(int64(len(data)), t.Size-at))]
	if len(data) == 0 {
		return nil
	}
	if _, err := t.WriteAt(data, at); err != nil {
		return fmt.Errorf("writing block %d of the image: %w", at/BlockSize, err)
	}
	return nil
}
