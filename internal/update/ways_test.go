package update_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/incusos/incusos/internal/fetch"
	"github.com/incusos/incusos/internal/publish"
	"github.com/incusos/incusos/internal/repo"
	"github.com/incusos/incusos/internal/update"
)

// A gauge keeps what a meter is told.
type gauge struct {
	phases      []string
	done, total uint64
	refuse      error
}

func (g *gauge) Phase(name string) error {
	g.phases = append(g.phases, name)
	return g.refuse
}

func (g *gauge) Amount(done, total uint64) { g.done, g.total = done, total }

// updated makes a bench whose machine was updated and runs the new version.
func updated(t *testing.T) (*bench, *update.Settings) {
	t.Helper()
	b := newBench(t)
	_, whole := b.updater(from) // the tests of staging need less of it
	whole.Release, whole.Disk.Other, whole.Disk.Running = b.first, whole.Disk.Running, whole.Disk.Other
	_, err := whole.Slot(t.Context())
	must(t, err)
	kernel, err := whole.Kernel(t.Context())
	must(t, err)
	must(t, b.esp().Replace(from, kernel))
	s := &update.Settings{Channel: "stable", Server: b.address}
	old, _ := b.agent(from, s, nil)
	if err := old.Check(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	next, _ := b.agent(to, s, nil)
	if err := next.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b, s
}

// entries returns the entries of a version and of all others.
func (b *bench) entries(version string) (one update.Entry, others []update.Entry) {
	b.t.Helper()
	all, err := b.esp().Entries()
	if err != nil {
		b.t.Fatal(err)
	}
	for _, e := range all {
		if e.Version == version {
			one = e
		} else {
			others = append(others, e)
		}
	}
	return one, others
}

func TestProgressIsTold(t *testing.T) {
	b := newBench(t)
	a, _ := b.agent(from, &update.Settings{Channel: "stable", Server: b.address}, nil)
	g := &gauge{}
	if err := a.Check(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	if want := []string{"writing the system", "storing application incus", "fetching the kernel"}; !slices.Equal(g.phases, want) {
		t.Errorf("phases were %q, want %q", g.phases, want)
	}
	if g.done != g.total || g.total == 0 {
		t.Errorf("in the end %d of %d bytes were fetched", g.done, g.total)
	}
	if s := a.Status(); s.Done != 0 || s.Total != 0 {
		t.Errorf("afterwards the status is %+v", s)
	}
	stop := errors.New("the disk is full")
	b = newBench(t)
	a, _ = b.agent(from, &update.Settings{Channel: "stable", Server: b.address}, nil)
	if err := a.Check(t.Context(), &gauge{refuse: stop}); !errors.Is(err, stop) {
		t.Errorf("a task that must stop said %v", err)
	}
}

// By itself the agent stages as a task, which can be cancelled.
func TestStagingIsATask(t *testing.T) {
	b := newBench(t)
	a, _ := b.agent(from, &update.Settings{Channel: "stable", Server: b.address, Every: time.Hour}, nil)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	cancelled := errors.New("somebody cancelled it")
	var what string
	a.AsTask = func(_ context.Context, description string, _ func(context.Context, update.Meter) error) error {
		what = description
		stop()
		return cancelled
	}
	a.Medium = func() (string, func(), error) { return b.dir, func() {}, nil } // looked at first
	a.Run(ctx)
	if what != "update to version "+to || a.Status().Text != "Failed to update: "+cancelled.Error() {
		t.Errorf("it did %q, and says %q", what, a.Status().Text)
	}
}

func TestGoBack(t *testing.T) {
	b, s := updated(t)
	next, restarts := b.agent(to, s, nil)
	if err := next.GoBack(t.Context(), true); err != nil || *restarts != 1 {
		t.Fatalf("%d restarts (%v)", *restarts, err)
	}
	if left, others := b.entries(to); !left.Exhausted() || len(others) != 1 || others[0] != (update.Entry{Version: from}) {
		t.Errorf("the entries are %+v and %+v", left, others)
	}
	// Should the daemon start again before the machine does, that holds.
	again, _ := b.agent(to, s, nil)
	if err := again.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left, _ := b.entries(to); !left.Exhausted() {
		t.Errorf("the version that was left is %+v", left)
	}
	old, _ := b.agent(from, s, nil)
	if err := old.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := old.Check(t.Context(), nil); err != nil || old.Status().Text != "Version "+to+" was tried and did not work; it is tried again when asked for" {
		t.Errorf("the old version says %+v (%v)", old.Status(), err)
	}
	if err := old.GoBack(t.Context(), false); !errors.Is(err, update.ErrNothing) {
		t.Errorf("going back once more: %v", err)
	}

	// Forgiven, it is taken again, and found good.
	if err := old.Forgive("202601010000"); !errors.Is(err, update.ErrNotFailed) {
		t.Errorf("forgiving what never failed: %v", err)
	}
	if err := old.Forgive(to); err != nil || old.Status().Problem != "" {
		t.Errorf("%+v (%v)", old.Status(), err)
	}
	if err := old.Check(t.Context(), nil); err != nil || !old.Status().NeedsReboot {
		t.Errorf("%+v (%v)", old.Status(), err)
	}
	next, _ = b.agent(to, s, nil)
	if err := next.Settle(t.Context()); err != nil || next.Status().Text != "Version "+to+" was found good" {
		t.Errorf("%+v (%v)", next.Status(), err)
	}
}

// A version that would ask for a recovery key is not gone back to.
func TestGoingBackUnlocks(t *testing.T) {
	b, s := updated(t)
	a, restarts := b.agent(to, s, nil)
	why := errors.New("it is none that root is bound to")
	inner := a.Updater
	a.Updater = func() (*update.Updater, error) {
		u, err := inner()
		u.Unlocks = func(version string) error {
			if version != from {
				t.Errorf("asked about version %s, want %s", version, from)
			}
			return why
		}
		return u, err
	}
	before, _ := b.entries(to)
	if err := a.GoBack(t.Context(), true); !errors.Is(err, why) || *restarts != 0 {
		t.Errorf("%d restarts (%v)", *restarts, err)
	}
	if after, _ := b.entries(to); after != before {
		t.Errorf("the running version's entry is %+v, want %+v", after, before)
	}
	why = nil
	if err := a.GoBack(t.Context(), true); err != nil || *restarts != 1 {
		t.Errorf("%d restarts (%v)", *restarts, err)
	}
}

func TestNothingToGoBackTo(t *testing.T) {
	b := newBench(t)
	a, restarts := b.agent(from, &update.Settings{Channel: "stable", Server: b.address}, nil)
	for _, staged := range []bool{false, true} {
		if err := a.GoBack(t.Context(), true); !errors.Is(err, update.ErrNothing) || *restarts != 0 {
			t.Errorf("staged %t: %v, %d restarts", staged, err, *restarts)
		}
		if err := a.Check(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
	}
}

// What the failed starts wrote is kept with the reason, and only of the last one.
func TestLogOfFailedStartsIsKept(t *testing.T) {
	b := newBench(t)
	s := &update.Settings{Channel: "stable", Server: b.address}
	old, _ := b.agent(from, s, nil)
	old.Boot = func() string { return "the start that staged it" }
	if err := old.Check(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	records := update.File{Files: b.Host.Files}
	r, err := records.Load()
	if err != nil || r.StagedBy != "the start that staged it" {
		t.Fatalf("staged by %q (%v)", r.StagedBy, err)
	}
	r.Failed = map[string]update.Failure{"202501010000": {Reason: "long ago", Log: []string{"a line"}}}
	if err := records.Save(r); err != nil {
		t.Fatal(err)
	}
	b.exhaust()
	old.Log = func(_ context.Context, since string) []string { return []string{"since " + since, "kernel panic"} }
	if err := old.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r, err = records.Load(); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(r.Failed[to].Log, "; "); got != "since the start that staged it; kernel panic" {
		t.Errorf("kept is %q", got)
	}
	if len(r.Failed["202501010000"].Log) != 0 {
		t.Error("the log of an earlier failure stays for ever")
	}
	if want := "version " + to + " did not work: it never came as far as to say what was wrong"; old.Status().Problem != want {
		t.Errorf("the problem is %q, want %q", old.Status().Problem, want)
	}
}

func TestPause(t *testing.T) {
	b := newBench(t)
	s := &update.Settings{Channel: "stable", Server: b.address, Paused: true}
	a, _ := b.agent(from, s, nil)
	if err := a.Check(t.Context(), nil); !errors.Is(err, update.ErrPaused) {
		t.Errorf("while paused: %v", err)
	}
	s.Paused = false
	var paused atomic.Bool // it is asked for while somebody changes it
	a.Settings = func() (update.Settings, error) {
		now := *s
		now.Paused = paused.Load()
		return now, nil
	}
	inner := a.Contents
	a.Contents = func(server *fetch.Server, r repo.Release, amount func(done, total uint64)) (update.Contents, error) {
		c, err := inner(server, r, amount)
		return pausing{c, &paused}, err
	}
	if err := a.Check(t.Context(), nil); !errors.Is(err, update.ErrPaused) {
		t.Errorf("paused on the way: %v", err)
	}
	paused.Store(false)
	a.Contents = inner
	if err := a.Check(t.Context(), nil); err != nil || !a.Status().NeedsReboot {
		t.Errorf("resumed: %+v (%v)", a.Status(), err)
	}
}

// pausing is a release during which somebody pauses updates.
type pausing struct {
	update.Contents
	paused *atomic.Bool
}

func (p pausing) Kernel(ctx context.Context) ([]byte, error) {
	p.paused.Store(true)
	<-ctx.Done()
	return nil, ctx.Err()
}

// What is urgent waits for no window, and restarts in none; the rest does wait.
func TestUrgentReleasesDoNotWait(t *testing.T) {
	now := time.Now()
	later := update.Window{StartHour: (now.Hour() + 3) % 24, EndHour: (now.Hour() + 4) % 24}
	tests := map[string]struct {
		severity, from string
		taken          bool
	}{
		"all wait":           {"critical", "", false},
		"it is urgent":       {"critical", "high", true},
		"it is just urgent":  {"high", "high", true},
		"it is not urgent":   {"medium", "high", false},
		"it is of no hurry":  {"none", "low", false},
		"it is a wrong word": {"critical", "urgent", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.change(func(a *repo.Author) error { return publish.SetSeverity(a, to, tt.severity) })
			a, restarts := b.agent(from, &update.Settings{Channel: "stable", Server: b.address, Windows: []update.Window{later}, UrgentFrom: tt.from, AutoReboot: true}, nil)
			if err := a.Look(t.Context()); err != nil {
				t.Fatal(err)
			}
			text := a.Status().Text
			if a.Status().NeedsReboot != tt.taken || (*restarts == 1) != tt.taken || !tt.taken && text != "Version "+to+" waits for a maintenance window" {
				t.Errorf("it says %q, and restarted %d times", text, *restarts)
			}
		})
	}
}

// A machine without network takes what a medium has, which is verified as ever.
func TestMedium(t *testing.T) {
	b := newBench(t)
	released := 0
	a, _ := b.agent(from, &update.Settings{Channel: "stable"}, nil)
	a.Medium = func() (string, func(), error) { return b.dir, func() { released++ }, nil }
	if err := a.Check(t.Context(), nil); err != nil || !a.Status().NeedsReboot || released != 1 {
		t.Errorf("it says %+v (%v), and gave the medium back %d times", a.Status(), err, released)
	}
	other := newBench(t)
	a.Medium = func() (string, func(), error) { return other.dir, func() {}, nil }
	if err := a.Check(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "metadata/timestamp.json cannot be accepted") {
		t.Errorf("a medium of somebody else: %v", err)
	}
	broken := errors.New("the medium cannot be read")
	a.Medium = func() (string, func(), error) { return "", nil, broken }
	if err := a.Check(t.Context(), nil); !errors.Is(err, broken) {
		t.Errorf("a broken medium: %v", err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Wherever the power fails while a machine goes back, it starts the version that it
// left or the one before, each whole; asked again, it goes back.
func TestAnyCutOfGoingBack(t *testing.T) {
	const old, next = "202601010000", "202602010101"
	for soon := range 10 {
		m, _ := newMachine(t)
		m.good[next] = true
		if err := m.until(next, old); err != nil {
			t.Fatal(err)
		}
		cut := false
		m.soon = soon
		for range 3 { // cuts at most
			u := &update.Updater{Running: m.slots[m.running].name, Loader: m, Slots: m, Records: m, Sets: m}
			if u.Running == old {
				break
			}
			cut = m.cutIn(func() {
				if _, err := u.GoBack(); err != nil {
					t.Errorf("cut after %d effects: %v", soon, err)
				}
			}) || cut
			m.soon = -1
			version, err := m.boot()
			if err != nil {
				t.Fatalf("cut after %d effects: %v", soon, err)
			}
			if version == next && !cut {
				t.Errorf("nothing was cut, and it starts version %s", version)
			}
			u = &update.Updater{Running: version, Loader: m, Slots: m, Records: m, Sets: m}
			if what, err := u.Settle(t.Context(), func(context.Context) error { return nil }); what != update.Nothing || err != nil {
				t.Errorf("cut after %d effects, version %s says %s (%v)", soon, version, what, err)
			}
		}
		if m.slots[m.running].name != old || m.record.Failed[next].Reason != update.Asked {
			t.Errorf("cut after %d effects: in the end version %s runs; the record is %+v", soon, m.slots[m.running].name, m.record)
		}
	}
}

// cutIn does something, and reports whether the power failed while it did.
func (m *machine) cutIn(do func()) (cut bool) {
	defer func() {
		switch r := recover(); r.(type) {
		case nil:
		case powerCut:
			m.cut()
			cut = true
		default:
			panic(r)
		}
	}()
	do()
	return false
}
