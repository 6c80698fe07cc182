package daemon

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// An area that notes when it was reconciled, and fails as told.
type fakeArea struct {
	name  string
	began time.Time
	log   *[]string
	fail  error
	hang  bool
}

func (a *fakeArea) Name() string { return a.name }

func (a *fakeArea) Reconcile(ctx context.Context) error {
	*a.log = append(*a.log, fmt.Sprintf("%v %s", time.Since(a.began).Round(time.Second), a.name))
	if a.hang {
		<-ctx.Done()
		return ctx.Err()
	}
	return a.fail
}

// simulate runs a loop over two areas for a time, and returns when which of
// them was reconciled.
func simulate(t *testing.T, length time.Duration, prepare func(l *loop, first, second *fakeArea)) (log []string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		first := &fakeArea{name: "first", began: time.Now(), log: &log}
		second := &fakeArea{name: "second", began: time.Now(), log: &log}
		l := newLoop([]Area{first, second}, nil, func(context.Context, string) {})
		prepare(l, first, second)
		ctx, cancel := context.WithTimeout(t.Context(), length)
		defer cancel()
		l.pass(ctx)
		l.run(ctx, nil)
	})
	return log
}

func TestAreasAreReconciledEveryTenMinutes(t *testing.T) {
	got := simulate(t, 21*time.Minute, func(*loop, *fakeArea, *fakeArea) {})
	want := []string{"0s first", "0s second", "10m0s first", "10m0s second", "20m0s first", "20m0s second"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("reconciled (-want +got):\n%s", diff)
	}
}

func TestDegradedAreaIsRetriedSoonerAndStopsNobody(t *testing.T) {
	got := simulate(t, 9*time.Minute, func(_ *loop, first, _ *fakeArea) { first.fail = errors.New("no carrier") })
	want := []string{
		"0s first", "0s second",
		"10s first", "30s first", "1m10s first", "2m30s first", "5m10s first",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("reconciled (-want +got):\n%s", diff)
	}
}

func TestRetriesAreNeverRarerThanTenMinutes(t *testing.T) {
	s := &state{area: &fakeArea{name: "first"}}
	now := time.Now()
	for range 20 {
		s.note(t.Context(), errors.New("no carrier"), now)
	}
	if got := s.next.Sub(now); got != every || !s.since.Equal(now) {
		t.Errorf("due in %v, degraded since %v; want %v, %v", got, s.since, every, now)
	}
	s.note(t.Context(), nil, now)
	s.note(t.Context(), errors.New("no carrier"), now)
	if got := s.next.Sub(now); got != firstRetry {
		t.Errorf("after it recovered, due in %v; want %v", got, firstRetry)
	}
}

func TestHangingAreaIsGivenUp(t *testing.T) {
	got := simulate(t, 5*time.Minute+5*time.Second, func(_ *loop, first, _ *fakeArea) { first.hang = true })
	want := []string{"0s first", "5m0s second"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("reconciled (-want +got):\n%s", diff)
	}
}

func TestChangeIsReconciledAtOnce(t *testing.T) {
	got := simulate(t, time.Minute, func(l *loop, _, _ *fakeArea) {
		time.AfterFunc(7*time.Second, func() { poke(l.wake) })
	})
	want := []string{"0s first", "0s second", "7s first", "7s second"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("reconciled (-want +got):\n%s", diff)
	}
}

func TestStoppingDegradesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log []string
		l := newLoop([]Area{&fakeArea{name: "first", log: &log, hang: true}}, nil, func(context.Context, string) {})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		l.pass(ctx)
		if got := l.degraded(); got != nil {
			t.Errorf("degraded: %q, want none", got)
		}
	})
}
