package apps

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/incus"
	"github.com/incusos/incusos/internal/task"
)

// A backup is unpacked beside the directory of Incus, and the two change their
// names at once. The mark lies in the one that came from the backup, so that at
// any time it can be told which is which.
const (
	arrivingDir  = "/var/lib/incus.arriving" // not complete
	besideDir    = "/var/lib/incus.beside"   // complete: the backup, or what it takes the place of
	restoredMark = ".restored-by-incus-os"
)

// The phases of a restore that it matters to have begun.
const keepPhase = "removing the old data"

// Receive unpacks a backup of Incus and makes it ready to take the place of what
// Incus has. It changes nothing else.
func (a *Apps) Receive(ctx context.Context, archive io.Reader) error {
	if err := a.tidy(ctx); err != nil {
		return err
	}
	files := a.host.Files
	if err := files.MkdirAll(arrivingDir, 0o711); err != nil {
		return fmt.Errorf("unpacking the backup: %w", err)
	}
	if err := a.unpackBackup(archive); err != nil {
		return errors.Join(err, a.remove(arrivingDir))
	}
	err := files.WriteFile(arrivingDir+"/"+restoredMark, nil, 0o600)
	if err == nil {
		err = files.SyncTree(arrivingDir)
	}
	if err == nil {
		err = files.Rename(arrivingDir, besideDir)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("unpacking the backup: %w", err), a.remove(arrivingDir))
	}
	return nil
}

// spare is how much room is left on the file system that a backup is unpacked on.
const spare = 256 << 20

func (a *Apps) unpackBackup(archive io.Reader) error {
	_, free, err := a.host.Mounts.Usage(arrivingDir)
	if err != nil {
		return fmt.Errorf("looking how much room there is: %w", err)
	}
	root, err := os.OpenRoot(a.host.Files.Path(arrivingDir))
	if err != nil {
		return err
	}
	defer root.Close()
	u := unpacker{root: root, room: free - min(free, spare), own: os.Geteuid() == 0}
	if err := u.unpack(archive); err != nil {
		return err
	}
	if fi, err := root.Lstat(database); err != nil || !fi.IsDir() {
		return api.Errorf(api.Invalid, "the archive is no backup of Incus: it has no directory %q", database)
	}
	return nil
}

// tidy removes what an earlier restore left. Where that ended with Incus on the
// backup and nobody knows how it fares, Incus is asked.
func (a *Apps) tidy(ctx context.Context) error {
	if err := a.remove(arrivingDir); err != nil {
		return err
	}
	files := a.host.Files
	if files.Exists(besideDir) && !files.Exists(besideDir+"/"+restoredMark) {
		limited, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		if _, err := version(limited, incus.Dial(files), answerTime); err != nil {
			return api.Errorf(api.Conflict, "an earlier restore did not end well, and %s still holds what Incus had before: %v", besideDir, err)
		}
	}
	return a.remove(besideDir)
}

// restore puts in place what Receive made ready. What Incus had is kept until it
// answers, and put back if it does not.
func (a *Apps) restore(ctx context.Context, o order, p *task.Progress) error {
	if p.Resumed() == keepPhase {
		return a.keep(o, p)
	}
	if err := a.swapIn(ctx, p); err != nil {
		return err
	}
	if err := p.Phase("starting Incus"); err != nil {
		return err
	}
	if err := a.startIncus(ctx); err != nil {
		if ctx.Err() != nil {
			return err // the machine stops; the next start goes on here
		}
		return a.putBack(context.WithoutCancel(ctx), p, err)
	}
	if err := a.keep(o, p); err != nil {
		return err
	}
	return a.apply(ctx)
}

// swapIn exchanges the directories, unless that was done before a cut.
func (a *Apps) swapIn(ctx context.Context, p *task.Progress) error {
	if err := p.Phase("stopping instances and Incus"); err != nil {
		return err
	}
	files := a.host.Files
	switch {
	case files.Exists(besideDir + "/" + restoredMark):
	case files.Exists(incusDir + "/" + restoredMark):
		return nil
	default:
		return errors.New("the unpacked backup is gone; restore it once more")
	}
	if err := wait(ctx, a.options.Pause); err != nil {
		return err
	}
	err := a.stopIncus(ctx)
	if err == nil {
		err = files.MkdirAll(incusDir, 0o711) // there may be none yet to change places with
	}
	if err == nil {
		err = files.Exchange(incusDir, besideDir)
	}
	if err != nil && !files.Exists(incusDir+"/"+restoredMark) {
		return errors.Join(fmt.Errorf("putting the backup in place: %w", err), a.apply(context.WithoutCancel(ctx)))
	}
	return err
}

// putBack has Incus run on what it had before.
func (a *Apps) putBack(ctx context.Context, p *task.Progress, why error) error {
	err := p.Phase("putting the old data back")
	if err == nil {
		err = a.stopIncus(ctx)
	}
	if err == nil {
		err = a.host.Files.Exchange(incusDir, besideDir)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("starting Incus on the backup: %w", why), fmt.Errorf("and putting the old data back: %w", err))
	}
	if err := errors.Join(a.apply(ctx), a.remove(besideDir)); err != nil {
		return errors.Join(fmt.Errorf("starting Incus on the backup: %w; it has its old data again", why), err)
	}
	return fmt.Errorf("starting Incus on the backup: %w; it has its old data again", why)
}

// keep makes the backup what Incus has. It comes to the same however often it is
// cut: the mark goes last.
func (a *Apps) keep(o order, p *task.Progress) error {
	if err := p.Phase(keepPhase); err != nil {
		return err
	}
	now := time.Now().UTC().Truncate(time.Second)
	err := a.update(func(s *Saved) {
		if s.Restored == nil {
			s.Restored = make(map[string]time.Time)
		}
		s.Restored[o.Name] = now
		s.Initialized, s.Preseeded = true, nil // what it was set up with is in the backup
	})
	if err != nil {
		return err
	}
	if err := a.remove(besideDir); err != nil {
		return err
	}
	mark := incusDir + "/" + restoredMark
	if !a.host.Files.Exists(mark) {
		return nil
	}
	return a.host.Files.Remove(mark)
}
