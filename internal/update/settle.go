package update

import (
	"cmp"
	"context"
	"fmt"
)

// An Outcome is what the machine has to do after it was settled.
type Outcome string

// Outcomes.
const (
	Nothing    Outcome = "nothing"     // no update is under way, or it goes on
	Restart    Outcome = "restart"     // a version waits to be tried
	Good       Outcome = "good"        // the version that runs was found good just now
	Bad        Outcome = "bad"         // it was not: restart, so that it is tried again or the old one comes back
	RolledBack Outcome = "rolled back" // the one that was tried did not work, and this is the old one again
)

// Settle finds out after a start what became of an update. If the version that runs
// is being tried, healthy says whether it is good; it has to come to an end by
// itself. Settle can be called again after any failure or cut.
func (u *Updater) Settle(ctx context.Context, healthy func(context.Context) error) (Outcome, error) {
	r, err := u.Records.Load()
	if err != nil {
		return Nothing, err
	}
	r = r.clone()
	running, ok, err := u.entry(u.Running)
	if err != nil {
		return Nothing, err
	}
	if _, left := r.Failed[u.Running]; ok && running.Counted && r.Version != u.Running && !left {
		// It was staged, and before its entry was removed for a newer one the
		// power failed. Whatever the record says, it is being tried.
		r.Phase, r.Version, r.Reason = Staged, u.Running, ""
	}
	if r.Phase != Staged && r.Phase != Trying {
		return Nothing, nil
	}
	e, ok, err := u.entry(r.Version)
	if err != nil {
		return Nothing, err
	}
	if r.Version == u.Running {
		return u.try(ctx, r, e, healthy)
	}
	switch {
	case !ok && r.Phase == Staged: // cut before the entry was there
		r.Phase = Fetching
		return Nothing, u.Records.Save(r)
	case ok && !e.Counted: // it was found good, and somebody chose the old one since
		return Nothing, u.bless(r)
	case ok && !e.Exhausted():
		return Restart, nil
	}
	return RolledBack, u.rollBack(r, e, ok)
}

// try finds out whether the version that runs is good. It is blessed in the boot
// loader first: a cut after that finds an entry without a counter, which says the
// same.
func (u *Updater) try(ctx context.Context, r Record, e Entry, healthy func(context.Context) error) (Outcome, error) {
	if r.Phase == Staged {
		r.Phase = Trying
		if err := u.Records.Save(r); err != nil {
			return Nothing, fmt.Errorf("writing down that version %s is tried: %w", r.Version, err)
		}
	}
	if !e.Counted {
		return Good, u.bless(r)
	}
	if err := healthy(ctx); err != nil {
		r.Reason = err.Error()
		return Bad, u.Records.Save(r)
	}
	if err := u.Loader.Bless(e); err != nil {
		return Nothing, fmt.Errorf("blessing version %s: %w", r.Version, err)
	}
	return Good, u.bless(r)
}

// bless writes down that a version is good.
func (u *Updater) bless(r Record) error {
	r.Blessed = max(r.Blessed, r.Version)
	r.Phase, r.Version, r.Reason = Idle, "", ""
	return u.Records.Save(r)
}

// rollBack writes down that a version did not work, and then takes its entry away.
// A cut between the two leaves an entry that nobody starts.
func (u *Updater) rollBack(r Record, e Entry, ok bool) error {
	r.Failed[r.Version] = Failure{Reason: cmp.Or(r.Reason, "it never came as far as to say what was wrong")}
	r.Phase, r.Version, r.Reason = Idle, "", ""
	if err := u.Records.Save(r); err != nil {
		return fmt.Errorf("writing down that a version did not work: %w", err)
	}
	if !ok {
		return nil
	}
	return u.Loader.Remove(e)
}

// Forgive lets a version be tried again that did not work. For a person to ask.
func (u *Updater) Forgive(version string) error {
	r, err := u.Records.Load()
	if err != nil {
		return err
	}
	r = r.clone()
	delete(r.Failed, version)
	return u.Records.Save(r)
}
