package sets

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/incusos/incusos/api"
)

// A Set is the versions of images, by the names of applications.
type Set = map[string]string

// An Image is one image that is stored, or was.
type Image struct {
	Name    string `json:"name"`    // of the application, such as "incus"
	Version string `json:"version"` // twelve digits, such as "202601010000"
}

// Saved is the document application-sets.json. Its methods return another one and
// change nothing.
type Saved struct {
	Systems map[string]System `json:"systems,omitempty"` // by version: those in the two slots
	Gone    []Image           `json:"gone,omitempty"`    // no set needs them any more; their files may be there still
}

// A System is what one version of the system runs with.
type System struct {
	Now     Set `json:"now,omitempty"`
	Before  Set `json:"before,omitempty"`  // what each application was before it became what it is now
	Next    Set `json:"next,omitempty"`    // is being stored, to take the place of what is now
	Refused Set `json:"refused,omitempty"` // was tried and did not work; not taken again by itself
}

// clone returns a copy whose parts are all there.
func (s System) clone() System {
	return System{Now: copied(s.Now), Before: copied(s.Before), Next: copied(s.Next), Refused: copied(s.Refused)}
}

func copied(s Set) Set {
	if s == nil {
		return make(Set)
	}
	return maps.Clone(s)
}

// with returns s after a change. Images that a set needed before, and none after
// it, are gone.
func (s Saved) with(change func(systems map[string]System)) Saved {
	systems := make(map[string]System)
	for version, sys := range s.Systems {
		systems[version] = sys.clone()
	}
	change(systems)
	after := Saved{Systems: tidy(systems)}
	gone := s.needed()
	for _, i := range s.Gone {
		gone[i] = true
	}
	for i := range after.needed() {
		delete(gone, i)
	}
	after.Gone = slices.SortedFunc(maps.Keys(gone), func(a, b Image) int {
		return cmp.Or(strings.Compare(a.Version, b.Version), strings.Compare(a.Name, b.Name))
	})
	return after
}

// tidy leaves out what is empty, as the document does.
func tidy(systems map[string]System) map[string]System {
	for version, sys := range systems {
		for _, set := range []*Set{&sys.Now, &sys.Before, &sys.Next, &sys.Refused} {
			if len(*set) == 0 {
				*set = nil
			}
		}
		systems[version] = sys
		if sys.Now == nil && sys.Before == nil && sys.Next == nil && sys.Refused == nil {
			delete(systems, version)
		}
	}
	if len(systems) == 0 {
		return nil
	}
	return systems
}

// needed returns the images that some set has a use for.
func (s Saved) needed() map[Image]bool {
	all := make(map[Image]bool)
	for _, sys := range s.Systems {
		for _, set := range []Set{sys.Now, sys.Before, sys.Next} {
			for name, version := range set {
				all[Image{name, version}] = true
			}
		}
	}
	return all
}

// Staged returns s once a version of the system is to be put into the slot beside
// the one that runs: what else was in that slot is no more.
func (s Saved) Staged(running, version string, set Set) Saved {
	return s.with(func(systems map[string]System) {
		maps.DeleteFunc(systems, func(v string, _ System) bool { return v != running && v != version })
		refused := systems[version].Refused
		systems[version] = System{Now: copied(set), Refused: refused}
	})
}

// Coming returns s once images are to be stored that a version of the system shall
// run with from then on.
func (s Saved) Coming(system string, next Set) Saved {
	return s.with(func(systems map[string]System) {
		sys := systems[system].clone()
		sys.Next = copied(next)
		systems[system] = sys
	})
}

// Runs returns s once a version of the system runs with a set, and nothing else.
// An application that is new is so for the version in the other slot too, which
// has no other image of it.
func (s Saved) Runs(system string, set Set) Saved {
	return s.with(func(systems map[string]System) {
		sys := systems[system].clone()
		for name, version := range set {
			switch old := sys.Now[name]; old {
			case version:
			case "":
				adopt(systems, name, version)
			default:
				sys.Before[name] = old
			}
			if sys.Refused[name] == version {
				delete(sys.Refused, name)
			}
			if sys.Next[name] == version {
				delete(sys.Next, name)
			}
		}
		sys.Now = copied(set)
		maps.DeleteFunc(sys.Before, func(name, _ string) bool { return set[name] == "" })
		systems[system] = sys
	})
}

// adopt gives an application to all that do not have it.
func adopt(systems map[string]System, name, version string) {
	for _, sys := range systems {
		if sys.Now[name] == "" {
			sys.Now[name] = version
		}
	}
}

// Refuses returns s once images did not work with a version of the system.
func (s Saved) Refuses(system string, set Set) Saved {
	return s.with(func(systems map[string]System) {
		sys := systems[system].clone()
		for name, version := range set {
			sys.Refused[name] = version
			delete(sys.Next, name)
			if sys.Before[name] == version { // it ran, and did not come up
				delete(sys.Before, name)
			}
		}
		systems[system] = sys
	})
}

// Without returns s once an application was removed with its images.
func (s Saved) Without(name string) Saved {
	after := s.with(func(systems map[string]System) {
		for _, sys := range systems {
			for _, set := range []Set{sys.Now, sys.Before, sys.Next, sys.Refused} {
				delete(set, name)
			}
		}
	})
	after.Gone = slices.DeleteFunc(after.Gone, func(i Image) bool { return i.Name == name })
	return after
}

// check reports what is wrong with a document: a name or a version could otherwise
// lead out of the store.
func (s Saved) check() error {
	images := slices.Clone(s.Gone)
	for i := range s.needed() {
		images = append(images, i)
	}
	for _, i := range images {
		if err := i.check(); err != nil {
			return err
		}
	}
	return nil
}

func (i Image) check() error {
	if !api.ApplicationName(i.Name) {
		return fmt.Errorf("%q is no application name; want lower case letters, digits and dashes", i.Name)
	}
	if !PlainVersion(i.Version) {
		return fmt.Errorf("%q of application %q is no version; want digits and dots", i.Version, i.Name)
	}
	return nil
}

// PlainVersion reports whether a version can be part of a path: digits and dots,
// and not dots alone.
func PlainVersion(v string) bool {
	return v != "" && strings.Trim(v, "0123456789.") == "" && strings.Trim(v, ".") != ""
}
