package apps

import (
	"context"
	"log/slog"
)

// keptFiles are of what Incus makes at its first start, the first and the last.
func keptFiles() []string { return []string{incusDir + "/server.key", incusDir + "/database"} }

// clearCutStart removes what Incus kept if its first start on it was cut. Incus
// flushes neither its keys nor its first database, so that after a power cut it
// may find empty files, on which it never starts again. Nobody has put anything
// into it by then. It is looked at once in the life of this process: later, it is
// our own first start that has come so far.
func (a *Apps) clearCutStart(ctx context.Context) error {
	if a.looked {
		return nil
	}
	if a.hasAnswered() || !a.host.Files.Exists(keptFiles()[0]) && !a.host.Files.Exists(keptFiles()[1]) {
		a.looked = true
		return nil
	}
	slog.Warn("The first start of Incus was cut; it begins anew")
	if err := a.stopIncus(ctx); err != nil {
		return err
	}
	// Its directories are made again with the users and directories of the image.
	if err := a.update(func(s *Saved) { delete(s.Populated, incusName) }); err != nil {
		return err
	}
	if err := a.removeAll(); err != nil {
		return err
	}
	a.looked = true
	return nil
}

// hasAnswered reports whether Incus has come up on what is in its directory, or
// that is somebody's backup.
func (a *Apps) hasAnswered() bool {
	s := a.saved.Get()
	return s.Answered || s.Initialized || len(s.Preseeded) > 0 || a.host.Files.Exists(incusDir+"/"+restoredMark)
}

// answered records that Incus has come up, when all it has made for that is on
// the disk.
func (a *Apps) answered() error {
	if a.saved.Get().Answered {
		return nil
	}
	if err := a.host.Files.SyncTree(incusDir); err != nil {
		return err
	}
	return a.update(func(s *Saved) { s.Answered = true })
}
