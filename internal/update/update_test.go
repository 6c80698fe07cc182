package update_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/incusos/incusos/internal/update"
)

// Wherever the power fails, a machine starts the old version or the new one, each
// whole and with its applications; it ends with the new one if that is good, and
// with the old one if not.
func TestAnyCutLeavesAMachineThatStarts(t *testing.T) {
	const cuts = 100_000
	total, lives := 0, uint64(0)
	for ; total < cuts; lives++ {
		m := &machine{t: t, r: rand.New(rand.NewPCG(1, lives))} //nolint:gosec // a test
		if err := m.life(4); err != nil {
			t.Fatalf("life %d, after %d cuts: %v", lives, m.cuts, err)
		}
		total += m.cuts
	}
	t.Logf("%d cuts in %d lives", total, lives)
}

// The test above would find what it is there for.
func TestCutsFindFaults(t *testing.T) {
	for _, fault := range []string{
		"entries stay", "slots are not flushed", "slots are not named", "sets are not written down", "applications are not stored",
		"links stay", "images go too early", "images stay", "changes are not written down",
	} {
		found := error(nil)
		for life := uint64(0); life < 300 && found == nil; life++ {
			m := &machine{t: t, r: rand.New(rand.NewPCG(2, life)), fault: fault} //nolint:gosec // a test
			found = m.life(4)
		}
		if found == nil {
			t.Errorf("%s, and nothing is noticed", fault)
		}
		t.Logf("%s: %v", fault, found)
	}
}

func newMachine(t *testing.T) (*machine, *update.Updater) {
	t.Helper()
	m := &machine{t: t, r: rand.New(rand.NewPCG(1, 1)), soon: -1} //nolint:gosec // a test
	if err := m.life(0); err != nil {
		t.Fatal(err)
	}
	return m, &update.Updater{Running: "202601010000", Loader: m, Slots: m, Records: m, Sets: m}
}

func TestStageRefuses(t *testing.T) {
	const next = "202602010000"
	tests := map[string]struct {
		change func(*machine)
		want   string
		is     error
	}{
		"while one is tried": {func(m *machine) { m.record.Phase = update.Trying }, "has not been found good yet", update.ErrTrying},
		"before it was blessed": {func(m *machine) {
			m.esp["202601010000"] = update.Entry{Version: "202601010000", Counted: true, Left: 1}
		}, "has not been found good yet", update.ErrTrying},
		"without a way back":       {func(m *machine) { clear(m.esp) }, "the boot loader has no entry for version 202601010000, which runs", nil},
		"what did not work before": {func(m *machine) { m.record.Failed = map[string]update.Failure{next: {Reason: "it hangs"}} }, "version 202602010000: this version was tried and did not work: it hangs", update.ErrFailed},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m, u := newMachine(t)
			tt.change(m)
			before := m.record.Phase
			err := u.Stage(t.Context(), release{m: m, version: next})
			if err == nil || !strings.Contains(err.Error(), tt.want) || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("Stage said %v, want %q", err, tt.want)
			}
			if m.record.Phase != before || m.slots[1].name != "_empty" {
				t.Error("something was changed")
			}
		})
	}
	m, u := newMachine(t)
	if err := u.Stage(t.Context(), release{m: m, version: u.Running}); err == nil {
		t.Error("the running version was staged")
	}
	if err := u.Forgive(next); err != nil {
		t.Error(err)
	}
}

// The disk is bound to a new version before anything can start that.
func TestDiskIsBoundFirst(t *testing.T) {
	const next = "202602010000"
	m, u := newMachine(t)
	refused := errors.New("its signer is not trusted")
	u.Bind = func(context.Context, []byte) error { return refused }
	if err := u.Stage(t.Context(), release{m: m, version: next}); !errors.Is(err, refused) {
		t.Errorf("Stage said %v, want %v", err, refused)
	}
	if _, there := m.esp[next]; there {
		t.Error("a version that would not unlock the disk can be started")
	}
	bound := 0
	u.Bind = func(_ context.Context, uki []byte) error {
		if _, there := m.esp[next]; there || len(uki) == 0 {
			t.Errorf("bound to %d bytes, with the entry there: %t", len(uki), there)
		}
		bound++
		return nil
	}
	if err := u.Stage(t.Context(), release{m: m, version: next}); err != nil || bound != 1 {
		t.Errorf("Stage said %v and bound %d times", err, bound)
	}
}

// A version that did not work is tried again when a person says so.
func TestForgive(t *testing.T) {
	const next = "202602010000"
	m, u := newMachine(t)
	m.record.Failed = map[string]update.Failure{next: {Reason: "it hangs"}}
	if err := u.Forgive(next); err != nil {
		t.Fatal(err)
	}
	if err := u.Stage(t.Context(), release{m: m, version: next}); err != nil {
		t.Error(err)
	}
	if m.esp[next].Left != 3 || m.slots[1].name != next || m.record.Phase != update.Staged {
		t.Errorf("entry %+v, slot %s, phase %q", m.esp[next], m.slots[1].name, m.record.Phase)
	}
	if err := u.Stage(t.Context(), release{m: nil, version: next}); err != nil {
		t.Errorf("staging what is staged: %v", err)
	}
}

// The reason that the new version found is there when the old one is back.
func TestReasonIsKept(t *testing.T) {
	const next = "202602010000"
	m, _ := newMachine(t)
	m.good[next] = false
	for range 20 {
		m.soon = -1
		if done, err := m.once(next, "202601010000"); err != nil {
			t.Fatal(err)
		} else if done {
			break
		}
	}
	if got := m.record.Failed[next].Reason; got != "Incus does not answer" {
		t.Errorf("the reason is %q", got)
	}
}
