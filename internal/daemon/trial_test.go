package daemon

import (
	"context"
	"errors"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"github.com/incusos/incusos/internal/incus"
	"github.com/incusos/incusos/internal/sys"
)

// moody is an area that fails until a time.
type moody struct{ until time.Time }

func (moody) Name() string { return "storage" }

func (m moody) Reconcile(context.Context) error {
	if time.Now().Before(m.until) {
		return errors.New("2 pools are not imported")
	}
	return nil
}

// newTrial returns a daemon with one area, in a directory.
func newTrial(t *testing.T, dir string, a Area) *Daemon {
	t.Helper()
	d := &Daemon{began: time.Now(), loop: newLoop([]Area{a}, nil, func(context.Context, string) {})}
	d.Host.Files = sys.NewDir(dir)
	return d
}

// A new version is good once all its areas are up, and has time for that.
func TestVersionIsGoodOnceItsAreasAreUp(t *testing.T) {
	tests := map[string]struct {
		after   time.Duration
		cmdline string
		good    bool
		longest time.Duration
	}{
		"at once":                        {0, "rw quiet", true, time.Minute},
		"after five minutes":             {5 * time.Minute, "", true, trialLasts},
		"too late":                       {2 * time.Hour, "rw incusos.trial=0 incusos.trial=x", false, trialLasts},
		"too late for its command line":  {time.Minute, "rw incusos.trial=30 quiet", false, 30 * time.Second},
		"in time for a longer such time": {25 * time.Minute, "incusos.trial=3600\n", true, time.Hour},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := sys.NewDir(dir).WriteFile("/proc/cmdline", []byte(tt.cmdline), 0o644); err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				d := newTrial(t, dir, moody{time.Now().Add(tt.after)})
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				d.loop.pass(ctx)
				d.ready.Store(true)
				go d.loop.run(ctx, nil)
				began := time.Now()
				err := d.healthy(ctx)
				if (err == nil) != tt.good || err != nil && err.Error() != "storage: 2 pools are not imported; it did not come up in time" {
					t.Errorf("healthy said %v", err)
				}
				if took := time.Since(began); took > tt.longest {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

// A version is not blamed for what was so before it, whatever the figures; it is for
// what is worse.
func TestVersionIsNotBlamedForWhatWasSoBefore(t *testing.T) {
	for before, good := range map[string]bool{
		`{"degraded":{"storage":"0 pools are not imported"}}`:                  true,
		`{"degraded":{"storage":"0 pools are not imported"},"addressed":true}`: false, // and has none
		`{"degraded":{"storage":"the pool a is degraded"}}`:                    false,
		`{"degraded":{"network":"0 pools are not imported"}}`:                  false,
		`{}`: false, `{"degraded"`: false,
	} {
		dir := t.TempDir()
		if err := sys.NewDir(dir).WriteFile(beforeFile, []byte(before), 0o600); err != nil {
			t.Fatal(err)
		}
		synctest.Test(t, func(t *testing.T) {
			d := newTrial(t, dir, moody{time.Now().Add(time.Hour)})
			d.loop.pass(t.Context())
			d.ready.Store(true)
			if err := d.healthy(t.Context()); (err == nil) != good {
				t.Errorf("with %s before, healthy said %v", before, err)
			}
		})
	}
}

// waiting is an area that waits for other machines, with its errors.
type waiting []error

func (waiting) Name() string { return "applications" }

func (w waiting) Reconcile(context.Context) error { return errors.Join(w...) }

// A version is good though its Incus serves nothing: it waits for other members of its
// cluster to have it too. It is not if there is trouble besides that.
func TestVersionIsGoodThoughIncusWaitsForOthers(t *testing.T) {
	ahead := &incus.AheadError{Of: []string{"node2"}}
	for _, tt := range []struct {
		w    waiting
		good bool
	}{{waiting{ahead}, true}, {waiting{nil, ahead}, true}, {waiting{errors.New("the disk is full"), ahead}, false}} {
		synctest.Test(t, func(t *testing.T) {
			d := newTrial(t, t.TempDir(), tt.w)
			d.loop.pass(t.Context())
			d.ready.Store(true)
			if err := d.healthy(t.Context()); (err == nil) != tt.good {
				t.Errorf("with %v, healthy said %v", tt.w, err)
			}
			if got := d.loop.degraded(); len(got) != 1 {
				t.Errorf("people see %q", got)
			}
			if next := time.Until(d.loop.due()); next > lookAgain && tt.good {
				t.Errorf("it is looked at again in %v", next)
			}
		})
	}
}

// What lasts is remembered for the next version; what a retry mends is not, and what
// has passed is forgotten.
func TestWhatLastsIsRemembered(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d := newTrial(t, dir, moody{time.Now().Add(time.Hour)})
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		d.loop.pass(ctx)
		go d.loop.run(ctx, nil)
		go d.remember(ctx)
		for _, at := range []struct {
			after time.Duration
			want  map[string]string
		}{
			{2 * time.Minute, map[string]string{}},
			{8 * time.Minute, map[string]string{"storage": "0 pools are not imported"}},
			{80 * time.Minute, map[string]string{}},
		} {
			time.Sleep(at.after)
			if got, err := d.before(); err != nil || !maps.Equal(got.Degraded, at.want) {
				t.Errorf("after %v more, %+v is remembered (%v); want %q", at.after, got, err, at.want)
			}
		}
	})
}

// An area that hangs is named.
func TestVersionThatHangsIsNotGood(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		d := newTrial(t, dir, moody{})
		d.doing.Store("applications")
		if err := d.healthy(t.Context()); err == nil || err.Error() != "applications: still being brought up; it did not come up in time" {
			t.Errorf("healthy said %v", err)
		}
	})
}
