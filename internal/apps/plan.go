package apps

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/incusos/incusos/internal/sets"
)

// A Plan is what there is to do with images. The zero Plan is nothing.
type Plan struct {
	Copy       []Image           // from the source into the store
	Activate   map[string]string // application to stored image
	Deactivate []string          // applications that are not wanted any more
	Refresh    bool              // merge what is active
	Populate   bool              // users and directories are missing
	Record     bool              // write down that this is what the running system runs with
	Remove     []sets.Image      // no version of the system needs them

	want   map[string]string // application to stored image, all of them
	merged map[string]string // likewise, before anything is done
}

// Empty reports whether everything wanted is merged, and nothing else kept.
func (p Plan) Empty() bool { return p.done() && len(p.Remove) == 0 }

// done reports whether everything wanted is merged.
func (p Plan) done() bool {
	return len(p.Copy) == 0 && len(p.Activate) == 0 && len(p.Deactivate) == 0 && !p.Refresh && !p.Populate && !p.Record
}

// names returns the applications that are wanted.
func (p Plan) names() []string { return slices.Sorted(maps.Keys(p.want)) }

// String lists the steps, one a line.
func (p Plan) String() string {
	var b strings.Builder
	for _, i := range p.Copy {
		fmt.Fprintf(&b, "install %s %s\n", i.Name, i.Version)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Activate)) {
		fmt.Fprintf(&b, "activate %s %s\n", name, sets.VersionOf(p.Activate[name]))
	}
	for _, name := range p.Deactivate {
		fmt.Fprintf(&b, "deactivate %s\n", name)
	}
	if p.Refresh {
		b.WriteString("merge the active images\n")
	}
	if p.Populate {
		b.WriteString("make the users and directories they bring\n")
	}
	if p.Record {
		b.WriteString("write down that they belong to the running system\n")
	}
	for _, i := range p.Remove {
		fmt.Fprintf(&b, "remove the image of %s %s\n", i.Name, i.Version)
	}
	return b.String()
}

// Plan compares what is wanted with what is merged. It changes nothing.
func (a *Apps) Plan(ctx context.Context) (Plan, error) { return a.plan(ctx, nil) }

// plan is Plan with images that take the place of those that are active.
func (a *Apps) plan(ctx context.Context, instead sets.Set) (Plan, error) {
	active, err := a.active()
	if err != nil {
		return Plan{}, err
	}
	merged, err := a.merged(ctx, active)
	if err != nil {
		return Plan{}, err
	}
	all, err := a.options.Sets.Get()
	if err != nil {
		return Plan{}, err
	}
	p := Plan{Activate: make(map[string]string), want: make(map[string]string), merged: merged}
	populated := a.saved.Get().Populated
	for _, name := range a.wanted(active) {
		image, source, err := a.choose(name, active)
		if err != nil {
			return Plan{}, err
		}
		if other, ok := instead[name]; ok {
			image, source = sets.Path(name, other), nil
		}
		if source != nil {
			p.Copy = append(p.Copy, *source)
		}
		if active[name] != image {
			p.Activate[name] = image
		}
		p.want[name] = image
		p.Refresh = p.Refresh || merged[name] != image
		p.Populate = p.Populate || populated[name] != image
	}
	p.drop(active)
	p.settle(all, sets.Running(a.host.Files))
	return p, nil
}

// settle adds to a plan what there is to do about the sets of a machine. A system
// that does not know its version has none.
func (p *Plan) settle(all sets.Saved, running string) {
	if running == "" {
		return
	}
	p.Record = !maps.Equal(all.Systems[running].Now, p.set())
	p.Remove = all.Runs(running, p.set()).Gone
}

// set returns what is wanted, as versions.
func (p Plan) set() sets.Set {
	set := make(sets.Set)
	for name, image := range p.want {
		set[name] = sets.VersionOf(image)
	}
	return set
}

// drop adds to a plan what is active or merged and not wanted any more. What was
// merged without a stored image is not ours.
func (p *Plan) drop(active map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(active)) {
		if p.want[name] == "" {
			p.Deactivate = append(p.Deactivate, name)
			p.Refresh = true
		}
	}
	for name, image := range p.merged {
		p.Refresh = p.Refresh || image != "" && p.want[name] == ""
	}
}
