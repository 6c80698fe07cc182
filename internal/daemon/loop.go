package daemon

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/incusos/incusos/internal/incus"
)

const (
	// every is how often an area that works is reconciled.
	every = 10 * time.Minute
	// firstRetry is how soon one that does not is tried again; the time
	// doubles up to every.
	firstRetry = 10 * time.Second
	// lookAgain is how often at least one is tried that waits for other machines.
	lookAgain = 30 * time.Second
	// patience is how long one area may take before the others go on.
	patience = 5 * time.Minute
)

// A loop reconciles areas in their order: all of them when asked to, and each
// when its time has come.
type loop struct {
	states []*state // not added to once the loop runs
	show   func(ctx context.Context, doing string)
	wake   chan struct{}
	news   <-chan struct{} // sent to when show has something else to say
}

// A state is how an area fared.
type state struct {
	area  Area
	mu    sync.Mutex    // guards err and since, which others read
	err   error         // why it is degraded; nil if it is not
	since time.Time     // when it became so
	wait  time.Duration // how long the last wait was after a failure
	next  time.Time     // when it is due
}

// newLoop returns the loop over areas, which reconciles all when wake is sent to.
// Show is called when doing changes, the name of an area or "".
func newLoop(areas []Area, wake chan struct{}, show func(ctx context.Context, doing string)) *loop {
	if wake == nil {
		wake = make(chan struct{}, 1)
	}
	l := &loop{show: show, wake: wake}
	for _, a := range areas {
		l.add(a)
	}
	return l
}

// add appends an area, before the loop runs.
func (l *loop) add(a Area) { l.states = append(l.states, &state{area: a}) }

// A fare is how an area does, for those who are not the loop.
type fare struct {
	Area  string     `json:"area"`
	Since *time.Time `json:"degraded_since,omitempty"` // nil: it is as it should be
	Why   string     `json:"why,omitempty"`

	blameless bool // this machine is as it should be, and waits for others
}

// fares returns how the areas do. It may be called at any time.
func (l *loop) fares() []fare {
	var out []fare
	for _, s := range l.states {
		out = append(out, s.fare())
	}
	return out
}

func (s *state) fare() fare {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		return fare{Area: s.area.Name()}
	}
	since := s.since
	return fare{s.area.Name(), &since, s.err.Error(), waits(s.err)}
}

// waits reports whether an area waits for other machines and is well otherwise: so does
// an Incus that is newer than that of the other members of its cluster.
func waits(err error) bool {
	switch e := err.(type) { //nolint:errorlint // joined with another one, there is trouble too
	case *incus.AheadError:
		return true
	case interface{ Unwrap() []error }:
		return !slices.ContainsFunc(e.Unwrap(), func(err error) bool { return !waits(err) })
	}
	return false
}

// poke asks for something that one request more does not change.
func poke(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default: // already asked to
	}
}

// pass reconciles all areas.
func (l *loop) pass(ctx context.Context) {
	for _, s := range l.states {
		if ctx.Err() != nil {
			return
		}
		l.show(ctx, s.area.Name())
		s.reconcile(ctx)
	}
}

// run reconciles until ctx ends. Links is sent to when an address changed.
func (l *loop) run(ctx context.Context, links <-chan struct{}) {
	for {
		timer := time.NewTimer(time.Until(l.due()))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-links:
			l.follow(ctx)
		case <-l.news:
		case <-l.wake:
			l.pass(ctx)
		case <-timer.C:
			l.overdue(ctx)
		}
		timer.Stop()
		l.show(ctx, "")
	}
}

// A follower is an area that network devices make degraded or whole.
type follower interface{ FollowsLinks() }

// follow reconciles the areas that care about network devices.
func (l *loop) follow(ctx context.Context) {
	for _, s := range l.states {
		if _, ok := s.area.(follower); ok && ctx.Err() == nil {
			s.reconcile(ctx)
		}
	}
}

// due is when the next area is.
func (l *loop) due() time.Time {
	first := time.Now().Add(every)
	for _, s := range l.states {
		if s.next.Before(first) {
			first = s.next
		}
	}
	return first
}

func (l *loop) overdue(ctx context.Context) {
	now := time.Now()
	for _, s := range l.states {
		if !s.next.After(now) && ctx.Err() == nil {
			s.reconcile(ctx)
		}
	}
}

func (s *state) reconcile(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := s.area.Reconcile(limited)
	if err != nil && ctx.Err() != nil {
		return // told to stop, which is no trouble of the area
	}
	s.note(ctx, err, time.Now())
}

// note keeps how the area fared at a time, and says so if that is new.
func (s *state) note(ctx context.Context, err error, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		if s.err != nil {
			slog.InfoContext(ctx, "Area recovered", "area", s.area.Name(), "after", now.Sub(s.since).Round(time.Second))
		}
		s.err, s.since, s.wait, s.next = nil, time.Time{}, 0, now.Add(every)
		return
	}
	if s.err == nil || s.err.Error() != err.Error() {
		slog.ErrorContext(ctx, "Area degraded", "area", s.area.Name(), "err", err)
	}
	if s.err == nil {
		s.since = now
	}
	s.err = err
	s.wait = min(max(2*s.wait, firstRetry), every)
	if waits(err) {
		s.wait = min(s.wait, lookAgain)
	}
	s.next = now.Add(s.wait)
}
