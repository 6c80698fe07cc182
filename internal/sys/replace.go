package sys

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
)

// A Replacement is a file being written that takes the place of another only
// when it is complete and on disk. Every Replacement ends with Commit or Abort.
type Replacement struct {
	*os.File
	dir  Dir
	name string
}

// Create starts a replacement of name. Missing parents are created 0755.
func (d Dir) Create(name string, perm fs.FileMode) (*Replacement, error) {
	if err := d.check("write", name); err != nil {
		return nil, err
	}
	p := d.Path(name)
	if err := d.mkdirs(filepath.Dir(filepath.Clean("/"+name)), 0o755); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(filepath.Dir(p), "."+filepath.Base(p)+".*")
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(perm); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	d.told(StepMake, d.seen(f.Name()), "")
	return &Replacement{File: f, dir: d, name: name}, nil
}

// Commit flushes what was written and puts it in place.
func (r *Replacement) Commit() error {
	tmp := r.dir.seen(r.Name())
	r.dir.told(StepWrite, tmp, "")
	if err := r.Sync(); err != nil {
		return errors.Join(err, r.Abort())
	}
	r.dir.told(StepFlush, tmp, "")
	if err := r.Close(); err != nil {
		return errors.Join(err, os.Remove(r.Name()))
	}
	if err := os.Rename(r.Name(), r.dir.Path(r.name)); err != nil {
		return errors.Join(err, os.Remove(r.Name()))
	}
	r.dir.told(StepRename, tmp, filepath.Clean("/"+r.name))
	return r.dir.SyncDir(filepath.Dir(r.name))
}

// Abort throws away what was written; the old file stays.
func (r *Replacement) Abort() error {
	return errors.Join(r.Close(), os.Remove(r.Name()))
}

// replacement is the name of a file that Create makes: ".NAME.NUMBER".
var replacement = regexp.MustCompile(`^\..+\.[0-9]+$`)

// Sweep removes what replacements left in the directory name and below, which
// were neither committed nor aborted since the power failed or the program was
// killed. It returns their names. Nobody may be writing there.
func (d Dir) Sweep(name string) (swept []string, err error) {
	var failed []error
	err = filepath.WalkDir(d.Path(name), func(p string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			failed = append(failed, err) // the rest may be swept all the same
			return nil
		case !e.Type().IsRegular() || !replacement.MatchString(e.Name()):
			return nil
		}
		if err := d.Remove(d.seen(p)); err != nil {
			failed = append(failed, err)
			return nil
		}
		swept = append(swept, d.seen(p))
		return nil
	})
	return swept, errors.Join(append(failed, err)...)
}
