package verity

// order returns the blocks to copy, each before the block it is read from is
// overwritten. Blocks that wait for one another in a ring are marked missing.
//
// It matters only how much is fetched: each block is checked again when it is
// copied, and after a power cut, whatever reached the disk by then, the next plan
// starts from what is there.
func (p *planner) order() []uint32 {
	readers := make([]uint32, len(p.origins)) // of each block of the target that is overwritten
	for _, o := range p.origins {
		if o.source == fromTarget && p.overwritten(o.block) {
			readers[o.block]++
		}
	}
	var out []uint32
	placed := make([]bool, len(p.origins))
	place := func(i uint32) {
		for { // what i is read from may be overwritten now, if nobody else reads it
			out, placed[i] = append(out, i), true
			o := p.origins[i]
			if o.source != fromTarget || !p.overwritten(o.block) {
				return
			}
			i = o.block
			if readers[i]--; readers[i] > 0 || !p.copied(i) {
				return
			}
		}
	}
	for i := range p.origins {
		if i := uint32(i); p.copied(i) && !placed[i] && readers[i] == 0 { //nolint:gosec // at most MaxBlocks
			place(i)
		}
	}
	for i := range p.origins {
		if p.copied(uint32(i)) && !placed[i] { //nolint:gosec // at most MaxBlocks
			p.origins[i] = origin{source: missing}
		}
	}
	return out
}

// copied reports whether a block is copied from somewhere.
func (p *planner) copied(i uint32) bool { return p.origins[i].source >= fromTarget }

// overwritten reports whether a copy changes a block of the target. One that is
// fetched does too, but only after all copies.
func (p *planner) overwritten(i uint32) bool { return p.copied(i) }
