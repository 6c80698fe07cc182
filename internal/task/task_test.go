package task_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/task"
)

// A shop has kinds of tasks that do what their arg says.
type shop struct {
	mu     sync.Mutex
	orders map[string]chan error // by name: how a task ends that was told to wait
	runs   []string              // "name" or "name after PHASE", as they began
}

func newShop() *shop { return &shop{orders: make(map[string]chan error)} }

// An order is the arg of a task.
type order struct{ Name, Phase string }

func (s *shop) kinds() []task.Kind {
	key := func(arg json.RawMessage) string { return "shop/" + read(arg).Name }
	return []task.Kind{
		{Name: "again", Key: key, Resume: true, Cancel: true, Run: s.run},
		{Name: "once", Key: key, Cancel: true, Run: s.run},
		{Name: "stubborn", Run: s.run},
	}
}

func read(arg json.RawMessage) (o order) {
	if err := json.Unmarshal(arg, &o); err != nil {
		panic(err)
	}
	return o
}

// run begins a phase and waits until the test says how it ends.
func (s *shop) run(ctx context.Context, arg json.RawMessage, p *task.Progress) error {
	o := read(arg)
	note := o.Name
	if r := p.Resumed(); r != "" {
		note += " after " + r
	}
	s.mu.Lock()
	s.runs = append(s.runs, note)
	end := s.endOf(o.Name)
	s.mu.Unlock()
	if o.Phase != "" {
		if err := p.Phase(o.Phase); err != nil {
			return err
		}
		p.Amount(3, 7)
	}
	select {
	case err := <-end:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// endOf is called with mu held.
func (s *shop) endOf(name string) chan error {
	if s.orders[name] == nil {
		s.orders[name] = make(chan error, 1)
	}
	return s.orders[name]
}

// finish has the task of that name end.
func (s *shop) finish(name string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.endOf(name) <- err:
	default:
	}
}

func (s *shop) ran() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.runs)
}

func open(t testing.TB, files sys.Dir, s *shop) *task.Manager {
	t.Helper()
	m, err := task.Open(files, nil, s.kinds()...)
	must(t, err)
	return m
}

func TestTaskRunsToItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files, s := sys.NewDir(t.TempDir()), newShop()
		var shown []string
		m, err := task.Open(files, func(t api.Task) { shown = append(shown, fmt.Sprint(t.Status, " ", t.Phase, " ", t.Done, "/", t.Total)) }, s.kinds()...)
		must(t, err)
		started, err := m.Start("again", "cook soup", order{"soup", "stirring"})
		must(t, err)
		synctest.Wait()
		got, err := m.Get(started.ID)
		must(t, err)
		want := api.Task{ID: "1", Kind: "again", Description: "cook soup", Status: api.TaskRunning, Phase: "stirring", Done: 3, Total: 7, Started: started.Started, CanCancel: true}
		if got != want {
			t.Errorf("while it runs:\n%+v\nwant:\n%+v", got, want)
		}
		time.Sleep(time.Minute)
		s.finish("soup", nil)
		got, err = m.Wait(t.Context(), started.ID)
		must(t, err)
		if got.Status != api.TaskDone || got.Ended == nil || got.Ended.Sub(got.Started) != time.Minute || got.CanCancel {
			t.Errorf("at its end: %+v, want it done after a minute", got)
		}
		if want := []string{"running stirring 0/0", "running stirring 3/7", "done stirring 3/7"}; !slices.Equal(shown, want) {
			t.Errorf("shown %q, want %q", shown, want)
		}
		must(t, m.Close(t.Context()))
	})
}

func TestFailureIsKept(t *testing.T) {
	files, s := sys.NewDir(t.TempDir()), newShop()
	m := open(t, files, s)
	started, err := m.Start("once", "cook soup", order{Name: "soup"})
	must(t, err)
	s.finish("soup", errors.New("the pot is cracked"))
	_, err = m.Wait(t.Context(), started.ID)
	must(t, err)
	must(t, m.Close(t.Context()))
	m = open(t, files, s)
	if got, _ := m.Get(started.ID); got.Status != api.TaskFailed || got.Error != "the pot is cracked" {
		t.Errorf("after a restart: %+v, want why it failed", got)
	}
}

func TestOneTaskForEachKey(t *testing.T) {
	files, s := sys.NewDir(t.TempDir()), newShop()
	m := open(t, files, s)
	defer m.Close(t.Context())
	soup, err := m.Start("again", "cook soup", order{Name: "soup"})
	must(t, err)
	_, err = m.Start("once", "cook it once more", order{Name: "soup"})
	if want := "task 1 is at work on the same: cook soup; wait until it has ended or cancel it"; !is(err, api.Conflict) || err.Error() != want {
		t.Errorf("a second task on the same: %v, want a conflict that says %q", err, want)
	}
	rice, err := m.Start("again", "cook rice", order{Name: "rice"})
	must(t, err)
	s.finish("soup", nil)
	_, err = m.Wait(t.Context(), soup.ID)
	must(t, err)
	_, err = m.Start("again", "cook soup", order{Name: "soup"})
	must(t, err)
	var ids []string
	for _, l := range m.List() {
		ids = append(ids, l.ID)
	}
	if want := []string{"3", rice.ID, soup.ID}; !slices.Equal(ids, want) {
		t.Errorf("listed %q, want %q", ids, want)
	}
}

func TestCancel(t *testing.T) {
	files, s := sys.NewDir(t.TempDir()), newShop()
	m := open(t, files, s)
	soup, err := m.Start("again", "cook soup", order{Name: "soup"})
	must(t, err)
	must(t, m.Cancel(soup.ID))
	if got, _ := m.Wait(t.Context(), soup.ID); got.Status != api.TaskCancelled || got.Error != "" {
		t.Errorf("after Cancel: %+v, want it cancelled", got)
	}
	if err := m.Cancel(soup.ID); !is(err, api.Conflict) {
		t.Errorf("Cancel of what has ended: %v, want a conflict", err)
	}
	if err := m.Cancel("7"); !is(err, api.NotFound) {
		t.Errorf("Cancel of nothing: %v, want not found", err)
	}
	bread, err := m.Start("stubborn", "bake bread", order{Name: "bread"})
	must(t, err)
	if err := m.Cancel(bread.ID); !is(err, api.Conflict) || !strings.Contains(err.Error(), "cannot be stopped half way") {
		t.Errorf("Cancel of what cannot be: %v, want a conflict", err)
	}
	must(t, m.Close(t.Context()))
	if _, err := m.Start("once", "eat", order{Name: "soup"}); !is(err, api.Unavailable) {
		t.Errorf("Start after Close: %v, want unavailable", err)
	}
}

func TestRestartOfTheMachine(t *testing.T) {
	files, s := sys.NewDir(t.TempDir()), newShop()
	m := open(t, files, s)
	for _, kind := range []string{"again", "once"} {
		_, err := m.Start(kind, kind, order{kind, "stirring"})
		must(t, err)
	}
	for len(s.ran()) < 2 { // both have begun
		time.Sleep(time.Millisecond)
	}
	must(t, m.Close(t.Context()))
	m = open(t, files, s)
	once, err := m.Get("2")
	must(t, err)
	if once.Status != api.TaskInterrupted || !strings.Contains(once.Error, "start it again") {
		t.Errorf("what may not be resumed: %+v, want it interrupted", once)
	}
	s.finish("again", nil)
	again, err := m.Wait(t.Context(), "1")
	must(t, err)
	if again.Status != api.TaskDone {
		t.Errorf("what may be resumed: %+v, want it done", again)
	}
	must(t, m.Close(t.Context()))
	if ran := s.ran(); !slices.Contains(ran, "again after stirring") {
		t.Errorf("ran %q, want it to know the phase it was cut in", ran)
	}
}

// TestEachWriteIsCutOnce cuts the disk off at each write, as a power cut does,
// and starts again on what is there.
func TestEachWriteIsCutOnce(t *testing.T) {
	for at := 1; ; at++ {
		root := t.TempDir()
		s, count := newShop(), 0
		files := sys.NewDir(root).WithFault(func(string, string) error {
			if count++; count >= at {
				return errors.New("cut")
			}
			return nil
		})
		m := open(t, files, s)
		s.finish("soup", nil)
		started, err := m.Start("again", "cook soup", order{"soup", "stirring"})
		if err == nil {
			_, waitErr := m.Wait(t.Context(), started.ID)
			must(t, waitErr)
		}
		must(t, m.Close(t.Context()))
		over := count < at

		s.finish("soup", nil)
		m = open(t, sys.NewDir(root), s)
		switch list := m.List(); {
		case err != nil && len(list) != 0:
			t.Errorf("write %d was cut: Start failed, and yet there is %+v", at, list)
		case err == nil:
			if end, err := m.Wait(t.Context(), started.ID); err != nil || end.Status != api.TaskDone {
				t.Errorf("write %d was cut: ended as %+v, %v; want it done", at, end, err)
			}
		}
		must(t, m.Close(t.Context()))
		if over {
			return
		}
	}
}

func TestNewestFiftyAreKept(t *testing.T) {
	files, s := sys.NewDir(t.TempDir()), newShop()
	m := open(t, files, s)
	for range 53 {
		s.finish("soup", nil)
		started, err := m.Start("once", "cook soup", order{Name: "soup"})
		must(t, err)
		_, err = m.Wait(t.Context(), started.ID)
		must(t, err)
	}
	must(t, m.Close(t.Context()))
	m = open(t, files, s)
	if list := m.List(); len(list) != 50 || list[0].ID != "53" || list[49].ID != "4" {
		t.Errorf("%d tasks are kept, from %s on; want 50 from 53 on", len(list), list[0].ID)
	}
}

func TestDamagedFileIsReportedAndLeftAlone(t *testing.T) {
	files, s := sys.NewDir(t.TempDir()), newShop()
	must(t, files.WriteFile("/var/lib/incus-os/tasks/5.json", []byte("{"), 0o600))
	m, err := task.Open(files, nil, s.kinds()...)
	if err == nil || !strings.Contains(err.Error(), "reading /var/lib/incus-os/tasks/5.json: ") {
		t.Errorf("Open() = %v, want it to name the file", err)
	}
	defer m.Close(t.Context())
	if started, err := m.Start("once", "cook soup", order{Name: "soup"}); err != nil || started.ID != "6" {
		t.Errorf("Start() = %+v, %v; want the number after that of the damaged file", started, err)
	}
	if b, err := files.ReadFile("/var/lib/incus-os/tasks/5.json"); err != nil || string(b) != "{" {
		t.Errorf("the file is now %q, %v", b, err)
	}
}

// TestInterleavings starts, ends, cancels and cuts tasks at random, and expects
// what it was promised: no task is lost or runs against a promise, none is
// resumed that was cancelled or ended, and no two have the same key.
func TestInterleavings(t *testing.T) {
	end := time.Now().Add(10 * time.Second) // each step is flushed to disk, and some disks are slow
	rapid.Check(t, func(rt *rapid.T) {
		if time.Now().After(end) {
			return
		}
		w := &world{t: t, root: t.TempDir(), shop: newShop(), tasks: make(map[string]*expected)}
		w.m = open(t, w.disk(), w.shop)
		rt.Repeat(map[string]func(*rapid.T){
			"start": w.start, "finish": w.finish, "cancel": w.cancel, "restart": w.restart, "": w.check,
		})
		if err := w.m.Close(t.Context()); err != nil {
			rt.Fatal(err)
		}
	})
}

// A world is a machine, and what its tasks should be.
type world struct {
	t     *testing.T
	root  string
	off   atomic.Bool // the power
	shop  *shop
	m     *task.Manager
	tasks map[string]*expected // by id
}

type expected struct {
	kind, name string
	status     api.TaskStatus
}

func (w *world) disk() sys.Dir {
	return sys.NewDir(w.root).WithFault(func(string, string) error {
		if w.off.Load() {
			return errors.New("the power is off")
		}
		return nil
	})
}

func (w *world) running() (ids []string) {
	for id, e := range w.tasks {
		if e.status == api.TaskRunning {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// draw picks a task that runs.
func (w *world) draw(rt *rapid.T) string {
	ids := w.running()
	if len(ids) == 0 {
		rt.Skip()
	}
	return rapid.SampledFrom(ids).Draw(rt, "id")
}

func (w *world) start(rt *rapid.T) {
	kind := rapid.SampledFrom([]string{"again", "once"}).Draw(rt, "kind")
	name := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "name")
	busy := slices.ContainsFunc(w.running(), func(id string) bool { return w.tasks[id].name == name })
	started, err := w.m.Start(kind, name, order{name, "stirring"})
	if busy != is(err, api.Conflict) {
		rt.Fatalf("Start of %s: %v; busy is %t", name, err, busy)
	}
	if err == nil {
		w.tasks[started.ID] = &expected{kind, name, api.TaskRunning}
	}
}

func (w *world) finish(rt *rapid.T) {
	id := w.draw(rt)
	w.shop.finish(w.tasks[id].name, nil)
	w.ends(rt, id, api.TaskDone)
}

func (w *world) cancel(rt *rapid.T) {
	id := w.draw(rt)
	if err := w.m.Cancel(id); err != nil {
		rt.Fatal(err)
	}
	w.ends(rt, id, api.TaskCancelled)
}

func (w *world) ends(rt *rapid.T, id string, status api.TaskStatus) {
	if got, err := w.m.Wait(w.t.Context(), id); err != nil || got.Status != status {
		rt.Fatalf("task %s ended as %+v, %v; want it %s", id, got, err, status)
	}
	w.tasks[id].status = status
}

func (w *world) restart(rt *rapid.T) {
	w.off.Store(rapid.Bool().Draw(rt, "cut"))
	if err := w.m.Close(w.t.Context()); err != nil {
		rt.Fatal(err)
	}
	w.off.Store(false)
	w.m = open(w.t, w.disk(), w.shop)
	for _, id := range w.running() {
		if w.tasks[id].kind == "once" {
			w.tasks[id].status = api.TaskInterrupted
		}
	}
}

func (w *world) check(rt *rapid.T) {
	list := w.m.List()
	if want := len(w.running()) + min(50, len(w.tasks)-len(w.running())); len(list) != want {
		rt.Fatalf("%d tasks, want %d", len(list), want)
	}
	for _, l := range list {
		if e := w.tasks[l.ID]; e == nil || e.status != l.Status {
			rt.Fatalf("task %+v, want %+v", l, e)
		}
	}
}

func is(err error, kind api.Kind) bool {
	e, ok := errors.AsType[*api.Error](err)
	return ok && e.Kind == kind
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
