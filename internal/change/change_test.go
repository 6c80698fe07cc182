package change_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/change"
)

var errBroken = errors.New("it is broken")

// A machine is a document, and the thing it is about.
type machine struct {
	mu         sync.Mutex // deadlines pass in goroutines of their own
	now, saved string
	applied    []string
	failApply  map[string]bool // configurations that cannot be applied
	failSave   bool
}

func (m *machine) Plan(_ context.Context, config string) (p api.Plan, err error) {
	if m.now != config {
		p.Do("become", config)
	}
	return p, nil
}

func (m *machine) Apply(_ context.Context, config string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.applied = append(m.applied, config)
	if m.failApply[config] {
		m.now = "half of " + config
		return errBroken
	}
	m.now = config
	return nil
}

func (m *machine) Get() string {
	_, saved := m.is()
	return saved
}

func (m *machine) Set(config string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failSave {
		return errBroken
	}
	m.saved = config
	return nil
}

// is returns what the machine is and what is saved.
func (m *machine) is() (now, saved string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now, m.saved
}

// spoil decides what will fail.
func (m *machine) spoil(config string, broken, full bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failApply[config], m.failSave = broken, full
}

func newMachine() (*machine, *change.Manager[string], *change.Gate) {
	m := &machine{now: "old", saved: "old", failApply: make(map[string]bool)}
	gate := change.NewGate(nil)
	return m, change.New("system/thing", m, m, gate), gate
}

func TestWithoutConfirmationAChangeIsUndone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, c, gate := newMachine()
		if err := c.Try(t.Context(), "new", time.Minute); err != nil {
			t.Fatal(err)
		}
		if now, saved := m.is(); now != "new" || saved != "old" || c.Config() != "new" {
			t.Errorf("on trial: the machine is %q, saved is %q, in force is %q", now, saved, c.Config())
		}
		err := c.Reconcile(t.Context())
		if now, _ := m.is(); err != nil || now != "new" {
			t.Errorf("a reconciliation makes the machine %q, %v; want the trial to stay", now, err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if now, saved := m.is(); now != "old" || saved != "old" || gate.Pending() != nil {
			t.Errorf("afterwards the machine is %q, saved is %q, pending is %v", now, saved, gate.Pending())
		}
		if err := c.Confirm(t.Context()); !errors.Is(err, change.ErrNoTrial) {
			t.Errorf("a late Confirm() = %v", err)
		}
	})
}

func TestConfirmedChangeIsSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, c, _ := newMachine()
		if err := c.Try(t.Context(), "new", time.Minute); err != nil {
			t.Fatal(err)
		}
		if deadline, ok := c.Trial(); !ok || time.Until(deadline) != time.Minute {
			t.Errorf("Trial() = %v, %v", deadline, ok)
		}
		m.spoil("", false, true)
		if err := c.Confirm(t.Context()); !errors.Is(err, errBroken) {
			t.Errorf("Confirm() on a full disk = %v", err)
		}
		m.spoil("", false, false)
		if err := c.Confirm(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if diff := cmp.Diff([]string{"new"}, m.applied); diff != "" || m.saved != "new" {
			t.Errorf("saved is %q, applied (-want +got):\n%s", m.saved, diff)
		}
	})
}

func TestFailureGoesBack(t *testing.T) {
	tests := map[string]struct {
		spoil func(m *machine)
		says  string
		now   string
	}{
		"it cannot be applied": {func(m *machine) { m.failApply["new"] = true }, "the machine is back on the saved configuration", "old"},
		"it cannot be saved":   {func(m *machine) { m.failSave = true }, "the machine is back on the saved configuration", "old"},
		"nothing works": {func(m *machine) { m.failApply["new"], m.failApply["old"] = true, true },
			"going back to the saved configuration did not work either: it is broken; it is tried again by itself", "half of old"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m, c, _ := newMachine()
			tt.spoil(m)
			err := c.Try(t.Context(), "new", 0)
			if f, ok := errors.AsType[*change.Failure](err); !ok || !errors.Is(f, errBroken) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("Try() = %v, want %q in it", err, tt.says)
			}
			if m.now != tt.now || m.saved != "old" {
				t.Errorf("the machine is %q, saved is %q", m.now, m.saved)
			}
		})
	}
}

func TestOneTrialAtATimeOnTheWholeMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, c, gate := newMachine()
		other := &machine{now: "a", saved: "a"}
		o := change.New("system/other", other, other, gate)
		if err := c.Try(t.Context(), "new", time.Minute); err != nil {
			t.Fatal(err)
		}
		for _, err := range []error{c.Try(t.Context(), "newer", 0), o.Try(t.Context(), "b", 0), o.Try(t.Context(), "b", time.Minute)} {
			if p, ok := errors.AsType[*change.PendingError](err); !ok || p.Resource != "system/thing" {
				t.Errorf("Try() during a trial = %v", err)
			}
		}
		err := o.Reconcile(t.Context())
		mine, _ := m.is()
		its, _ := other.is()
		if err != nil || mine != "new" || its != "a" {
			t.Errorf("Reconcile() = %v; the machines are %q and %q", err, mine, its)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if err := o.Try(t.Context(), "b", 0); err != nil || other.saved != "b" {
			t.Errorf("Try() after the trial = %v, saved is %q", err, other.saved)
		}
	})
}

// slow takes its time to become anything.
type slow struct{ *machine }

func (s slow) Apply(ctx context.Context, config string) error {
	time.Sleep(time.Hour)
	return s.machine.Apply(ctx, config)
}

// Incus may take minutes to start; the network must be open to change.
func TestASlowReconciliationKeepsNobodyElseWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, c, gate := newMachine()
		s := slow{&machine{}}
		waits := change.New("slow", s, s, gate)
		go waits.Reconcile(t.Context())
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		go waits.Try(ctx, "x", 0) // waits for its own resource
		synctest.Wait()
		began := time.Now()
		if err := c.Try(t.Context(), "new", 0); err != nil || m.saved != "new" || time.Since(began) != 0 {
			t.Errorf("Try() = %v after %v, saved is %q", err, time.Since(began), m.saved)
		}
		if err := waits.Try(ctx, "y", 0); err == nil || !strings.Contains(err.Error(), "waiting for another change to finish") {
			t.Errorf("Try() of the slow one = %v", err)
		}
		time.Sleep(2 * time.Hour)
	})
}

func TestNegativeTimeIsRefused(t *testing.T) {
	m, c, _ := newMachine()
	if err := c.Try(t.Context(), "new", -time.Second); err == nil || m.now != "old" {
		t.Errorf("Try() = %v, the machine is %q", err, m.now)
	}
}

// Whatever happens in whatever order: what is saved was applied and either
// confirmed or not asked to be, and once nothing is on trial and nothing fails
// the machine is what is saved.
func TestTheMachineEndsUpOnWhatIsSaved(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		synctest.Test(t, func(t *testing.T) {
			m, c, _ := newMachine()
			allowed := map[string]bool{"old": true}
			onTrial := ""
			for range rapid.IntRange(1, 20).Draw(rt, "steps") {
				config := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "config")
				m.spoil(config, rapid.Bool().Draw(rt, "broken"), rapid.Bool().Draw(rt, "full disk"))
				within := rapid.SampledFrom([]time.Duration{0, time.Second, time.Minute}).Draw(rt, "within")
				switch rapid.IntRange(0, 3).Draw(rt, "what") {
				case 0, 1:
					if c.Try(t.Context(), config, within) == nil {
						if within == 0 {
							allowed[config] = true
						} else {
							onTrial = config
						}
					}
				case 2:
					if c.Confirm(t.Context()) == nil {
						allowed[onTrial] = true
					}
				default:
					time.Sleep(within)
					synctest.Wait()
				}
				if _, saved := m.is(); !allowed[saved] {
					rt.Fatalf("saved is %q, which nobody confirmed", saved)
				}
			}
			time.Sleep(time.Hour)
			synctest.Wait()
			for _, config := range []string{"a", "b", "c"} {
				m.spoil(config, false, false)
			}
			err := c.Reconcile(t.Context())
			if now, saved := m.is(); err != nil || now != saved {
				rt.Fatalf("the machine is %q, saved is %q, %v", now, saved, err)
			}
		})
	})
}
