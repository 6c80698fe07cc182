package apps

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/incusos/incusos/internal/sets"
	"github.com/incusos/incusos/internal/task"
)

// The kinds of tasks of this area.
const (
	installKind = "applications.install"
	removeKind  = "applications.remove"
	restartKind = "applications.restart"
	switchKind  = "applications.switch"
	resetKind   = "applications.reset"
	restoreKind = "applications.restore"
)

// An order is the arg of a task.
type order struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"` // to switch to
}

// key is what tasks about one application have in common.
func key(name string) string { return "applications/" + name }

// Kinds returns the tasks of this area.
func (a *Apps) Kinds() []task.Kind {
	return []task.Kind{
		a.kind(task.Kind{Name: installKind, Resume: true, Cancel: true}, a.add),
		a.kind(task.Kind{Name: removeKind, Resume: true}, a.drop),
		a.kind(task.Kind{Name: restartKind}, a.restart),
		a.kind(task.Kind{Name: switchKind, Resume: true}, a.change),
		a.kind(task.Kind{Name: resetKind, Resume: true}, a.reset),
		a.kind(task.Kind{Name: restoreKind, Resume: true}, a.restore),
	}
}

// kind completes a kind whose tasks have the applications to themselves.
func (a *Apps) kind(k task.Kind, run func(context.Context, order, *task.Progress) error) task.Kind {
	k.Key = func(arg json.RawMessage) string {
		var o order
		if err := json.Unmarshal(arg, &o); err != nil {
			return k.Name
		}
		return key(o.Name)
	}
	k.Run = func(ctx context.Context, arg json.RawMessage, p *task.Progress) error {
		var o order
		if err := json.Unmarshal(arg, &o); err != nil {
			return err
		}
		if err := a.enter(ctx); err != nil {
			return err
		}
		defer a.options.Changed()
		defer a.leave()
		return run(ctx, o, p)
	}
	return k
}

// add installs an application that the machine does not have. If its image turns
// out not to be for this machine, it is as if nobody had asked.
func (a *Apps) add(ctx context.Context, o order, p *task.Progress) error {
	active, err := a.active()
	if err != nil {
		return err
	}
	image, source, err := a.choose(o.Name, active)
	if err != nil {
		return err
	}
	if source != nil {
		if err := p.Phase("copying the image"); err != nil {
			return err
		}
		if err := a.install(ctx, *source, func(_ string, done, total uint64) { p.Amount(done, total) }); err != nil {
			return err
		}
	}
	if err := p.Phase("merging"); err != nil {
		return err
	}
	names := slices.Compact(slices.Sorted(slices.Values(append(slices.Clone(a.wanted(active)), o.Name))))
	if err := a.update(func(s *Saved) { s.Installed = names }); err != nil {
		return err
	}
	if err := a.images(ctx, nil); err != nil {
		return errors.Join(err, a.unadd(context.WithoutCancel(ctx), o.Name, image, err))
	}
	return nil
}

// images brings the images, and nothing else, to what is wanted.
func (a *Apps) images(ctx context.Context, instead sets.Set) error {
	p, err := a.plan(ctx, instead)
	if err != nil {
		return err
	}
	return a.applyImages(ctx, p)
}

// unadd takes back what add did. An image that was not accepted is no use.
func (a *Apps) unadd(ctx context.Context, name, image string, why error) error {
	err := a.forget(ctx, name)
	if refused, ok := errors.AsType[*notAcceptedError](why); ok && refused.name == name {
		err = errors.Join(err, a.host.Files.Remove(image))
	}
	if err != nil {
		return fmt.Errorf("and taking that back: %w", err)
	}
	return nil
}

// forget makes an application one that is not wanted, and unmerges it.
func (a *Apps) forget(ctx context.Context, name string) error {
	active, err := a.active()
	if err != nil {
		return err
	}
	names := slices.DeleteFunc(slices.Clone(a.wanted(active)), func(n string) bool { return n == name })
	err = a.update(func(s *Saved) {
		s.Installed = names
		delete(s.Config, name)
		delete(s.Restored, name)
		delete(s.Populated, name)
	})
	if err != nil {
		return err
	}
	return a.images(ctx, nil)
}

// drop removes an application with its images.
func (a *Apps) drop(ctx context.Context, o order, p *task.Progress) error {
	if err := p.Phase("unmerging"); err != nil {
		return err
	}
	if err := a.forget(ctx, o.Name); err != nil {
		return err
	}
	if err := p.Phase("removing the images"); err != nil {
		return err
	}
	if err := a.options.Sets.Forget(o.Name); err != nil {
		return err
	}
	versions, err := a.stored(o.Name)
	if err != nil {
		return err
	}
	for _, v := range versions {
		if err := a.host.Files.Remove(sets.Path(o.Name, v)); err != nil {
			return fmt.Errorf("removing application %q %s: %w", o.Name, v, err)
		}
	}
	return nil
}

// restart stops and starts Incus itself. Its unit ends one process only
// (KillMode=process): instances go on, and Incus finds them again.
func (a *Apps) restart(ctx context.Context, _ order, p *task.Progress) error {
	if err := p.Phase("restarting"); err != nil {
		return err
	}
	if err := wait(ctx, a.options.Pause); err != nil {
		return err
	}
	return a.again(ctx)
}

func (a *Apps) again(ctx context.Context) error {
	if err := a.host.Units.Stop(ctx, incusUnit); err != nil {
		return err
	}
	return a.apply(ctx)
}

// change runs another stored version. One that is not accepted is not kept; one
// that was started is, since somebody wants it and the database of Incus only moves
// forward.
func (a *Apps) change(ctx context.Context, o order, p *task.Progress) error {
	if err := p.Phase("merging"); err != nil {
		return err
	}
	if o.Name == incusName { // which is about to be stopped
		if err := wait(ctx, a.options.Pause); err != nil {
			return err
		}
	}
	if err := a.exchange(ctx, sets.Set{o.Name: o.Version}); err != nil || o.Name != incusName {
		return err
	}
	if err := p.Phase("restarting"); err != nil {
		return err
	}
	return a.apply(ctx)
}

// previous returns the newest stored version that is older than the active one.
func previous(versions []string, image string) (string, bool) {
	n, _ := slices.BinarySearch(versions, sets.VersionOf(image))
	if n == 0 {
		return "", false
	}
	return versions[n-1], true
}
