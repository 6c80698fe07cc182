package host

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"github.com/incusos/incusos/internal/sys"
)

// A delivery is a file that somebody else reads when told to. What was read is
// noted in /run, so that telling which did not work is done again. Without a
// note, what lies there was read at the start.
type delivery struct {
	files   sys.Dir
	file    string
	content string // "" for no file
	stamp   string // the note's name
}

// due reports whether there is something to write, to remove or to tell.
func (d delivery) due() (bool, error) {
	now, err := d.files.ReadFile(d.file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("reading what is in place: %w", err)
	}
	told, err := d.told()
	return string(now) != d.content || told != "" && told != d.digest(), err
}

// told returns the digest of what was told last, "" for what lay there at the
// start and unfinished for who knows what.
func (d delivery) told() (string, error) {
	note, err := d.files.ReadFile(d.stamp)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("reading what was told: %w", err)
	}
	return string(note), nil
}

const unfinished = "being told"

func (d delivery) digest() string {
	sum := sha256.Sum256([]byte(d.content))
	return hex.EncodeToString(sum[:])
}

// begin notes that what comes now has to be done to its end.
func (d delivery) begin() error { return d.files.WriteFile(d.stamp, []byte(unfinished), 0o600) }

// write puts the file in place. Its reader need not run as root, so that the
// directory is opened to it whatever the umask is.
func (d delivery) write() error {
	if d.content == "" {
		if err := d.files.Remove(d.file); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if err := openDir(d.files, path.Dir(d.file)); err != nil {
		return err
	}
	return d.files.WriteFile(d.file, []byte(d.content), 0o644)
}

// done notes that the file was read.
func (d delivery) done() error { return d.files.WriteFile(d.stamp, []byte(d.digest()), 0o600) }
