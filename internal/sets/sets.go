// Package sets keeps the applications of each version of the system together, so
// that a version that comes back runs with those it had.
//
// The two slots of a machine have a set of images each, and the version that runs
// says which of them counts. Package update writes down the set of a new version
// before it stores anything of it, package early has the links lead to the set of the
// version that starts, and package apps merges what they lead to and writes down
// what it was changed to since. An image that no set needs any more is removed.
//
//	saved.go  what is written down, and how it changes  (pure)
//	store.go  where images and links lie
package sets

import (
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"sync"

	"github.com/incusos/incusos/internal/store"
	"github.com/incusos/incusos/internal/sys"
)

// Sets are the sets of one machine. Its methods may be called from several
// goroutines.
type Sets struct {
	files sys.Dir
	err   error // why the document cannot be read; nil if it can

	mu  sync.Mutex // held while the document changes and while images are removed
	doc *store.Document[Saved]
}

// Open returns the sets of a machine. If they cannot be read, all methods say so.
func Open(files sys.Dir) *Sets {
	doc, err := store.Open[Saved](files, "application-sets")
	if err == nil {
		err = doc.Get().check()
	}
	if err != nil {
		err = fmt.Errorf("reading which applications belong to which version: %w", err)
	}
	return &Sets{files: files, doc: doc, err: err}
}

// Get returns all there is.
func (s *Sets) Get() (Saved, error) {
	if s.err != nil {
		return Saved{}, s.err
	}
	return s.doc.Get(), nil
}

// Of returns what a version of the system runs with; nothing if that was never
// written down.
func (s *Sets) Of(system string) (System, error) {
	all, err := s.Get()
	return all.Systems[system], err
}

// Stage writes down what a version of the system will run with that is to be put
// into the slot beside the one that runs; see Saved.Staged. If nobody has written
// down yet what the one that runs has, that is what is active.
func (s *Sets) Stage(running, version string, set Set) error {
	active, err := Active(s.files)
	if err != nil {
		return err
	}
	return s.change(func(all Saved) Saved {
		if all.Systems[running].Now == nil {
			all = all.Runs(running, active)
		}
		return all.Staged(running, version, set)
	})
}

// Coming writes down what is to be stored for a version of the system; see
// Saved.Coming.
func (s *Sets) Coming(system string, next Set) error {
	return s.change(func(all Saved) Saved { return all.Coming(system, next) })
}

// Runs writes down what a version of the system runs with; see Saved.Runs.
func (s *Sets) Runs(system string, set Set) error {
	return s.change(func(all Saved) Saved { return all.Runs(system, set) })
}

// Refuse writes down what did not work; see Saved.Refuses.
func (s *Sets) Refuse(system string, set Set) error {
	return s.change(func(all Saved) Saved { return all.Refuses(system, set) })
}

// Forget drops an application; see Saved.Without.
func (s *Sets) Forget(name string) error {
	return s.change(func(all Saved) Saved { return all.Without(name) })
}

func (s *Sets) change(to func(Saved) Saved) error {
	if s.err != nil {
		return s.err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.save(to(s.doc.Get()))
}

func (s *Sets) save(after Saved) error {
	if err := after.check(); err != nil {
		return err
	}
	if reflect.DeepEqual(s.doc.Get(), after) {
		return nil
	}
	return s.doc.Set(after)
}

// Prune removes the images that no set needs any more. One that a link still leads
// to stays until it does not.
func (s *Sets) Prune() error {
	if s.err != nil {
		return s.err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.doc.Get()
	if len(all.Gone) == 0 {
		return nil
	}
	active, err := Active(s.files)
	if err != nil {
		return err
	}
	var stay []Image
	for _, i := range all.Gone {
		if active[i.Name] == i.Version {
			stay = append(stay, i)
			continue
		}
		if err := s.remove(i); err != nil {
			return err
		}
	}
	all.Gone = stay
	return s.save(all)
}

// remove removes an image, what is there of one that was never whole, and the
// directory of its version if that was the last.
func (s *Sets) remove(i Image) error {
	file := Path(i.Name, i.Version)
	for _, name := range []string{file, file + Part} {
		if err := s.files.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing application %q %s, which no version of the system needs: %w", i.Name, i.Version, err)
		}
	}
	left, err := s.files.ReadDir(Store + "/" + i.Version)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && len(left) == 0 {
		err = s.files.Remove(Store + "/" + i.Version)
	}
	return err
}
