package metrics

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// A remembered value is read when it is asked for and not fresh any more, once
// at a time. Whoever asks waits no longer than patience, while a reading that
// hangs goes on alone.
type remembered[T any] struct {
	read func(context.Context) (T, error)

	mu    sync.Mutex
	busy  chan struct{} // closed when the reading under way ends; nil: none is
	at    time.Time     // when value and err were read; zero: never
	value T
	err   error
}

func (r *remembered[T]) get(ctx context.Context) (v T, err error) {
	r.mu.Lock()
	if !r.at.IsZero() && time.Since(r.at) < fresh {
		defer r.mu.Unlock()
		return r.value, r.err
	}
	if r.busy == nil {
		r.busy = make(chan struct{})
		go r.refresh(context.WithoutCancel(ctx), r.busy)
	}
	busy := r.busy
	r.mu.Unlock()

	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-busy:
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.value, r.err
	case <-timer.C:
		return v, fmt.Errorf("not there after %v", patience)
	case <-ctx.Done():
		return v, context.Cause(ctx)
	}
}

func (r *remembered[T]) refresh(ctx context.Context, busy chan struct{}) {
	value, err := r.read(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.value, r.err, r.at, r.busy = value, err, time.Now(), nil
	close(busy)
}
