package backup

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/incusos/incusos/internal/sys"
)

// Where a restore lies until the next start: the first counts, the second is
// one that was cut while it was staged.
const (
	staged = dir + ".restore"
	half   = staged + ".new"
)

// listName is the file beside the staged ones that says what is to be done. It
// goes last.
const listName = "list"

// A list is what a restore does: files to put in place, and to remove.
type list struct {
	Put    []string `json:"put"`
	Remove []string `json:"remove"`
}

// Finish puts a staged restore in place, if there is one. It must run before any
// document is loaded. After a cut or an error it can be called again and goes on:
// files are moved, which takes no room, and one that is not there any more has
// been moved.
func Finish(files sys.Dir) error {
	if err := finish(files); err != nil {
		return fmt.Errorf("finishing the restore of a backup: %w; restart the machine to try again", err)
	}
	return nil
}

func finish(files sys.Dir) error {
	if files.Exists(half) {
		if err := files.RemoveAll(half); err != nil {
			return err
		}
	}
	if !files.Exists(staged) {
		return nil
	}
	content, err := files.ReadFile(staged + "/" + listName)
	if errors.Is(err, fs.ErrNotExist) {
		return files.RemoveAll(staged) // cut while this was done before
	}
	var l list
	if err == nil {
		err = json.Unmarshal(content, &l)
	}
	if err != nil {
		return err
	}
	if err := l.carryOut(files); err != nil {
		return err
	}
	slog.Info("Restore of a backup is done", "files", l.Put)
	return files.RemoveAll(staged)
}

func (l list) carryOut(files sys.Dir) error {
	if err := files.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, file := range l.Put {
		if from := staged + "/" + file; files.Exists(from) {
			if err := files.Rename(from, dir+"/"+file); err != nil {
				return err
			}
		}
	}
	for _, file := range l.Remove {
		if err := files.Remove(dir + "/" + file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return files.SyncDir(dir)
}
