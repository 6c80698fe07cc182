//go:build vm

package vm_test

import (
	"errors"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/incusos/incusos/api"
)

// What a machine does with a new version, one after the other.
const (
	fetching = "the file system is fetched"
	storing  = "applications are stored"
	writing  = "the disk is bound to the kernel, which is written to the ESP"
	trying   = "the new version starts for the first time"
)

// TestUpdateIsCut takes the power away at twenty random moments of updates. After each
// the machine starts by itself, with the old version or the new one, and goes on; in
// the end the newest runs. INCUSOS_VM_CUTS says how many cuts to make instead, and
// INCUSOS_VM_SEED repeats a run.
func TestUpdateIsCut(t *testing.T) {
	seed := number(t, "INCUSOS_VM_SEED", uint64(time.Now().UnixNano()))
	cuts := number(t, "INCUSOS_VM_CUTS", 20)
	t.Logf("INCUSOS_VM_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	s := newSite(t)
	key := recoveryKey(t, s.r, s.c)
	w := &watch{}
	s.u.asked = w.asked
	s.u.release(t, change{})
	lasts := w.measure(t, s)
	t.Logf("of an update that nobody disturbs: %v", lasts)

	kinds := []string{fetching, storing, writing, trying, trying}
	for n := range int(cuts) {
		kind := kinds[n%len(kinds)]
		if s.r.Console.Ended() {
			s.start() // it was cut in its first start, and is once more
			s.loads(t)
		} else {
			if s.version == s.u.next {
				s.u.release(t, change{})
			}
			w.begin(t, s, kind)
		}
		after := time.Duration(random.Int64N(int64(lasts[kind])))
		time.Sleep(after)
		s.cut(t)
		t.Logf("cut %d: %v after it began that %s; the machine's last words: %s", n+1, after.Round(10*time.Millisecond), kind, strings.TrimSpace(s.r.Console.Tail(1)))
		if kind == trying && n+1 < int(cuts) && kinds[(n+1)%len(kinds)] == trying {
			continue
		}
		comesBack(t, s)
	}
	if s.version != s.u.next {
		s.stage(t)
		s.restart(t)
		s.up(t)
	}
	s.good(t)
	s.whole(t)
	if got := recoveryKey(t, s.r, s.c); got != key {
		t.Error("the recovery key is another one")
	}
}

// comesBack expects a machine that was cut to come up with the version that it had or
// with the newest, none of which it holds to be bad.
func comesBack(t *testing.T, s *site) {
	t.Helper()
	old := s.version
	s.start()
	s.up(t)
	t.Logf("version %s is up after %v", s.version, s.r.Console.Elapsed().Round(time.Second))
	switch s.version {
	case s.u.next:
		s.good(t)
	case old:
		reached(t, s.r, s.c, "no version that failed", func(u api.SystemUpdateState) bool { return len(u.Failed) == 0 })
	default:
		t.Fatalf("version %s is up; want %s or %s", s.version, old, s.u.next)
	}
	answersThroughIncus(t, s.r, s.c, s.version)
	belongs(t, s.r, s.c, s.version)
}

func number(t *testing.T, variable string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s is %q; want a number", variable, text)
	}
	return n
}

// A watch knows how far an update is by what the machine asks of the server.
type watch struct {
	mu    sync.Mutex
	began map[string]time.Time
}

func (w *watch) asked(path string) (answered func()) {
	switch {
	case strings.HasSuffix(path, ".kernel.efi"):
		w.note(writing + " soon")
		return func() { w.note(writing) }
	case strings.Contains(path, "/incus/"):
		w.note(storing)
	case strings.Contains(path, ".usr."):
		w.note(fetching)
	}
	return func() {}
}

// note keeps when something began.
func (w *watch) note(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.began[what]; !ok && w.began != nil {
		w.began[what] = time.Now()
	}
}

func (w *watch) reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.began = make(map[string]time.Time)
}

func (w *watch) when(what string) (time.Time, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	at, ok := w.began[what]
	return at, ok
}

// measure has the machine update itself undisturbed, and returns how long each part
// of that lasts.
func (w *watch) measure(t *testing.T, s *site) map[string]time.Duration {
	t.Helper()
	w.reset()
	s.stage(t)
	done := time.Now()
	s.restart(t)
	loaded := time.Now()
	s.up(t)
	s.good(t)
	lasts := map[string]time.Duration{trying: time.Since(loaded)}
	for what, next := range map[string]string{fetching: storing, storing: writing + " soon", writing: ""} {
		from, ok := w.when(what)
		to, ends := w.when(next)
		if next == "" {
			to, ends = done, true
		}
		if !ok || !ends {
			t.Fatalf("the machine never came as far as that %s", what)
		}
		lasts[what] = max(to.Sub(from), 100*time.Millisecond)
	}
	return lasts
}

// begin has the machine update itself until something begins, or is passed by: of
// what a cut has left there may be nothing to do.
func (w *watch) begin(t *testing.T, s *site, what string) {
	t.Helper()
	if what == trying {
		s.stage(t)
		s.restart(t)
		return
	}
	w.reset()
	s.check(t)
	over := make(chan struct{})
	ctx := within(t, s.r, 3*time.Minute)
	go func() { // to ask takes longer than some of what is waited for
		defer close(over)
		_ = retry(ctx, func() error {
			var doc api.SystemUpdate
			if err := s.c.Get(ctx, "/os/1.0/system/update", &doc); err != nil || !s.staged(doc.State) {
				return errors.New("not staged yet")
			}
			return nil
		})
	}()
	for {
		if _, begun := w.when(what); begun {
			return
		}
		select {
		case <-over:
			if ctx.Err() != nil {
				t.Fatalf("it never came to pass that %s:\n%s", what, s.r.Console.Tail(20))
			}
			t.Logf("nothing was left to do of this: %s", what)
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}
