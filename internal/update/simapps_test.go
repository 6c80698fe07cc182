package update_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/incusos/incusos/internal/sets"
)

// What packages sets, early and apps do on the machine whose power fails.

// Sets.
func (m *machine) Stage(running, version string, set sets.Set) error {
	m.either(func() {
		if m.fault != "sets are not written down" {
			m.sets = m.sets.Staged(running, version, set)
		}
	})
	return nil
}

// point is what the early boot does: one link after the other.
func (m *machine) point(set sets.Set) {
	if m.fault == "links stay" {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(set)) {
		if m.links[name] != set[name] {
			m.either(func() { m.links[name] = set[name] })
		}
	}
}

// complete reports what is wrong with a set that a version is started with: another
// than it is to have, or an image that is not whole.
func (m *machine) complete(version string, set sets.Set) error {
	if !slices.ContainsFunc(m.may[version], func(may sets.Set) bool { return maps.Equal(may, set) }) {
		return fmt.Errorf("version %s starts with %v; want one of %v", version, set, m.may[version])
	}
	for name, v := range set {
		if !slices.Equal(m.store[sets.Image{Name: name, Version: v}], image(name+v)) {
			return fmt.Errorf("version %s starts with %s %s, whose image is %q", version, name, v, m.store[sets.Image{Name: name, Version: v}])
		}
	}
	return nil
}

// ready reports what would not start of what the boot loader could.
func (m *machine) ready() error {
	for version := range m.esp {
		if !slices.ContainsFunc(m.slots[:], func(s slot) bool { return s.name == version }) {
			return fmt.Errorf("version %s has an entry and no slot", version)
		}
		if err := m.complete(version, m.sets.Systems[version].Now); err != nil {
			return fmt.Errorf("going back: %w", err)
		}
	}
	// Each slot has an image of both applications, and one of Incus to go back to.
	if len(m.store) > 6 {
		return fmt.Errorf("%d images are stored: %v", len(m.store), slices.Collect(maps.Keys(m.store)))
	}
	return nil
}

// prune removes the images that no set needs any more.
func (m *machine) prune() {
	gone := slices.Clone(m.sets.Gone)
	switch m.fault {
	case "images stay":
		return
	case "images go too early":
		gone = slices.Collect(maps.Keys(m.store))
	}
	for _, i := range gone {
		if m.links[i.Name] != i.Version {
			m.either(func() { delete(m.store, i) })
		}
	}
	m.either(func() { m.sets.Gone = nil })
}

// alone updates the applications of a version that runs, and nothing else.
func (m *machine) alone(version string) error {
	next := sets.Set{"incus": version[:11] + "5"}
	if m.links["incus"] >= next["incus"] || m.r.IntN(2) == 0 {
		return nil
	}
	if m.fault != "changes are not written down" {
		m.either(func() { m.sets = m.sets.Coming(version, next) })
	}
	m.either(func() { m.store[sets.Image{Name: "incus", Version: next["incus"]}] = image("incus" + next["incus"]) })
	m.prune() // at any time
	set := maps.Clone(m.links)
	maps.Copy(set, next)
	m.may[version] = append(m.may[version], set)
	m.point(set)
	m.either(func() {
		if m.fault != "changes are not written down" {
			m.sets = m.sets.Runs(version, set)
		}
	})
	m.may[version] = []sets.Set{set}
	m.prune()
	if m.sets.Systems[version].Next != nil {
		return errors.New("what is being stored was adopted, and is being stored still")
	}
	return nil
}
