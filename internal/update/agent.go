package update

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/incusos/incusos/internal/fetch"
	"github.com/incusos/incusos/internal/repo"
)

// Settings are what an operator wants of updates.
type Settings struct {
	Channel    string
	Every      time.Duration // how often to look; 0: never by itself
	AutoReboot bool          // restart into a new version without being asked
	Windows    []Window      // when; none: always
	UrgentFrom string        // the least severity that waits for no window; "": all wait
	Paused     bool          // nothing is done by itself

	Server string // address of the repository; "": none
	Token  string // for it
	Root   []byte // what is trusted; nil: what the image came with
}

// urgent reports whether a release waits for no window.
func (s Settings) urgent(r repo.Release) bool {
	all := repo.Severities()
	least := slices.Index(all, s.UrgentFrom)
	return least > 0 && slices.Index(all, r.Severity) >= least
}

// A Meter is told how work gets on. Package task has one.
type Meter interface {
	// Phase begins a part of the work, a few words for people.
	Phase(name string) error
	// Amount says how many bytes of the phase are done; total is 0 if it is not known.
	Amount(done, total uint64)
}

// An Agent looks for updates, stages them, and finds out what became of them. Its
// methods may be called from several goroutines.
type Agent struct {
	Records  Records
	Settings func() (Settings, error)
	Built    func() ([]byte, error) // the root that the image came with
	Machine  func() (repo.Machine, error)
	Clock    func() repo.Clock
	Proxy    fetch.Way // how a repository is reached; nil: as the process reaches others
	// Updater returns the updater of this machine, and Contents a release to be
	// written to it, which says how many bytes it has fetched.
	Updater  func() (*Updater, error)
	Contents func(from *fetch.Server, r repo.Release, amount func(done, total uint64)) (Contents, error)
	// Repairs returns what repairs the slot that has a version, the one that runs too.
	Repairs func(from *fetch.Server, r repo.Release, amount func(done, total uint64)) (Repair, error)
	Healthy func(context.Context) error
	Restart func(context.Context) error
	// Turn has the machine restart into a version once others can do without it, which
	// it does not wait for; nil: Restart does, at once.
	Turn func(ctx context.Context, version string) error

	// Medium finds a copy of a repository that somebody plugged in. It returns the
	// directory, "" for none, which is there until done is called. Nil: never any.
	Medium func() (dir string, done func(), err error)
	// Log returns what starts of the machine wrote before they failed: those since
	// the start with an id, "" if that is not known. Nil: nobody can tell.
	Log func(ctx context.Context, since string) []string
	// Boot is the id of this start.
	Boot func() string
	// AsTask does something that people can watch and cancel, and returns when that
	// has ended. Nil: it is done without.
	AsTask func(ctx context.Context, description string, do func(context.Context, Meter) error) error

	Applications Applications

	turn turn

	mu     sync.Mutex // guards status
	status Status
}

// A Status is what an Agent says of itself.
type Status struct {
	LastCheck   time.Time // zero: not since the start
	Text        string    // a sentence
	NeedsReboot bool      // a version is staged
	Done, Total uint64    // bytes of what is fetched; 0 while nothing is
	Problem     string    // the version that did not work last, and why; "": none
}

// Status returns how it is going.
func (a *Agent) Status() Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.status
}

// Say has the status say how it is going, in a sentence.
func (a *Agent) Say(format string, args ...any) {
	a.note(func(s *Status) { s.Text = fmt.Sprintf(format, args...) })
}

func (a *Agent) note(change func(*Status)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change(&a.status)
}

// Settle finds out what became of the last update, and restarts the machine if the
// version that runs is not good.
func (a *Agent) Settle(ctx context.Context) error {
	done, err := a.turn.take(ctx)
	if err != nil {
		return err
	}
	defer done()
	u, err := a.Updater()
	if err != nil {
		return err
	}
	before, err := a.Records.Load()
	if err != nil {
		return err
	}
	what, err := u.Settle(ctx, a.Healthy)
	if err != nil {
		return err
	}
	switch what {
	case Good:
		a.Say("Version %s was found good", u.Running)
	case RolledBack:
		if err := a.keepLog(ctx, before); err != nil {
			slog.WarnContext(ctx, "Cannot keep what the failed starts wrote", "err", err)
		}
		a.Say("The last update did not work, and version %s is back: %s", u.Running, a.reason(before.Version))
	case Restart:
		a.note(func(s *Status) { s.NeedsReboot = true })
		a.Say("A new version is staged; restart the machine")
	case Bad:
		slog.ErrorContext(ctx, "This version is not good; restarting", "version", u.Running)
		return a.Restart(ctx)
	case Nothing:
	}
	a.Remember()
	return nil
}

// Remember puts into the status which version failed last, as the record has it.
func (a *Agent) Remember() {
	r, err := a.Records.Load()
	if err != nil {
		return // who asks for the state is told
	}
	newest, problem := "", ""
	for version, f := range r.Failed {
		if version > newest && f.Reason != Asked {
			newest, problem = version, fmt.Sprintf("version %s did not work: %s", version, f.Reason)
		}
	}
	a.note(func(s *Status) { s.Problem = problem })
}

// reason returns why a version failed.
func (a *Agent) reason(version string) string {
	r, err := a.Records.Load()
	if err != nil {
		return err.Error()
	}
	return r.Failed[version].Reason
}

// keepLog keeps what the starts wrote that the record from before speaks of.
func (a *Agent) keepLog(ctx context.Context, before Record) error {
	if a.Log == nil {
		return nil
	}
	r, err := a.Records.Load()
	if err != nil {
		return err
	}
	r = r.clone()
	f, ok := r.Failed[before.Version]
	if !ok {
		return nil
	}
	for version, other := range r.Failed { // those of earlier failures have been read by now
		other.Log = nil
		r.Failed[version] = other
	}
	f.Log = a.Log(ctx, before.StagedBy)
	r.Failed[before.Version] = f
	return a.Records.Save(r)
}

// retry is how long to wait after a check that failed, so that machines that lost
// their server do not all come back at once.
const retry = 15 * time.Minute

// Run looks for updates as the settings say, until ctx ends. Settings that change
// count when it looks next, within a minute. What was plugged in counts at once.
func (a *Agent) Run(ctx context.Context) {
	a.lookAtMedium(ctx)
	jitter := rand.N(10 * time.Minute) //nolint:gosec // not a secret
	began := time.Now()
	failed := false
	for {
		wait := time.Minute
		s, err := a.Settings()
		if err == nil {
			wait = until(s, time.Now(), began.Add(jitter), a.Status().LastCheck, failed)
		}
		if wait == 0 {
			if failed = a.Look(ctx) != nil; failed {
				slog.WarnContext(ctx, "Cannot update", "status", a.Status().Text)
			}
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(min(wait, time.Minute)):
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// until returns how long it is until the next check: not before first, not sooner
// after the last than is wanted, and in a window unless there are urgent updates.
func until(s Settings, now, first, last time.Time, failed bool) time.Duration {
	if s.Every == 0 || s.Server == "" || s.Paused {
		return time.Minute
	}
	due := first
	if !last.IsZero() {
		due = last.Add(s.Every)
		if failed {
			due = last.Add(min(s.Every, retry))
		}
	}
	if wait := due.Sub(now); wait > 0 {
		return wait
	}
	if s.UrgentFrom != "" {
		return 0
	}
	return Allowed(s.Windows, now)
}
