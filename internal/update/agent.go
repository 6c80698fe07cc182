package update

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
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

	Server string // address of the repository; "": none
	Token  string // for it
	Root   []byte // what is trusted; nil: what the image came with
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
	// written to it.
	Updater  func() (*Updater, error)
	Contents func(*fetch.Server, repo.Release) (Contents, error)
	Healthy  func(context.Context) error
	Restart  func(context.Context) error

	turn sync.Mutex // held while something is done

	mu     sync.Mutex // guards status
	status Status
}

// A Status is what an Agent says of itself.
type Status struct {
	LastCheck   time.Time // zero: not since the start
	Text        string    // a sentence
	NeedsReboot bool      // a version is staged
}

// Status returns how it is going.
func (a *Agent) Status() Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.status
}

func (a *Agent) say(format string, args ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.status.Text = fmt.Sprintf(format, args...)
}

func (a *Agent) note(change func(*Status)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change(&a.status)
}

// Settle finds out what became of the last update, and restarts the machine if the
// version that runs is not good.
func (a *Agent) Settle(ctx context.Context) error {
	a.turn.Lock()
	defer a.turn.Unlock()
	u, err := a.Updater()
	if err != nil {
		return err
	}
	what, err := u.Settle(ctx, a.Healthy)
	if err != nil {
		return err
	}
	switch what {
	case Good:
		a.say("Version %s was found good", u.Running)
	case RolledBack:
		a.say("The last update did not work, and version %s is back: %s", u.Running, a.lastFailure())
	case Restart:
		a.note(func(s *Status) { s.NeedsReboot = true })
		a.say("A new version is staged; restart the machine")
	case Bad:
		slog.ErrorContext(ctx, "This version is not good; restarting", "version", u.Running)
		return a.Restart(ctx)
	case Nothing:
	}
	return nil
}

// lastFailure returns why the newest version that failed did.
func (a *Agent) lastFailure() string {
	r, err := a.Records.Load()
	if err != nil {
		return err.Error()
	}
	newest := ""
	for version := range r.Failed {
		newest = max(newest, version)
	}
	return r.Failed[newest].Reason
}

// Check looks for an update now, and stages it. What is wrong is in the status too.
func (a *Agent) Check(ctx context.Context) error {
	a.turn.Lock()
	defer a.turn.Unlock()
	a.say("Running update check")
	err := a.check(ctx)
	a.note(func(s *Status) {
		s.LastCheck = time.Now()
		if err != nil {
			s.Text = "Failed to update: " + err.Error()
		}
	})
	return err
}

func (a *Agent) check(ctx context.Context) error {
	s, err := a.Settings()
	if err != nil {
		return err
	}
	if s.Server == "" {
		return errors.New("no repository is set; name one in the configuration of the provider")
	}
	m, err := a.Machine()
	if err != nil {
		return err
	}
	from, err := fetch.Open(s.Server, fetch.Options{Token: s.Token, UserAgent: "IncusOS/" + m.Running, Proxy: a.Proxy})
	if err != nil {
		return err
	}
	catalog, err := a.refresh(ctx, s, from)
	if err != nil {
		return err
	}
	r, err := a.Records.Load()
	if err != nil {
		return err
	}
	m.Channel, m.Blessed = s.Channel, r.Blessed
	for version := range r.Failed {
		m.Failed = append(m.Failed, version)
	}
	choice := catalog.Choose(m)
	if choice.Release == nil {
		a.say("%s%s", choice.Why, unproven(catalog))
		return nil
	}
	return a.stage(ctx, s, from, *choice.Release)
}

// unproven is what a machine adds that cannot tell how old the news are.
func unproven(c *repo.Catalog) string {
	if !c.Unproven {
		return ""
	}
	return "; the clock of this machine was not set by a time server, so nobody knows whether that is still so"
}

// refresh brings what is known of the repository up to date.
func (a *Agent) refresh(ctx context.Context, s Settings, from *fetch.Server) (*repo.Catalog, error) {
	r, err := a.Records.Load()
	if err != nil {
		return nil, err
	}
	if r.Trusted, r.Source, err = a.trusted(r, s); err != nil {
		return nil, err
	}
	trusted, catalog, err := repo.Refresh(ctx, r.Trusted, a.Clock(), from.Metadata)
	r.Trusted = trusted
	if saveErr := a.Records.Save(r); saveErr != nil {
		return nil, errors.Join(err, saveErr)
	}
	return catalog, err
}

// trusted returns what to start from: what is known of this repository, or its root.
// A newer image may bring a newer root; what else is known of the repository stays,
// so that nothing older is taken for news.
func (a *Agent) trusted(r Record, s Settings) (repo.Trusted, string, error) {
	source, root := "", s.Root
	if root != nil {
		sum := sha256.Sum256(root)
		source = hex.EncodeToString(sum[:])
	} else {
		var err error
		if root, err = a.Built(); err != nil {
			return repo.Trusted{}, "", fmt.Errorf("this image came without the root of a repository, so give one in the configuration of the provider: %w", err)
		}
	}
	t := r.Trusted
	if source != r.Source || t.Root == nil {
		return repo.Trusted{Root: root}, source, nil
	}
	brought, _, err := repo.RootVersion(root)
	if err != nil {
		return repo.Trusted{}, "", fmt.Errorf("the root of the repository: %w", err)
	}
	if known, _, err := repo.RootVersion(t.Root); err != nil || brought > known {
		t.Root = root
	}
	return t, source, nil
}

// stage stages a release, and restarts the machine if that is wanted.
func (a *Agent) stage(ctx context.Context, s Settings, from *fetch.Server, r repo.Release) error {
	u, err := a.Updater()
	if err != nil {
		return err
	}
	c, err := a.Contents(from, r)
	if err != nil {
		return err
	}
	a.say("Downloading version %s", r.Version)
	if err := u.Stage(ctx, c); err != nil {
		return err
	}
	a.note(func(st *Status) { st.NeedsReboot = true })
	a.say("Version %s is staged; restart the machine", r.Version)
	if s.AutoReboot && Allowed(s.Windows, time.Now()) == 0 {
		return a.Restart(ctx)
	}
	return nil
}

// retry is how long to wait after a check that failed, so that machines that lost
// their server do not all come back at once.
const retry = 15 * time.Minute

// Run looks for updates as the settings say, until ctx ends. Settings that change
// count when it looks next, within a minute.
func (a *Agent) Run(ctx context.Context) {
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
			if failed = a.Check(ctx) != nil; failed {
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
// after the last than is wanted, and in a window.
func until(s Settings, now, first, last time.Time, failed bool) time.Duration {
	if s.Every == 0 || s.Server == "" {
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
	return Allowed(s.Windows, now)
}
