package apps

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/incusos/incusos/internal/sets"
)

// Adopt has the running system go on with images that an update has stored. If one
// is not accepted, or Incus does not come up on them, all is as it was before, and
// they are not taken again by themselves. Instances go on.
func (a *Apps) Adopt(ctx context.Context, next sets.Set) error {
	if err := a.enter(ctx); err != nil {
		return err
	}
	defer a.options.Changed()
	defer a.leave()
	active, err := sets.Active(a.host.Files)
	if err != nil {
		return err
	}
	before := maps.Clone(next)
	maps.DeleteFunc(before, func(name, _ string) bool { return active[name] == "" })
	for name := range before {
		before[name] = active[name]
	}
	if err = a.exchange(ctx, next); err == nil {
		err = a.comesUp(ctx, next, before)
	} else if _, refused := errors.AsType[*notAcceptedError](err); !refused {
		return err // such as a full disk: worth another try
	}
	if err == nil || ctx.Err() != nil { // when the daemon ends, nobody knows how it would have fared
		return err
	}
	return errors.Join(err, a.options.Sets.Refuse(sets.Running(a.host.Files), next))
}

// comesUp starts Incus, and goes back to the images before if it does not answer.
// One that answers has moved its database forward, and stays.
func (a *Apps) comesUp(ctx context.Context, next, before sets.Set) error {
	if next[incusName] == "" {
		return nil
	}
	err := a.startIncus(ctx)
	if err == nil || ctx.Err() != nil {
		return err
	}
	slog.WarnContext(ctx, "Incus does not come up on its new image; going back", "version", next[incusName], "err", err)
	back := a.images(ctx, before)
	if back == nil {
		back = a.startIncus(ctx)
	}
	return ended(err, back, before)
}

// exchange merges other images, or those that were active if one is not accepted.
func (a *Apps) exchange(ctx context.Context, set sets.Set) error {
	active, err := sets.Active(a.host.Files)
	if err != nil {
		return err
	}
	if err = a.images(ctx, set); err == nil {
		return nil
	}
	before := make(sets.Set)
	for name := range set {
		if active[name] != "" {
			before[name] = active[name]
		}
	}
	return ended(err, a.images(context.WithoutCancel(ctx), before), before)
}

// ended says how it ended to go back after err.
func ended(err, back error, before sets.Set) error {
	var versions []string
	for _, name := range slices.Sorted(maps.Keys(before)) {
		versions = append(versions, before[name])
	}
	to := strings.Join(slices.Compact(versions), ", ")
	if back != nil {
		return errors.Join(err, fmt.Errorf("and going back to version %s: %w", to, back))
	}
	return fmt.Errorf("%w; it is back on version %s", err, to)
}
