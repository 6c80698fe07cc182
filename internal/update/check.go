package update

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/incusos/incusos/internal/fetch"
	"github.com/incusos/incusos/internal/repo"
	"github.com/incusos/incusos/internal/verity"
)

// ErrPaused reports that somebody paused updates.
var ErrPaused = errors.New("updates are paused; resume them first")

// A look is one look for an update.
type look struct {
	settings Settings
	person   bool  // somebody asked, so that windows do not matter
	system   bool  // for the system, and not for applications alone
	meter    Meter // of the task that this is; nil: it is none
}

// Check looks for an update now since somebody asked, and stages it: without
// waiting for a window. What is wrong is in the status too. Meter may be nil.
func (a *Agent) Check(ctx context.Context, meter Meter) error {
	return a.checks(ctx, look{person: true, meter: meter}, a.check)
}

// CheckSystem is Check without a meter, and leaves the applications alone that go with
// the version that runs.
func (a *Agent) CheckSystem(ctx context.Context) error {
	return a.checks(ctx, look{person: true, system: true}, a.check)
}

// Look looks for an update because it is time to.
func (a *Agent) Look(ctx context.Context) error { return a.checks(ctx, look{}, a.check) }

// checks takes a turn with check, and notes how that went.
func (a *Agent) checks(ctx context.Context, l look, check func(context.Context, look) error) error {
	done, err := a.turn.take(ctx)
	if err != nil {
		return err
	}
	defer done()
	a.Say("Running update check")
	if l.settings, err = a.Settings(); err == nil && l.settings.Paused {
		err = ErrPaused
	}
	if err == nil {
		err = check(ctx, l)
	}
	a.note(func(s *Status) {
		s.LastCheck, s.Done, s.Total = time.Now(), 0, 0
		if err != nil {
			s.Text = "Failed to update: " + err.Error()
		}
	})
	return err
}

func (a *Agent) check(ctx context.Context, l look) error {
	if l.settings.Server != "" {
		return a.checkAt(ctx, l, l.settings.Server)
	}
	found, err := a.withMedium(ctx, l)
	if err == nil && !found {
		return errors.New("no repository is set; name one in the configuration of the provider")
	}
	return err
}

// lookAtMedium looks for an update on what was plugged in before the machine
// started. Whoever stands there wants it now.
func (a *Agent) lookAtMedium(ctx context.Context) {
	if a.Medium == nil {
		return
	}
	dir, done, err := a.Medium()
	if err == nil && dir == "" {
		return // the usual case, of which nothing is to be said
	}
	if err == nil {
		err = a.checks(ctx, look{person: true}, func(ctx context.Context, l look) error { return a.checkAt(ctx, l, dir) })
		done()
	}
	if err != nil {
		slog.WarnContext(ctx, "Cannot update from the medium", "err", err)
	}
}

// withMedium checks what was plugged in, if something was.
func (a *Agent) withMedium(ctx context.Context, l look) (found bool, err error) {
	if a.Medium == nil {
		return false, nil
	}
	dir, done, err := a.Medium()
	if err != nil || dir == "" {
		return false, err
	}
	defer done()
	return true, a.checkAt(ctx, l, dir)
}

// checkAt looks for an update in a repository.
func (a *Agent) checkAt(ctx context.Context, l look, server string) error {
	catalog, m, from, err := a.open(ctx, l.settings, server)
	if err != nil {
		return err
	}
	choice := catalog.Choose(m)
	if choice.Release == nil {
		a.Say("%s%s", choice.Why, unproven(catalog))
		return a.applications(ctx, l, from, catalog, m)
	}
	r := *choice.Release
	if !l.person && !l.settings.urgent(r) && Allowed(l.settings.Windows, time.Now()) > 0 {
		a.Say("Version %s waits for a maintenance window", r.Version)
		return nil
	}
	return a.watched(ctx, l, "update to version "+r.Version, func(ctx context.Context, m Meter) error {
		return a.stage(ctx, l.settings, from, r, m)
	})
}

// open brings what is known of a repository up to date, and says what the choice
// of a release depends on.
func (a *Agent) open(ctx context.Context, s Settings, server string) (*repo.Catalog, repo.Machine, *fetch.Server, error) {
	m, err := a.Machine()
	if err != nil {
		return nil, m, nil, err
	}
	from, err := fetch.Open(server, fetch.Options{Token: s.Token, UserAgent: "IncusOS/" + m.Running, Proxy: a.Proxy})
	if err != nil {
		return nil, m, nil, err
	}
	catalog, err := a.refresh(ctx, s, from)
	if err != nil {
		return nil, m, nil, err
	}
	r, err := a.Records.Load()
	m.Channel, m.Blessed = s.Channel, r.Blessed
	for version := range r.Failed {
		m.Failed = append(m.Failed, version)
	}
	return catalog, m, from, err
}

// watched does something as a task, unless it is part of one already. It ends when
// somebody pauses updates.
func (a *Agent) watched(ctx context.Context, l look, what string, do func(context.Context, Meter) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go a.heed(ctx, cancel)
	var err error
	switch {
	case l.meter != nil:
		err = do(ctx, l.meter)
	case a.AsTask != nil:
		err = a.AsTask(ctx, what, do)
	default:
		err = do(ctx, silent{})
	}
	if err != nil && errors.Is(context.Cause(ctx), ErrPaused) {
		return ErrPaused
	}
	return err
}

// heedEvery is how often it is looked whether somebody paused updates.
const heedEvery = time.Second

// heed cancels what is done when somebody pauses updates.
func (a *Agent) heed(ctx context.Context, cancel context.CancelCauseFunc) {
	tick := time.NewTicker(heedEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if s, err := a.Settings(); err == nil && s.Paused {
			cancel(ErrPaused)
		}
	}
}

// silent is a Meter that nobody reads.
type silent struct{}

func (silent) Phase(string) error { return nil }
func (silent) Amount(_, _ uint64) {}

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
func (a *Agent) stage(ctx context.Context, s Settings, from *fetch.Server, r repo.Release, m Meter) error {
	u, err := a.Updater()
	if err != nil {
		return err
	}
	c, err := a.Contents(from, r, a.amounts(m))
	if err != nil {
		return err
	}
	if err := a.noteBoot(); err != nil {
		return err
	}
	a.Say("Downloading version %s", r.Version)
	if err := u.Stage(ctx, metered{c, m}); err != nil {
		return err
	}
	a.note(func(st *Status) { st.NeedsReboot = true })
	a.Say("Version %s is staged; restart the machine", r.Version)
	if s.AutoReboot && (Allowed(s.Windows, time.Now()) == 0 || s.urgent(r)) {
		return a.restart(ctx, r.Version)
	}
	return nil
}

// noteBoot writes down in which start a version is staged: what starts after it
// is tried.
func (a *Agent) noteBoot() error {
	if a.Boot == nil {
		return nil
	}
	r, err := a.Records.Load()
	if err != nil || r.StagedBy == a.Boot() {
		return err
	}
	r.StagedBy = a.Boot()
	return a.Records.Save(r)
}

// amounts tells a meter and the status how many bytes were fetched.
func (a *Agent) amounts(m Meter) func(done, total uint64) {
	return func(done, total uint64) {
		m.Amount(done, total)
		a.note(func(s *Status) { s.Done, s.Total = done, total })
	}
}

// metered is a release that says what of it is being fetched.
type metered struct {
	Contents
	meter Meter
}

// Slot implements Contents.
func (c metered) Slot(ctx context.Context) (verity.Digest, error) {
	if err := c.meter.Phase("writing the system"); err != nil {
		return verity.Digest{}, err
	}
	return c.Contents.Slot(ctx)
}

// Application implements Contents.
func (c metered) Application(ctx context.Context, name string) error {
	if err := c.meter.Phase("storing application " + name); err != nil {
		return err
	}
	return c.Contents.Application(ctx, name)
}

// Kernel implements Contents.
func (c metered) Kernel(ctx context.Context) ([]byte, error) {
	if err := c.meter.Phase("fetching the kernel"); err != nil {
		return nil, err
	}
	return c.Contents.Kernel(ctx)
}

// restart has the machine start a version that is staged.
func (a *Agent) restart(ctx context.Context, version string) error {
	if a.Turn != nil {
		return a.Turn(ctx, version)
	}
	return a.Restart(ctx)
}
