package sys

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Append adds data to the end of a file and flushes it. A file that is not there
// is made, with its parents. After a cut meanwhile, any part of data may be there;
// what was in the file before always is.
func (d Dir) Append(name string, data []byte, perm fs.FileMode) error {
	if err := d.check("write", name); err != nil {
		return err
	}
	if !d.Exists(name) {
		return d.begin(name, data, perm)
	}
	return d.extend(name, os.O_APPEND, data, perm)
}

// begin makes a file that Append can add to.
func (d Dir) begin(name string, data []byte, perm fs.FileMode) error {
	dir := filepath.Dir(filepath.Clean("/" + name))
	if err := d.mkdirs(dir, 0o755); err != nil {
		return err
	}
	if err := d.extend(name, os.O_APPEND|os.O_CREATE, data, perm); err != nil {
		return err
	}
	return d.SyncDir(dir)
}

func (d Dir) extend(name string, flags int, data []byte, perm fs.FileMode) error {
	f, err := os.OpenFile(d.Path(name), os.O_WRONLY|flags, perm)
	if err != nil {
		return err
	}
	if flags&os.O_CREATE != 0 {
		d.told(StepMake, name, "")
	}
	_, err = f.Write(data)
	d.told(StepWrite, name, "")
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		d.told(StepFlush, name, "")
	}
	return errors.Join(err, f.Close())
}
