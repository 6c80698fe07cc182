package osctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/client"
)

// often is how often a machine is asked how its tasks are. It has no way to say
// so by itself.
const often = 500 * time.Millisecond

// Watch shows how tasks go on until they have ended: the one with the id, or all
// that run if it is "". On a terminal it draws a bar for each, elsewhere it
// prints a line when something is new. One that did not end well is an error.
func Watch(ctx context.Context, c *client.Client, id string, terminal bool, out io.Writer) error {
	list := func(ctx context.Context) ([]api.Task, error) { return c.Tasks(ctx) }
	if id != "" {
		list = func(ctx context.Context) ([]api.Task, error) {
			t, err := c.Task(ctx, id)
			return []api.Task{t}, err
		}
	}
	w := newWatcher(list, terminal, out)
	w.pick = func(t api.Task) bool { return running(t) || t.ID == id }
	return w.run(ctx)
}

// Follow does what starts tasks and shows how these go on until they have ended,
// as Watch does. What was done when the machine answered has none, which is fine.
func Follow(ctx context.Context, c *client.Client, terminal bool, out io.Writer, do func() error) error {
	before, err := c.Tasks(ctx)
	if err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	w := newWatcher(c.Tasks, terminal, out)
	w.pick = func(t api.Task) bool {
		return !slices.ContainsFunc(before, func(old api.Task) bool { return old.ID == t.ID })
	}
	return w.run(ctx)
}

func newWatcher(list func(context.Context) ([]api.Task, error), terminal bool, out io.Writer) *watcher {
	w := &watcher{list: list, out: out}
	w.show = w.print
	if terminal {
		w.show = w.draw
	}
	return w
}

// A watcher follows tasks.
type watcher struct {
	list func(context.Context) ([]api.Task, error)
	out  io.Writer
	pick func(api.Task) bool // whether one is watched from now on
	show func([]api.Task)

	watched []string          // ids, in the order they are shown
	said    map[string]string // what was printed of each
	drawn   int               // lines on the screen
}

func (w *watcher) run(ctx context.Context) error {
	tick := time.NewTicker(often)
	defer tick.Stop()
	for {
		all, err := w.list(ctx)
		if err != nil {
			return err
		}
		tasks := w.choose(all)
		w.show(tasks)
		if !slices.ContainsFunc(tasks, running) {
			return verdict(tasks)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

func running(t api.Task) bool { return t.Status == api.TaskRunning }

// choose returns the tasks that are watched, oldest first: those that are picked,
// or were when they were first seen.
func (w *watcher) choose(all []api.Task) []api.Task {
	var out []api.Task
	for _, t := range slices.Backward(all) {
		known := slices.Contains(w.watched, t.ID)
		if !known && w.pick(t) {
			w.watched = append(w.watched, t.ID)
			known = true
		}
		if known {
			out = append(out, t)
		}
	}
	return out
}

// verdict is an error if a task did not end well.
func verdict(tasks []api.Task) error {
	var all []error
	for _, t := range tasks {
		switch t.Status {
		case api.TaskDone:
		case api.TaskFailed:
			all = append(all, fmt.Errorf("%s: %s", t.Description, t.Error))
		default:
			all = append(all, fmt.Errorf("%s: %s", t.Description, t.Status))
		}
	}
	return errors.Join(all...)
}

// print prints a line for each task that is at something else than before.
func (w *watcher) print(tasks []api.Task) {
	if w.said == nil {
		w.said = make(map[string]string)
	}
	for _, t := range tasks {
		line := visible(t.Description + ": " + at(t))
		if w.said[t.ID] != line {
			w.said[t.ID] = line
			fmt.Fprintln(w.out, line)
		}
	}
}

// at is the phase of a task, or how it ended.
func at(t api.Task) string {
	if running(t) {
		return t.Phase
	}
	return strings.TrimSuffix(string(t.Status)+": "+t.Error, ": ")
}

// draw draws the bars over those of before.
func (w *watcher) draw(tasks []api.Task) {
	var b strings.Builder
	if w.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", w.drawn)
	}
	for _, t := range tasks {
		b.WriteString("\r\x1b[K" + bar(t) + "\n")
	}
	w.drawn = len(tasks)
	_, _ = io.WriteString(w.out, b.String()) // a terminal that is gone is no reason to stop watching
}

// width of the bars, in characters; with the rest it fits into 80 columns.
const width = 24

func bar(t api.Task) string {
	name := visible(t.Description)
	if r := []rune(name); len(r) > 28 {
		name = string(r[:27]) + "…"
	}
	state := visible(at(t))
	full, figure := 0, "    "
	switch {
	case t.Status == api.TaskDone:
		full, figure = width, "100%"
	case t.Total > 0:
		full = int(float64(width) * float64(min(t.Done, t.Total)) / float64(t.Total))
		figure = fmt.Sprintf("%4s", percent(t))
	}
	if r := []rune(state); len(r) > 18 {
		state = string(r[:17]) + "…"
	}
	return fmt.Sprintf("%-28s [%s%s] %s %s", name, strings.Repeat("#", full), strings.Repeat(".", width-full), figure, state)
}
