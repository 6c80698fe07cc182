package update

import (
	"context"
	"errors"
	"sync"
)

// ErrBusy reports that something else is done about updates.
var ErrBusy = errors.New("another update is under way, or the version that runs is not found good yet; try again in a while")

// A turn is held by whoever does something about updates, one at a time. Its zero
// value is free.
type turn struct {
	once sync.Once
	free chan struct{}
}

func (t *turn) begin() {
	t.once.Do(func() {
		t.free = make(chan struct{}, 1)
		t.free <- struct{}{}
	})
}

// take waits for the turn, or until ctx ends. Done gives it back.
func (t *turn) take(ctx context.Context) (done func(), err error) {
	t.begin()
	select {
	case <-t.free:
		return func() { t.free <- struct{}{} }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// try takes the turn if it is free, and is an ErrBusy otherwise.
func (t *turn) try() (done func(), err error) {
	t.begin()
	select {
	case <-t.free:
		return func() { t.free <- struct{}{} }, nil
	default:
		return nil, ErrBusy
	}
}
