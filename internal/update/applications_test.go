package update_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"os"
	"slices"
	"testing"

	"github.com/incusos/incusos/internal/sets"
	"github.com/incusos/incusos/internal/update"
)

// A release of applications alone: stored under its own version, and handed over
// to run under the system that is there.
func TestApplicationsAlone(t *testing.T) {
	const newer = "202611291200"
	b := newBench(t)
	b.images[newer] = b.images[to]
	only, err := b.build(newer).Only([]string{"incus", "ovn"})
	if err != nil {
		t.Fatal(err)
	}
	b.add(only)
	s := &update.Settings{Channel: "stable", Server: b.address}
	all := sets.Open(b.Host.Files)
	if err := all.Runs(to, sets.Set{"incus": to}); err != nil {
		t.Fatal(err)
	}
	agent, restarts := b.agent(to, s, nil)
	agent.Updater = func() (*update.Updater, error) { return nil, errors.New("nobody asked for another system") }
	// The bench's slots are those of the first version; only where images go matters.
	agent.Contents = b.contents(from)
	agent.Applications.Wish = func() (update.Wish, error) {
		runs, err := sets.Open(b.Host.Files).Of(to)
		return update.Wish{Installed: []string{"incus"}, Runs: runs}, err
	}
	var adopted sets.Set
	agent.Applications.Adopt = func(_ context.Context, next sets.Set) error {
		b.has(sets.Path("incus", newer), append(noise(3, 200), newer...))
		if of, err := sets.Open(b.Host.Files).Of(to); err != nil || !maps.Equal(of.Next, next) {
			t.Errorf("while %v is adopted, written down is %+v (%v)", next, of, err)
		}
		adopted = next
		return sets.Open(b.Host.Files).Runs(to, next)
	}
	if err := agent.Check(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(adopted, sets.Set{"incus": newer}) || agent.Status().Text != "Version "+to+" runs with incus "+newer || *restarts != 0 {
		t.Errorf("adopted %v, said %q, restarted %d times", adopted, agent.Status().Text, *restarts)
	}
	if b.Host.Files.Exists(sets.Path("ovn", newer)) {
		t.Error("an application was stored that is not installed")
	}
	adopted = nil
	if err := agent.Check(t.Context(), nil); err != nil || adopted != nil {
		t.Errorf("the next check adopted %v (%v), want nothing", adopted, err)
	}
	// The version before is not offered what came after the next.
	old, _ := b.agent(from, s, nil)
	if err := old.Check(t.Context(), nil); err != nil || !old.Status().NeedsReboot {
		t.Errorf("the old version said %+v (%v)", old.Status(), err)
	}
}

// What a machine takes of a release of applications.
func TestWish(t *testing.T) {
	const newer = "202611291200"
	runs := sets.System{Now: sets.Set{"incus": to, "ovn": from}}
	tests := map[string]struct {
		wish update.Wish
		want sets.Set
	}{
		"what is installed": {update.Wish{Installed: []string{"incus", "ovn"}, Runs: runs}, sets.Set{"incus": newer, "ovn": newer}},
		"and nothing else":  {update.Wish{Installed: []string{"ovn"}, Runs: runs}, sets.Set{"ovn": newer}},
		"nothing pinned":    {update.Wish{Installed: []string{"incus", "ovn"}, Pinned: []string{"incus"}, Runs: runs}, sets.Set{"ovn": newer}},
		"nothing that failed": {update.Wish{Installed: []string{"incus"}, Runs: sets.System{Now: sets.Set{"incus": from}, Refused: sets.Set{"incus": newer}}},
			sets.Set{"incus": to}}, // that of the system's own release
		"nothing older": {update.Wish{Installed: []string{"incus"}, Runs: sets.System{Now: sets.Set{"incus": "202612010000"}}}, nil},
	}
	b := newBench(t)
	b.images[newer] = b.images[to]
	only, err := b.build(newer).Only([]string{"incus", "ovn"})
	if err != nil {
		t.Fatal(err)
	}
	b.add(only)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			agent, _ := b.agent(to, &update.Settings{Channel: "stable", Server: b.address}, nil)
			agent.Contents = b.contents(from)
			var adopted sets.Set
			agent.Applications = update.Applications{
				Wish:   func() (update.Wish, error) { return tt.wish, nil },
				Coming: func(string, sets.Set) error { return nil },
				Adopt:  func(_ context.Context, next sets.Set) error { adopted = next; return nil },
			}
			if err := agent.Check(t.Context(), nil); err != nil || !maps.Equal(adopted, tt.want) {
				t.Errorf("it took %v (%v), want %v", adopted, err, tt.want)
			}
		})
	}
}

// The set of a new system: its own applications, but for what is pinned, what it
// does not bring, and what is newer already.
func TestSetOfASystem(t *testing.T) {
	tests := map[string]struct {
		wish update.Wish
		want sets.Set
	}{
		"its own":         {update.Wish{Installed: []string{"incus", "ovn"}, Runs: sets.System{Now: sets.Set{"incus": from, "ovn": from}}}, sets.Set{"incus": to, "ovn": to}},
		"pinned":          {update.Wish{Installed: []string{"incus", "ovn"}, Pinned: []string{"incus"}, Runs: sets.System{Now: sets.Set{"incus": from, "ovn": from}}}, sets.Set{"incus": from, "ovn": to}},
		"pinned and gone": {update.Wish{Installed: []string{"incus"}, Pinned: []string{"incus"}}, sets.Set{"incus": to}},
		"not brought":     {update.Wish{Installed: []string{"incus", "debug"}, Runs: sets.System{Now: sets.Set{"incus": from, "debug": from}}}, sets.Set{"incus": to, "debug": from}},
		"newer":           {update.Wish{Installed: []string{"incus"}, Runs: sets.System{Now: sets.Set{"incus": "202612010000"}}}, sets.Set{"incus": "202612010000"}},
		"did not work":    {update.Wish{Installed: []string{"incus"}, Runs: sets.System{Now: sets.Set{"incus": from}, Refused: sets.Set{"incus": to}}}, sets.Set{"incus": from}},
		"never recorded":  {update.Wish{Installed: []string{"incus"}}, sets.Set{"incus": to}},
	}
	b := newBench(t)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, c := b.updater(from)
			c.Wish = tt.wish
			if got := c.Applications(); !maps.Equal(got, tt.want) {
				t.Errorf("the set is %v, want %v", got, tt.want)
			}
		})
	}
}

// An application that a version before has as well is neither fetched nor stored again;
// one that only looks like it is.
func TestUnchangedApplicationsAreStoredOnce(t *testing.T) {
	whole := noise(4, 200) // as bench has it in both builds
	damaged := bytes.Clone(whole)
	damaged[5] ^= 1
	tests := map[string]struct {
		stored []byte
		once   bool
	}{
		"the same":     {whole, true},
		"damaged":      {damaged, false},
		"cut":          {whole[:len(whole)-1], false},
		"with a tail":  {append(bytes.Clone(whole), 0), false},
		"another file": {noise(9, 200), false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			old, next := sets.Path("ovn", from), sets.Path("ovn", to)
			b.write(old, tt.stored)
			must(t, b.Host.Files.WriteFile(next+sets.Part, []byte("begun"), 0o600))
			_, c := b.updater(from)
			must(t, c.Application(t.Context(), "ovn"))
			b.has(next, whole)
			first, err := b.Host.Files.Stat(old)
			must(t, err)
			second, err := b.Host.Files.Stat(next)
			must(t, err)
			if once := os.SameFile(first, second); once != tt.once {
				t.Errorf("they are one file: %v, want %v", once, tt.once)
			}
			if n := c.Tally.Requests.Load(); (n == 0) != tt.once {
				t.Errorf("the repository was asked %d times", n)
			}
			if b.Host.Files.Exists(next + sets.Part) {
				t.Error("what was begun is still there")
			}
			// The version before drops its own; the other keeps it.
			must(t, b.Host.Files.Remove(old))
			b.has(next, whole)
		})
	}
}

// Damage to a file that two versions share is mended for the one that is looked at.
func TestRepairOfASharedApplication(t *testing.T) {
	b := newBench(t)
	old, next := sets.Path("ovn", from), sets.Path("ovn", to)
	b.write(old, noise(4, 200))
	u, c := b.updater(from)
	c.Wish.Installed = []string{"incus", "ovn"}
	must(t, u.Stage(t.Context(), c))
	broken := noise(4, 200)
	clear(broken[4096:8192])
	f, err := os.OpenFile(b.Host.Files.Path(old), os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt(broken, 0)
	must(t, errors.Join(err, f.Close()))
	if b, err := b.Host.Files.ReadFile(next); err != nil || !bytes.Equal(b, broken) {
		t.Fatal("they are not one file")
	}
	repair := update.Repair{Fetched: c}
	found, err := repair.Run(t.Context(), new(gauge))
	if err != nil || !slices.Contains(found, "application ovn") {
		t.Errorf("found %q (%v), want the application", found, err)
	}
	b.has(next, noise(4, 200))
}
