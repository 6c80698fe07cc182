package verity

import (
	"bytes"
	"context"
	"io"
)

// A Source is something on the machine in which blocks of a new image may be: a
// slot, an extension image, an old kernel.
type Source struct {
	io.ReaderAt
	Size int64 // bytes
}

// A Target is where the new image is made. What it holds from before, or from an
// attempt that was cut short, is made use of.
type Target struct {
	io.ReaderAt
	io.WriterAt
	Size int64 // of the image in bytes; a last block that is not whole ends there
}

// A Plan says how a target becomes an image: first the copies, in their order,
// then the blocks that are missing.
type Plan struct {
	InPlace int64   // blocks that are right already
	Copies  []Copy  // each at most 1 MiB
	Missing []Range // ascending, with something between any two
}

// FromTarget is the source of a Copy within the target.
const FromTarget = -1

// A Copy says that blocks are elsewhere on the machine.
type Copy struct {
	Source   int // place in the list of sources, or FromTarget
	From, To int64
	Blocks   int64
}

// A Range is a run of blocks of an image.
type Range struct{ First, Blocks int64 }

// Blocks returns how many blocks are in all ranges.
func Blocks(ranges []Range) (n int64) {
	for _, r := range ranges {
		n += r.Blocks
	}
	return n
}

// origin is where a block comes from.
type origin struct {
	source int32
	block  uint32
}

// Sources of a block beside those in the list.
const (
	fromTarget = FromTarget
	inPlace    = -2
	missing    = -3
)

// MakePlan looks for the blocks of the image that x describes: in the target where
// they belong, then in the sources, in their order and no more of them than it
// takes, then elsewhere in the target. What cannot be read counts as not there. It
// takes about 60 bytes of memory for each block, and reads each source once.
//
// A block that can only be had by exchanging it with others within the target is
// missing.
func MakePlan(ctx context.Context, x *Index, target Target, sources []Source) (Plan, error) {
	p := planner{x: x, origins: make([]origin, x.Blocks)}
	old := make([]Digest, x.Blocks)
	if err := sums(ctx, io.NewSectionReader(target, 0, target.Size), x.Salt, 0, old); err != nil {
		return Plan{}, err
	}
	for i, d := range old {
		p.origins[i].source = missing
		if d != (Digest{}) && x.has(int64(i), d) {
			p.origins[i].source = inPlace
		} else {
			p.left++
		}
	}
	p.finder = newFinder(x, func(i int64) bool { return p.origins[i].source == missing })
	for n, s := range sources {
		if err := p.scan(ctx, int32(n), s); err != nil { //nolint:gosec // few
			return Plan{}, err
		}
	}
	for i, d := range old {
		p.found(fromTarget, int64(i), d)
	}
	return p.plan(), nil
}

// A planner collects where the blocks of an image come from.
type planner struct {
	x       *Index
	finder  *finder
	origins []origin // for each block
	left    int64    // blocks not found yet
}

// scan looks for blocks in a source.
func (p *planner) scan(ctx context.Context, n int32, s Source) error {
	digests := make([]Digest, window)
	for first, end := int64(0), BlocksOf(s.Size); first < end && p.left > 0; first += window {
		some := digests[:min(window, end-first)]
		if err := sums(ctx, io.NewSectionReader(s, 0, s.Size), p.x.Salt, first, some); err != nil {
			return err
		}
		for i, d := range some {
			p.found(n, first+int64(i), d)
		}
	}
	return nil
}

// found notes for all blocks with that digest where they are.
func (p *planner) found(source int32, block int64, d Digest) {
	if d == (Digest{}) || p.left == 0 {
		return
	}
	for _, i := range p.finder.take(d) {
		p.origins[i] = origin{source, uint32(block)} //nolint:gosec // sources are no larger than disks of 16 TiB
		p.left--
	}
}

func (p *planner) plan() Plan {
	var plan Plan
	for _, i := range p.order() {
		plan.add(p.origins[i], int64(i))
	}
	for i, o := range p.origins {
		switch o.source {
		case inPlace:
			plan.InPlace++
		case missing:
			plan.miss(int64(i))
		}
	}
	return plan
}

// add appends a copy of one block, to the one before if it goes on with it in
// either direction.
func (p *Plan) add(o origin, to int64) {
	from := int64(o.block)
	if n := len(p.Copies); n > 0 {
		c := &p.Copies[n-1]
		switch {
		case c.Source != int(o.source) || c.Blocks == chunk:
		case from == c.From+c.Blocks && to == c.To+c.Blocks:
			c.Blocks++
			return
		case from == c.From-1 && to == c.To-1:
			c.From, c.To, c.Blocks = from, to, c.Blocks+1
			return
		}
	}
	p.Copies = append(p.Copies, Copy{int(o.source), from, to, 1})
}

func (p *Plan) miss(block int64) {
	if n := len(p.Missing); n > 0 && p.Missing[n-1].First+p.Missing[n-1].Blocks == block {
		p.Missing[n-1].Blocks++
		return
	}
	p.Missing = append(p.Missing, Range{block, 1})
}

// Coalesce joins ranges that have at most gap blocks between them, and cuts what
// is longer than limit, so that there are fewer requests, and none too large. What
// it returns is ascending, as ranges must be.
func Coalesce(ranges []Range, gap, limit int64) []Range {
	var out []Range
	for _, r := range ranges {
		if n := len(out); n > 0 {
			last := &out[n-1]
			joined := r.First + r.Blocks - last.First
			if r.First-(last.First+last.Blocks) <= gap && joined <= limit {
				last.Blocks = joined
				continue
			}
		}
		for ; r.Blocks > limit; r = (Range{r.First + limit, r.Blocks - limit}) {
			out = append(out, Range{r.First, limit})
		}
		out = append(out, r)
	}
	return out
}

// Zeros is a source that every machine has: one block of zeros.
func Zeros() Source { return Source{bytes.NewReader(make([]byte, BlockSize)), BlockSize} }
