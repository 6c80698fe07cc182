package service

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

// A setup is what a service consists of on the machine, besides its connections.
type setup struct {
	key     string          // in the ledger: with which files the units were started
	modules []string        // of the kernel
	files   map[string]file // by name
	owned   []string        // patterns of the names of files that are this setup's alone
	units   []string        // in the order they start
	extra   string          // what else the units have to be started anew for
	reload  bool            // systemd has to read unit files again
	forget  []string        // entries of the ledger that do not outlive the units
	risk    string          // what stopping the units costs
}

// A file is one to be written.
type file struct {
	content string
	perm    fs.FileMode
	loose   bool // no unit has to be started anew for it
}

// raise returns the steps after which s is in place.
func (m machine) raise(ctx context.Context, s setup) ([]step, error) {
	steps := m.load(s)
	writes, err := m.write(s.files)
	if err != nil {
		return nil, err
	}
	stale, err := m.stale(s)
	if err != nil {
		return nil, err
	}
	units, err := m.start(ctx, s)
	return slices.Concat(steps, writes, stale, units), err
}

// lower returns the steps after which nothing of s is left but modules.
func (m machine) lower(ctx context.Context, s setup) ([]step, error) {
	stop, err := m.stop(ctx, s)
	if err != nil {
		return nil, err
	}
	s.files = nil
	stale, err := m.stale(s)
	steps := append(stop, stale...)
	if l := m.ledger(); l.get(s.key) != "" {
		steps = append(steps, doing("forget", "what "+m.name+" was started with", "", func(context.Context) error {
			return l.forget(append(s.forget, s.key)...)
		}))
	}
	return steps, err
}

func (m machine) load(s setup) []step {
	var steps []step
	for _, module := range s.modules {
		// sysfs has underscores where modprobe takes both.
		if m.Files.Exists("/sys/module/" + strings.ReplaceAll(module, "-", "_")) {
			continue
		}
		steps = append(steps, doing("load", "kernel module "+module, "", func(ctx context.Context) error {
			_, err := m.run(ctx, "modprobe", module)
			return err
		}))
	}
	return steps
}

// write returns the steps that write what differs.
func (m machine) write(files map[string]file) ([]step, error) {
	var steps []step
	for _, name := range slices.Sorted(maps.Keys(files)) {
		f := files[name]
		now, there, err := m.read(name)
		if err != nil {
			return nil, err
		}
		if there && now == f.content {
			continue
		}
		steps = append(steps, doing("write", name, "", func(context.Context) error {
			return m.Files.WriteFile(name, []byte(f.content), f.perm)
		}))
	}
	return steps, nil
}

// stale returns the steps that take back files which were ours. Those of which the
// image has a version of its own become that again.
func (m machine) stale(s setup) ([]step, error) {
	var steps []step
	for _, pattern := range s.owned {
		for _, entry := range m.list(path.Dir(pattern)) {
			name := path.Join(path.Dir(pattern), entry)
			match, err := path.Match(pattern, name)
			if err != nil {
				return nil, err
			}
			if _, wanted := s.files[name]; !match || wanted {
				continue
			}
			back, err := m.back(name)
			if err != nil {
				return nil, err
			}
			steps = append(steps, back...)
		}
	}
	return steps, nil
}

func (m machine) back(name string) ([]step, error) {
	theirs, there, err := m.read(factory + name)
	if err != nil {
		return nil, err
	}
	if there {
		return m.write(map[string]file{name: {content: theirs, perm: 0o644}})
	}
	return []step{doing("remove", name, "", func(context.Context) error { return m.Files.Remove(name) })}, nil
}

// start returns the steps that bring the units up with the files of s. Units that
// run with other ones are stopped first, the last one started before all.
func (m machine) start(ctx context.Context, s setup) ([]step, error) {
	if len(s.units) == 0 {
		return nil, nil
	}
	l, now := m.ledger(), s.digest()
	var steps []step
	changed := l.get(s.key) != now
	if changed {
		stop, err := m.stop(ctx, s)
		if err != nil {
			return nil, err
		}
		steps = stop
	}
	if changed && s.reload {
		steps = append(steps, doing("reload", "unit files", "", m.Units.Reload))
	}
	for _, unit := range s.units {
		up, err := m.up(ctx, unit)
		if err != nil {
			return nil, err
		}
		if changed || !up {
			steps = append(steps, doing("start", unit, "", func(ctx context.Context) error { return m.begin(ctx, l, s, unit) }))
		}
	}
	if changed {
		last := &steps[len(steps)-1]
		start := last.do
		last.do = func(ctx context.Context) error {
			if err := start(ctx); err != nil {
				return err
			}
			return l.put(s.key, now)
		}
	}
	return steps, nil
}

func (m machine) begin(ctx context.Context, l ledger, s setup, unit string) error {
	if err := l.forget(s.forget...); err != nil {
		return err
	}
	return m.Units.Start(ctx, unit)
}

// stop returns the steps that bring the units down that are up.
func (m machine) stop(ctx context.Context, s setup) ([]step, error) {
	var steps []step
	for _, unit := range slices.Backward(s.units) {
		up, err := m.up(ctx, unit)
		if err != nil {
			return nil, err
		}
		if up {
			steps = append(steps, doing("stop", unit, s.risk, func(ctx context.Context) error { return m.Units.Stop(ctx, unit) }))
		}
	}
	return steps, nil
}

// up reports whether a unit runs, or is about to.
func (m machine) up(ctx context.Context, unit string) (bool, error) {
	state, err := m.Units.State(ctx, unit)
	return state == "active" || state == "activating" || state == "reloading", err
}

// digest sums up what the units are started with.
func (s setup) digest() string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(s.files)) {
		if !s.files[name].loose {
			all = append(all, name, s.files[name].content)
		}
	}
	return digest(append(all, s.extra)...)
}

// digest sums up texts. It stands for secrets too: what it is made of cannot be
// found out from it, but by guessing.
func digest(texts ...string) string {
	h := sha256.New()
	for _, t := range texts {
		fmt.Fprintf(h, "%d %s\n", len(t), t)
	}
	return hex.EncodeToString(h.Sum(nil))
}
