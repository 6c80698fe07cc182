package change

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// A Gate lets one change at a time through, whichever document it is of: two
// changes at once could not tell whose failure cut the operator off.
type Gate struct {
	turn    turn
	changed func() // told when a configuration in force has become another one

	mu      sync.Mutex
	pending *PendingError // what waits to be confirmed; nil: nothing
}

// NewGate returns an open gate. Changed is called, and must not wait, when a
// configuration in force has become another one: other resources may depend on
// it. It may be nil.
func NewGate(changed func()) *Gate {
	if changed == nil {
		changed = func() {}
	}
	return &Gate{turn: newTurn(), changed: changed}
}

// A turn is a lock that can be waited for with a context.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

func (t turn) enter(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for another change to finish: %w", context.Cause(ctx))
	}
}

func (t turn) leave() { <-t }

// A PendingError refuses a change because an earlier one is on trial.
type PendingError struct {
	Resource string    // that is on trial
	Deadline time.Time // when that is undone
}

func (e *PendingError) Error() string {
	return fmt.Sprintf("a change of %s is waiting to be confirmed until %s; confirm it or let it be undone first",
		e.Resource, e.Deadline.UTC().Format(time.RFC3339))
}

// free returns a *PendingError while something is on trial.
func (g *Gate) free() error {
	if p := g.Pending(); p != nil {
		return p
	}
	return nil
}

// Pending returns what waits to be confirmed; nil if nothing does.
func (g *Gate) Pending() *PendingError {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.pending
}

func (g *Gate) hold(resource string, deadline time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pending = &PendingError{resource, deadline}
}

func (g *Gate) release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pending = nil
}
