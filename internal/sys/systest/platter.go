package systest

import (
	"errors"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/incusos/incusos/internal/sys"
)

// A Platter is the disk below a tree. It keeps what was flushed, and of the rest
// whatever it likes: of names that were not flushed any, in no order; of content
// that was not flushed any sectors, the others as they were or zero. That is
// less than any file system promises.
//
// What was there before NewPlatter is flushed. The tree's own steps are told to
// it (see sys.Dir.WithTrace); content is read from the tree when it is told of.
type Platter struct {
	// Moment is called between steps, when a cut may happen. Nil: never.
	Moment func()

	files   sys.Dir
	mu      sync.Mutex
	cached  map[string]*inode // by name, as the running system sees it
	kept    map[string]*inode // by name, as flushed
	pending []renaming        // from kept to cached, oldest first
}

// An inode is what a name stands for.
type inode struct {
	dir    bool
	cached []byte // as the running system sees it
	kept   []byte // as flushed
}

// A renaming is a change of one name that is not flushed yet.
type renaming struct {
	from string // "" for a new one
	name string
	what *inode // nil: the name is gone
}

// An Image is what a disk holds after a cut: the content of files by their names,
// and directories with names that end in "/".
type Image map[string][]byte

// sectorSize is what a disk writes wholly or not at all, bytes.
const sectorSize = 512

// NewPlatter returns the disk below the tree, and the tree that tells it.
func NewPlatter(files sys.Dir) (*Platter, sys.Dir, error) {
	p := &Platter{files: files, cached: make(map[string]*inode), kept: make(map[string]*inode)}
	err := filepath.WalkDir(files.Path("/"), func(name string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		seen := path.Clean("/" + strings.TrimPrefix(name, files.Path("/")))
		n := &inode{dir: e.IsDir()}
		if e.Type().IsRegular() {
			n.cached, err = os.ReadFile(name)
			n.kept = n.cached
		}
		p.cached[seen], p.kept[seen] = n, n
		return err
	})
	return p, files.WithTrace(p.Told), err
}

// Told takes notice of a step.
func (p *Platter) Told(s sys.Step) {
	p.mu.Lock()
	p.take(s.Op, path.Clean(s.Name), path.Clean(s.To))
	p.mu.Unlock()
	if p.Moment != nil {
		p.Moment()
	}
}

func (p *Platter) take(op, name, to string) {
	switch op {
	case sys.StepMake, sys.StepMkdir:
		p.rename(renaming{name: name, what: &inode{dir: op == sys.StepMkdir}})
	case sys.StepWrite:
		b, err := p.files.ReadFile(name)
		if n := p.cached[name]; n != nil && err == nil {
			n.cached = b
		}
	case sys.StepFlush:
		if n := p.cached[name]; n != nil {
			n.kept = n.cached
		}
	case sys.StepRename:
		p.rename(renaming{from: name, name: to, what: p.cached[name]})
	case sys.StepLink:
		p.rename(renaming{name: to, what: p.cached[name]})
	case sys.StepRemove:
		for below := range p.cached {
			if below == name || strings.HasPrefix(below, name+"/") {
				p.rename(renaming{name: below})
			}
		}
	case sys.StepFlushDir:
		p.flushNames(name)
	}
}

func (p *Platter) rename(r renaming) {
	r.apply(p.cached)
	p.pending = append(p.pending, r)
}

func (r renaming) apply(names map[string]*inode) {
	delete(names, r.from)
	if r.what == nil {
		delete(names, r.name)
		return
	}
	names[r.name] = r.what
}

// flushNames keeps all names in a directory.
func (p *Platter) flushNames(dir string) {
	p.pending = slices.DeleteFunc(p.pending, func(r renaming) bool {
		if path.Dir(r.name) != dir {
			return false
		}
		r.apply(p.kept)
		return true
	})
}

// Cut returns what the disk holds if the power fails now.
func (p *Platter) Cut(r *rand.Rand) Image {
	p.mu.Lock()
	defer p.mu.Unlock()
	names := make(map[string]*inode, len(p.kept))
	for name, n := range p.kept {
		names[name] = n
	}
	for _, change := range p.pending {
		if r.IntN(2) == 0 {
			change.apply(names)
		}
	}
	image := make(Image)
	for name, n := range names {
		switch {
		case !reachable(names, name):
		case n.dir:
			image[strings.TrimSuffix(name, "/")+"/"] = nil
		default:
			image[name] = n.torn(r)
		}
	}
	return image
}

// reachable reports whether all directories above a name are there.
func reachable(names map[string]*inode, name string) bool {
	for dir := path.Dir(name); dir != "/"; dir = path.Dir(dir) {
		if n := names[dir]; n == nil || !n.dir {
			return false
		}
	}
	return true
}

// torn returns the content that was kept, with some of what was not.
func (n *inode) torn(r *rand.Rand) []byte {
	shorter, longer := len(n.kept), len(n.cached)
	if shorter > longer {
		shorter, longer = longer, shorter
	}
	out := make([]byte, shorter+r.IntN(longer-shorter+1))
	for at := 0; at < len(out); at += sectorSize {
		end := min(at+sectorSize, len(out))
		if at < len(n.kept) {
			copy(out[at:end], n.kept[at:])
		}
		if at < len(n.cached) && r.IntN(2) == 0 {
			copy(out[at:end], n.cached[at:])
		}
	}
	return out
}

// Write makes the tree, which must be empty, what the disk holds.
func (i Image) Write(files sys.Dir) error {
	names := make([]string, 0, len(i))
	for name := range i {
		names = append(names, name)
	}
	slices.Sort(names) // directories before what is in them
	for _, name := range names {
		var err error
		if strings.HasSuffix(name, "/") {
			err = os.MkdirAll(files.Path(name), 0o755)
		} else {
			err = os.WriteFile(files.Path(name), i[name], 0o600)
		}
		if err != nil {
			return errors.Join(errors.New("making what a cut left"), err)
		}
	}
	return nil
}
