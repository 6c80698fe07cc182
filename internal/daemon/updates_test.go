package daemon

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// moody is an area that fails until a time.
type moody struct{ until time.Time }

func (moody) Name() string { return "storage" }

func (m moody) Reconcile(context.Context) error {
	if time.Now().Before(m.until) {
		return errors.New("the pool local is not imported")
	}
	return nil
}

// A new version is good once all its areas are up, and has time for that.
func TestVersionIsGoodOnceItsAreasAreUp(t *testing.T) {
	tests := map[string]struct {
		after time.Duration
		good  bool
	}{"at once": {0, true}, "after five minutes": {5 * time.Minute, true}, "too late": {2 * time.Hour, false}}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &Daemon{loop: newLoop([]Area{moody{time.Now().Add(tt.after)}}, nil, func(context.Context, string) {})}
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				d.loop.pass(ctx)
				d.ready.Store(true)
				go d.loop.run(ctx, nil)
				began := time.Now()
				err := d.healthy(ctx)
				if (err == nil) != tt.good || err != nil && !strings.HasPrefix(err.Error(), "storage: the pool local is not imported; it did not come up in time") {
					t.Errorf("healthy said %v", err)
				}
				if took := time.Since(began); took > trialLasts {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}
