package update

import (
	"context"
	"errors"
	"fmt"
)

// ErrNothing reports that there is nothing to do what was asked for with.
var ErrNothing = errors.New("this machine has no version to go back to")

// ErrNotFailed reports a version that nobody has to forgive.
var ErrNotFailed = errors.New("it was not tried, or it worked")

// Asked is why a version is not tried again that somebody left. It is no fault of it.
const Asked = "somebody asked to go back from it"

// GoBack has the boot loader start the version of the other slot from now on,
// which it returns, and not the one that runs. Two steps, in an order that leaves a
// machine that starts:
//
//  1. That the running version is not to be tried again is written down. A cut
//     here changes nothing but that: it starts again.
//  2. Its entry becomes one that is only started if there is no other.
func (u *Updater) GoBack() (version string, err error) {
	r, err := u.Records.Load()
	if err != nil {
		return "", err
	}
	entries, err := u.Loader.Entries()
	if err != nil {
		return "", fmt.Errorf("reading the entries of the boot loader: %w", err)
	}
	var running Entry
	for _, e := range entries {
		switch {
		case e.Version == u.Running:
			running = e
		case !e.Counted:
			version = e.Version
		}
	}
	if version == "" || running.Version == "" {
		return "", ErrNothing
	}
	if u.Unlocks != nil {
		if err := u.Unlocks(version); err != nil {
			return "", fmt.Errorf("version %s would not unlock the disk by itself, so that it is not gone back to; a repair may mend it: %w", version, err)
		}
	}
	r = r.clone()
	r.Failed[u.Running] = Failure{Reason: Asked}
	if r.Version == u.Running { // it was being tried, which is over
		r.Phase, r.Version, r.Reason = Idle, "", ""
	}
	if err := u.Records.Save(r); err != nil {
		return "", fmt.Errorf("writing down that version %s is left: %w", u.Running, err)
	}
	if err := u.Loader.Shelve(running); err != nil {
		return "", fmt.Errorf("having the boot loader start version %s: %w", version, err)
	}
	return version, nil
}

// GoBack goes back to the version before with the next restart, and restarts at
// once if that is wanted.
func (a *Agent) GoBack(ctx context.Context, restart bool) error {
	done, err := a.turn.try()
	if err != nil {
		return err
	}
	defer done()
	u, err := a.Updater()
	if err != nil {
		return err
	}
	version, err := u.GoBack()
	if err != nil {
		return err
	}
	a.note(func(s *Status) { s.NeedsReboot = true })
	a.Say("Version %s comes back with the next restart, as somebody asked", version)
	a.Remember()
	if restart {
		return a.Restart(ctx)
	}
	return nil
}

// Forgive lets a version be tried again that did not work; "" all that did not.
func (a *Agent) Forgive(version string) error {
	done, err := a.turn.try()
	if err != nil {
		return err
	}
	defer done()
	r, err := a.Records.Load()
	if err != nil {
		return err
	}
	if _, ok := r.Failed[version]; !ok && version != "" {
		return fmt.Errorf("version %q: %w", version, ErrNotFailed)
	}
	r = r.clone()
	if version == "" {
		clear(r.Failed)
	}
	delete(r.Failed, version)
	if err := a.Records.Save(r); err != nil {
		return err
	}
	a.Remember()
	return nil
}
