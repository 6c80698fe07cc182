package listener

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"golang.org/x/sys/unix"

	"github.com/incusos/incusos/api"
)

const (
	incusUnit = "incus.service"
	// retry is how soon opening is tried again after it failed.
	retry = time.Minute
	// rest is how soon to look again if nothing happens that one is told of.
	rest = 10 * time.Minute
)

// A health is whether Incus can answer.
type health struct {
	unit     string    // state of its unit
	degraded bool      // the applications could not be brought up
	since    time.Time // when it could not any more, or was started anew; zero while it can
}

func (h health) answers() bool { return h.unit == "active" && !h.degraded }

// next is the health a look finds after h. Whenever Incus is started, it gets
// the whole time again, in which its port is left to it.
func (h health) next(unit string, degraded bool, now time.Time) health {
	n := health{unit, degraded, h.since}
	started := unit != h.unit && (unit == "active" || unit == "activating")
	switch {
	case n.answers():
		n.since = time.Time{}
	case started, h.since.IsZero():
		n.since = now
	}
	return n
}

// Serve serves the API whenever it is due, until ctx ends.
func (l *Listener) Serve(ctx context.Context, api http.Handler) {
	l.serving(l.admit(api))
	defer l.end(ctx)
	var changed <-chan struct{}
	for watched := false; ; {
		if !watched && l.started() {
			changed, watched = l.watch(ctx), true
		}
		wait, err := l.look(ctx)
		if err != nil {
			slog.ErrorContext(ctx, "Cannot open the fallback listener", "err", err)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-l.wake:
		case <-timer.C:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// watch follows the unit of Incus. While the machine starts, nothing is learnt
// that the patience of then would not outlast, and systemd, who tells of all
// units, has most to tell.
func (l *Listener) watch(ctx context.Context) <-chan struct{} {
	changed, err := l.host.Units.Watch(ctx, incusUnit)
	if err != nil {
		slog.WarnContext(ctx, "Cannot follow whether Incus runs; looking when areas are reconciled", "err", err)
	}
	return changed
}

// started reports whether the applications have been brought up once.
func (l *Listener) started() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reported
}

func (l *Listener) serving(h http.Handler) {
	l.turn.Lock()
	defer l.turn.Unlock()
	l.handler = h
}

// end closes the listener for good.
func (l *Listener) end(ctx context.Context) {
	l.turn.Lock()
	defer l.turn.Unlock()
	l.handler = nil
	l.shut()
	l.drain(ctx)
	l.ending.Wait()
}

// look opens or closes the listener if that is due, and returns after which time
// to look again.
func (l *Listener) look(ctx context.Context) (time.Duration, error) {
	l.turn.Lock()
	defer l.turn.Unlock()
	want, wait := l.judge(ctx)
	l.mu.Lock()
	open, config, answers := l.open, l.config, l.health.answers()
	l.mu.Unlock()
	if open != nil && (!want || open.wanted != address(config)) {
		l.shut()
		open = nil
	}
	if answers || !enabled(config) {
		l.drain(ctx)
	}
	var err error
	if want && open == nil {
		wait, err = retry, l.openUp(ctx, address(config))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failure = err
	return wait, err
}

// judge reports whether the listener should be open, and after which time that
// may become another.
func (l *Listener) judge(ctx context.Context) (want bool, wait time.Duration) {
	unit, err := l.host.Units.State(ctx, incusUnit)
	if err != nil {
		slog.WarnContext(ctx, "Cannot tell whether Incus runs", "err", err) // it counts as down
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.health = l.health.next(unit, l.degraded, now)
	if l.handler == nil || !enabled(l.config) || l.health.answers() {
		return false, rest
	}
	left := l.health.since.Add(l.patience()).Sub(now)
	if left > 0 {
		return false, left
	}
	return true, rest
}

// starting is how many times longer Incus may take while the machine starts: it
// is not even installed before the first start, and comes last at every other.
const starting = 10

// patience is how long Incus may not answer, as things are. The caller holds mu.
func (l *Listener) patience() time.Duration {
	if !l.reported {
		return starting * l.Patience
	}
	return l.Patience
}

// openUp starts to listen. A port that is taken while Incus runs is Incus' own:
// it answers there, whatever is wrong with it.
func (l *Listener) openUp(ctx context.Context, address string) error {
	o, err := l.listen(ctx, address)
	l.mu.Lock()
	l.open = o
	incusRuns := l.health.unit == "active"
	l.mu.Unlock()
	switch {
	case errors.Is(err, unix.EADDRINUSE) && incusRuns:
		return nil
	case errors.Is(err, unix.EADDRINUSE):
		return api.Errorf(api.Conflict, "%v; set another listen_address", err)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return api.Fieldf("listen_address", "%q is no address of this machine; want one that it has, or none for all of them", address)
	case err != nil:
		return err
	}
	slog.WarnContext(ctx, "Incus does not answer; the fallback listener is open", "address", o.address, "fingerprint", o.fingerprint)
	l.news()
	return nil
}

// shut stops listening, at once, so that Incus finds its port free. Whoever is
// connected stays so. The caller holds turn.
func (l *Listener) shut() {
	l.mu.Lock()
	o := l.open
	l.open = nil
	l.mu.Unlock()
	if o == nil {
		return
	}
	if err := o.stop(); err != nil {
		slog.Warn("Cannot close the fallback listener", "err", err)
	}
	l.old = append(l.old, o)
	slog.Info("The fallback listener is closed", "address", o.address)
	l.news()
}

// drain lets requests in progress end, and then all connections. It does not
// wait: one of the requests may be the one that this is done for. The caller
// holds turn.
func (l *Listener) drain(ctx context.Context) {
	for _, o := range l.old {
		l.ending.Go(func() { o.end(ctx) })
	}
	l.old = nil
}
