package store_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/incusos/incusos/internal/store"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/sys/systest"
)

// A life is that of a machine whose power keeps failing.
type life struct {
	t      *testing.T
	random *rand.Rand
	dir    string              // for trees
	deaf   map[string]bool     // steps of these kinds are kept from the disk
	cuts   int                 // so far
	harm   map[string]struct{} // what was found after cuts that must not be

	saved  string // what Set returned for, as text
	coming string // what Set was called with, as text
	left   systest.Image
	swept  int               // files that cuts left behind
	seen   map[string]string // by the content of the file: what Open makes of it
}

// run saves documents until there were as many cuts, each of which leaves either
// what was saved or what was being saved. Now and then the machine starts from
// what one of them left.
func (l *life) run(cuts int) {
	l.t.Helper()
	tree := l.tree()
	for starts := 0; l.cuts < cuts && len(l.harm) == 0; starts++ {
		platter, files, err := systest.NewPlatter(tree)
		if err != nil {
			l.t.Fatal(err)
		}
		files = files.WithTrace(func(s sys.Step) {
			if !l.deaf[s.Op] {
				platter.Told(s)
			}
		})
		platter.Moment = func() { l.cut(platter, 20) }
		d := open(l.t, files)
		l.saved = fmt.Sprint(d.Get())
		l.coming = l.saved
		l.left = nil
		for range 5 {
			next := someConfig(l.random)
			l.coming = fmt.Sprint(next)
			if err := d.Set(next); err != nil {
				l.t.Fatal(err)
			}
			l.saved = l.coming
			l.cut(platter, 20)
		}
		tree = l.tree()
		if err := l.left.Write(tree); err != nil {
			l.t.Fatal(err)
		}
		l.sweep(tree)
	}
}

// sweep is the beginning of a start: of what cuts left, nothing but the document
// stays.
func (l *life) sweep(tree sys.Dir) {
	const dir = "/var/lib/incus-os"
	swept, err := tree.Sweep(dir)
	if err != nil {
		l.t.Fatal(err)
	}
	l.swept += len(swept)
	entries, err := tree.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.t.Fatal(err)
	}
	for _, e := range entries {
		if dir+"/"+e.Name() != file {
			l.harm["a file stays: "+e.Name()] = struct{}{}
		}
	}
}

func (l *life) tree() sys.Dir {
	l.t.Helper()
	dir, err := os.MkdirTemp(l.dir, "")
	if err != nil {
		l.t.Fatal(err)
	}
	return sys.NewDir(dir)
}

// cut lets the power fail a number of times at this moment.
func (l *life) cut(platter *systest.Platter, times int) {
	for range times {
		l.cuts++
		image := platter.Cut(l.random)
		if what := l.look(image); what != "" {
			l.harm[what] = struct{}{}
		}
		if l.left == nil || l.random.IntN(200) == 0 {
			l.left = image
		}
	}
}

// look says what is wrong with what a cut left.
func (l *life) look(image systest.Image) string {
	found, ok := l.seen[string(image[file])]
	if !ok {
		found = l.open(image)
		l.seen[string(image[file])] = found
	}
	switch {
	case found == "":
		return "the document is damaged"
	case found != l.saved && found != l.coming:
		return "the document is neither the old nor the new one"
	}
	return ""
}

// open reads the document of a machine that starts from an image; "" if it
// cannot.
func (l *life) open(image systest.Image) string {
	files := l.tree()
	if err := image.Write(files); err != nil {
		l.t.Fatal(err)
	}
	d, err := store.Open[config](files, "net")
	if err != nil {
		return ""
	}
	return fmt.Sprint(d.Get())
}

// someConfig is one of up to some thousand bytes, so that it takes several
// sectors.
func someConfig(r *rand.Rand) config {
	c := config{Comment: fmt.Sprint(r.Uint64())}
	for n := range r.IntN(60) {
		c.Links = append(c.Links, link{fmt.Sprintf("link%d-%d", n, r.IntN(1000)), 1500 + r.IntN(100)})
	}
	return c
}

func newLife(t *testing.T, deaf ...string) *life {
	l := &life{
		t: t, random: rand.New(rand.NewPCG(20260101, 1)), dir: systest.InMemory(t),
		deaf: make(map[string]bool), harm: make(map[string]struct{}), seen: make(map[string]string),
	}
	for _, op := range deaf {
		l.deaf[op] = true
	}
	return l
}

// TestTenThousandCuts lets the power fail at each step of saving, on a disk that
// loses whatever was not flushed, in any order.
func TestTenThousandCuts(t *testing.T) {
	l := newLife(t)
	l.run(10_000)
	if len(l.harm) > 0 {
		t.Errorf("after one of %d cuts: %v", l.cuts, l.harm)
	}
	if l.swept == 0 {
		t.Error("no cut left a file behind, so that sweeping was not tried")
	}
	t.Logf("%d cuts, which left %d files to sweep", l.cuts, l.swept)
}

// The disk finds out who does not flush: without that, the test above would say
// nothing.
func TestCutsHarmWhoDoesNotFlush(t *testing.T) {
	for op, want := range map[string]string{
		sys.StepFlush:    "the document is damaged",
		sys.StepFlushDir: "the document is neither the old nor the new one",
	} {
		t.Run("no "+op, func(t *testing.T) {
			l := newLife(t, op)
			l.run(10_000)
			var found []string
			for what := range l.harm {
				found = append(found, what)
			}
			if !strings.Contains(strings.Join(found, ", "), want) {
				t.Errorf("after %d cuts the harm is %q, want that %s", l.cuts, found, want)
			}
		})
	}
}
