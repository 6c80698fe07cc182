package verity_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/incusos/incusos/internal/verity"
)

// A slot is a device that is there from the start, and may be cut.
type slot struct {
	data []byte
	left int // writes until the power goes; negative: never
}

var errCut = errors.New("the power is gone")

func (s *slot) ReadAt(p []byte, at int64) (int, error) { return bytes.NewReader(s.data).ReadAt(p, at) }

func (s *slot) WriteAt(p []byte, at int64) (int, error) {
	if at+int64(len(p)) > int64(len(s.data)) {
		return 0, io.ErrShortWrite
	}
	if s.left == 0 {
		return copy(s.data[at:], p[:len(p)/2]), errCut // torn in the middle
	}
	s.left--
	return copy(s.data[at:], p), nil
}

func target(s *slot, size int) verity.Target {
	return verity.Target{ReaderAt: s, WriterAt: s, Size: int64(size)}
}

func sources(all ...[]byte) (list []verity.Source) {
	for _, b := range all {
		list = append(list, verity.Source{ReaderAt: bytes.NewReader(b), Size: int64(len(b))})
	}
	return list
}

// words makes an image in which each letter is a block.
func words(s string) []byte {
	var b []byte
	for _, c := range s {
		b = append(b, bytes.Repeat([]byte{byte(c)}, verity.BlockSize)...)
	}
	return b
}

func TestPlans(t *testing.T) {
	tests := map[string]struct {
		image, slot string
		sources     []string
		want        verity.Plan
	}{
		"nothing to do": {"abc", "abc", []string{"abc"}, verity.Plan{InPlace: 3}},
		"all of it":     {"abc", "xyz", nil, verity.Plan{Missing: []verity.Range{{0, 3}}}},
		"two ends":      {"abcde", "xbcdx", nil, verity.Plan{InPlace: 3, Missing: []verity.Range{{0, 1}, {4, 1}}}},
		"old slot":      {"abcdef", "......", []string{"abXdef"}, verity.Plan{Copies: []verity.Copy{{0, 0, 0, 2}, {0, 3, 3, 3}}, Missing: []verity.Range{{2, 1}}}},
		"first source":  {"ab", "..", []string{"b", "ab"}, verity.Plan{Copies: []verity.Copy{{1, 0, 0, 1}, {0, 0, 1, 1}}}},
		"twice in it":   {"aaba", "....", []string{"xab"}, verity.Plan{Copies: []verity.Copy{{0, 1, 0, 1}, {0, 1, 1, 2}, {0, 1, 3, 1}}}},
		"moved right": {"abcd", "bcd.", nil, verity.Plan{
			Copies: []verity.Copy{{verity.FromTarget, 0, 1, 3}}, Missing: []verity.Range{{0, 1}},
		}},
		"moved left": {"bcde", "abcd", nil, verity.Plan{
			Copies: []verity.Copy{{verity.FromTarget, 1, 0, 3}}, Missing: []verity.Range{{3, 1}},
		}},
		"read before it is overwritten": {"xa", "ay", []string{"x"}, verity.Plan{
			Copies: []verity.Copy{{verity.FromTarget, 0, 1, 1}, {0, 0, 0, 1}},
		}},
		"exchanged": {"abc", "bac", nil, verity.Plan{InPlace: 1, Missing: []verity.Range{{0, 2}}}},
		"in place and elsewhere": {"aab", "axx", nil, verity.Plan{
			InPlace: 1, Copies: []verity.Copy{{verity.FromTarget, 0, 1, 1}}, Missing: []verity.Range{{2, 1}},
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var old [][]byte
			for _, s := range tt.sources {
				old = append(old, words(s))
			}
			image, s := words(tt.image), &slot{words(tt.slot), -1}
			x := build(t, image, nil).Index()
			p, err := verity.MakePlan(t.Context(), x, target(s, len(image)), sources(old...))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, p); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
			complete(t, x, p, s, image, sources(old...))
		})
	}
}

// complete carries out a plan and looks whether the slot has the image then.
func complete(t testing.TB, x *verity.Index, p verity.Plan, s *slot, image []byte, list []verity.Source) {
	t.Helper()
	to := target(s, len(image))
	if err := p.Copy(t.Context(), x, to, list); err != nil {
		t.Fatal(err)
	}
	for _, r := range p.Missing {
		if wrong, err := to.Fill(x, r.First, part(image, r)); wrong != nil || err != nil {
			t.Fatalf("blocks %v of the image are not accepted (%v)", wrong, err)
		}
	}
	if !bytes.Equal(s.data[:len(image)], image) {
		t.Error("the slot does not have the image")
	}
}

func part(image []byte, r verity.Range) []byte {
	return image[r.First*verity.BlockSize : min((r.First+r.Blocks)*verity.BlockSize, int64(len(image)))]
}

// Whatever the images are, wherever the power goes: the slot ends with the new
// image, and nothing is fetched that the machine had.
func TestAnyImageFromAnyOther(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		letters := rapid.StringMatching(`[a-h]{1,30}`)
		image := words(letters.Draw(rt, "image"))
		image = image[:len(image)-rapid.IntRange(0, verity.BlockSize-1).Draw(rt, "short")]
		s := &slot{words(letters.Draw(rt, "slot")), -1}
		s.data = append(s.data, make([]byte, max(0, len(image)-len(s.data)))...)
		old := [][]byte{words(letters.Draw(rt, "old")), words(letters.Draw(rt, "older"))}
		tree := build(t, image, []byte{1})
		x := tree.Index()
		if rapid.Bool().Draw(rt, "compact") {
			x, _ = verity.ParseIndex(x.Compact())
		}
		for rapid.IntRange(0, 4).Draw(rt, "cut") > 0 {
			s.left = rapid.IntRange(0, 20).Draw(rt, "writes")
			p := planOf(t, x, s, image, old)
			err := p.Copy(t.Context(), x, target(s, len(image)), sources(old...))
			for _, r := range p.Missing {
				if err == nil {
					_, err = target(s, len(image)).Fill(x, r.First, part(image, r))
				}
			}
			if err != nil && !errors.Is(err, errCut) {
				rt.Fatal(err)
			}
		}
		s.left = -1
		p := planOf(t, x, s, image, old)
		checkMissing(rt, p, image, old)
		complete(t, x, p, s, image, sources(old...))
		if again := build(t, s.data[:len(image)], []byte{1}); again.Root != tree.Root {
			rt.Error("the slot has another root hash")
		}
		if p := planOf(t, x, s, image, old); p.InPlace != x.Blocks || p.Copies != nil || p.Missing != nil {
			rt.Errorf("there is still something to do: %+v", p)
		}
	})
}

func planOf(t testing.TB, x *verity.Index, s *slot, image []byte, old [][]byte) verity.Plan {
	t.Helper()
	p, err := verity.MakePlan(t.Context(), x, target(s, len(image)), sources(old...))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// checkMissing fails if a block is to be fetched that one of the sources has.
func checkMissing(rt *rapid.T, p verity.Plan, image []byte, old [][]byte) {
	have := make(map[string]bool)
	for _, o := range old {
		for i := range verity.BlocksOf(int64(len(o))) {
			have[string(part(o, verity.Range{First: i, Blocks: 1}))] = true
		}
	}
	for _, r := range p.Missing {
		for i := range r.Blocks {
			if b := part(image, verity.Range{First: r.First + i, Blocks: 1}); have[string(b)] {
				rt.Errorf("block %d is to be fetched and is in a source", r.First+i)
			}
		}
	}
}

// Images larger than what is hashed and copied at once, with parts moved about.
func TestLargeImage(t *testing.T) {
	const blocks = 4500
	old := random(t, blocks*verity.BlockSize)
	image := bytes.Clone(old)
	copy(image[100*verity.BlockSize:], old[2000*verity.BlockSize:2300*verity.BlockSize])
	copy(image[400*verity.BlockSize:], old[100*verity.BlockSize:2000*verity.BlockSize])
	for i := 0; i < blocks; i += 100 {
		image[i*verity.BlockSize+7] ^= 255
	}
	x := build(t, image, []byte("new salt")).Index()
	for name, s := range map[string]*slot{"another slot": {make([]byte, len(image)), -1}, "the slot itself": {bytes.Clone(old), -1}} {
		t.Run(name, func(t *testing.T) {
			var list []verity.Source
			if name == "another slot" {
				list = sources(old)
			}
			p, err := verity.MakePlan(t.Context(), x, target(s, len(image)), list)
			if err != nil {
				t.Fatal(err)
			}
			missing := verity.Blocks(p.Missing)
			if rings := missing - blocks/100; missing < blocks/100 || name == "another slot" && rings > 0 {
				t.Errorf("%d blocks are missing, want the %d that changed", missing, blocks/100)
			}
			complete(t, x, p, s, image, list)
		})
	}
}

// A source that went bad between planning and copying costs bytes, no more.
func TestCopyChecksAgain(t *testing.T) {
	image := patterned(1000)
	x := build(t, image, nil).Index()
	s, old := &slot{make([]byte, len(image)), -1}, badDisk{data: bytes.Clone(image), bad: map[int64]bool{}, err: errCut}
	list := []verity.Source{{ReaderAt: old, Size: int64(len(image))}}
	p, err := verity.MakePlan(t.Context(), x, target(s, len(image)), list)
	if err != nil || p.Missing != nil {
		t.Fatalf("%+v %v", p.Missing, err)
	}
	old.data[5*verity.BlockSize] ^= 1
	old.bad[600] = true
	if err := p.Copy(t.Context(), x, target(s, len(image)), list); err != nil {
		t.Fatal(err)
	}
	if n := verity.Blocks(p.Missing); n < 2 || n > 1+256*4 || p.Missing[0] != (verity.Range{First: 5, Blocks: 1}) {
		t.Errorf("missing are %v", p.Missing)
	}
	complete(t, x, p, s, image, list)

	p, err = verity.MakePlan(t.Context(), x, target(&slot{make([]byte, len(image)), -1}, len(image)), list)
	if n := verity.Blocks(p.Missing); err != nil || n > 2 {
		t.Errorf("a plan misses %d blocks (%v), want those that are damaged", n, err)
	}
}

func TestFillRefusesWhatIsWrong(t *testing.T) {
	image := patterned(20)
	s := &slot{make([]byte, len(image)), -1}
	x := build(t, image, nil).Index()
	data := bytes.Clone(image[3*verity.BlockSize : 9*verity.BlockSize])
	data[0] ^= 1
	data[4*verity.BlockSize] ^= 1
	wrong, err := target(s, len(image)).Fill(x, 3, data)
	if fmt.Sprint(wrong) != "[3 7]" || err != nil {
		t.Errorf("wrong are %v (%v), want 3 and 7", wrong, err)
	}
	want := make([]byte, len(image))
	for _, b := range []int{4, 5, 6, 8} {
		copy(want[b*verity.BlockSize:], image[b*verity.BlockSize:(b+1)*verity.BlockSize])
	}
	if !bytes.Equal(s.data, want) {
		t.Error("what was written is not what was right")
	}
}

func TestCoalesce(t *testing.T) {
	tests := []struct {
		in         []verity.Range
		gap, limit int64
		want       []verity.Range
	}{
		{nil, 4, 10, nil},
		{[]verity.Range{{0, 1}, {2, 1}}, 0, 10, []verity.Range{{0, 1}, {2, 1}}},
		{[]verity.Range{{0, 1}, {2, 1}, {9, 1}}, 1, 10, []verity.Range{{0, 3}, {9, 1}}},
		{[]verity.Range{{0, 5}, {6, 5}}, 1, 10, []verity.Range{{0, 5}, {6, 5}}},
		{[]verity.Range{{3, 25}, {29, 1}}, 1, 10, []verity.Range{{3, 10}, {13, 10}, {23, 7}}},
	}
	for _, tt := range tests {
		if diff := cmp.Diff(tt.want, verity.Coalesce(tt.in, tt.gap, tt.limit)); diff != "" {
			t.Errorf("%v with gaps of %d, at most %d (-want +got):\n%s", tt.in, tt.gap, tt.limit, diff)
		}
	}
}

func BenchmarkBuild(b *testing.B) {
	data := random(b, 64<<20)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		build(b, data, []byte("salt"))
	}
}

// The usual case: one block in 25 changed, and all others are in the old slot.
func BenchmarkMakePlan(b *testing.B) {
	old := random(b, 64<<20)
	image := bytes.Clone(old)
	for range len(image) / verity.BlockSize / 25 {
		image[rand.IntN(len(image))] ^= 255
	}
	x := build(b, image, []byte("salt")).Index()
	b.SetBytes(int64(len(image)))
	for b.Loop() {
		if _, err := verity.MakePlan(b.Context(), x, target(&slot{make([]byte, len(image)), 0}, len(image)), sources(old)); err != nil {
			b.Fatal(err)
		}
	}
}
