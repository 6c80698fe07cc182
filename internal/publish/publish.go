// Package publish keeps update repositories: directories that any web server can
// serve as they are.
//
// Files of releases are stored under their hash before the metadata that speaks of
// them is written, and that in the order in which it speaks of itself, the
// timestamp last. So a directory that is copied or served while it is changed is
// whole, and so is one whose change was cut short: what it has too much nobody
// knows of, and Prune takes it away.
//
//	publish.go  open a repository, change and sign it
//	build.go    find the files of a build
//	release.go  make a release of them
//	prune.go    take old releases away
//	mirror.go   copy a repository, or part of it, verified
//	serve.go    serve one, for those who have no web server
//
// What is signed and how, package repo says; package fetch reads repositories of
// others. Keys come from package keys by way of the caller.
package publish

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/incusos/incusos/internal/fetch"
	"github.com/incusos/incusos/internal/repo"
	"github.com/incusos/incusos/internal/sys"
)

// A Signing says who signs, and for how long that holds.
type Signing struct {
	Keys     []crypto.Signer
	Validity repo.Validity
}

// Init makes a repository in dir, which may be there if it is empty. It starts from a
// root that is signed already, which images carry, and changes the keys of the roles
// given; with a nil root, from a new one with the keys of all roles.
func Init(dir string, root []byte, roles map[string]repo.RoleKeys, s Signing) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if len(entries) > 0 {
		return fmt.Errorf("%q is not empty; name a directory that is new", dir)
	}
	author, err := begin(root, roles)
	if err != nil {
		return err
	}
	return write(dir, author, s)
}

func begin(root []byte, roles map[string]repo.RoleKeys) (*repo.Author, error) {
	if root == nil {
		return repo.Create(roles)
	}
	author, err := repo.Begin(root)
	if err != nil || len(roles) == 0 {
		return author, err
	}
	return author, author.SetKeys(roles)
}

// Change opens the repository in dir, lets do change it, then signs and writes it.
// Nobody else changes it meanwhile.
func Change(ctx context.Context, dir string, s Signing, do func(*repo.Author) error) error {
	unlock, err := lock(dir)
	if err != nil {
		return err
	}
	defer unlock()
	author, err := open(ctx, dir)
	if err != nil {
		return err
	}
	if err := do(author); err != nil {
		return err
	}
	return write(dir, author, s)
}

// Contents is what a repository has.
type Contents struct {
	Releases []repo.Release // newest first
	Root     []byte         // the newest
	Signed   time.Time      // when it was signed
	Expires  time.Time      // when machines stop believing it
}

// Show returns what is in the repository in dir.
func Show(ctx context.Context, dir string) (Contents, error) {
	author, err := open(ctx, dir)
	if err != nil {
		return Contents{}, err
	}
	c := Contents{Releases: author.Releases}
	c.Signed, c.Expires = author.Times()
	c.Root, err = author.Root()
	return c, err
}

func open(ctx context.Context, dir string) (*repo.Author, error) {
	from, err := fetch.Open(filepath.Clean(dir), fetch.Options{})
	if err != nil {
		return nil, err
	}
	author, err := repo.Open(ctx, from.Metadata)
	if errors.Is(err, repo.ErrNotFound) {
		return nil, fmt.Errorf("there is no repository in %q; make one with `incusos repo init`: %w", dir, err)
	}
	return author, err
}

// lockFile is what a repository is locked by. It is not served.
const lockFile = ".lock"

// lock keeps others from changing the repository until unlock is called.
func lock(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil { //nolint:gosec // a descriptor
		f.Close() //nolint:errcheck // nothing was written
		return nil, fmt.Errorf("somebody else is changing the repository %q; try again when they are done", dir)
	}
	return func() { f.Close() }, nil //nolint:errcheck // nothing was written
}

// write signs what has changed and writes it.
func write(dir string, author *repo.Author, s Signing) error {
	files, err := author.Sign(s.Keys, time.Now(), s.Validity)
	if err != nil {
		return err
	}
	return writeAll(sys.NewDir(dir), files)
}

// writeAll writes metadata, each file durable before the next.
func writeAll(out sys.Dir, files []repo.Written) error {
	for _, f := range files {
		if err := out.WriteFile(f.Name, f.Data, 0o644); err != nil {
			return fmt.Errorf("writing %s: %w", f.Name, err)
		}
	}
	return nil
}

// Promote puts a release into a channel, or changes how many machines may take it.
func Promote(a *repo.Author, version, channel string, percent int) error {
	r, err := a.Release(version)
	if err != nil {
		return err
	}
	if r.Withdrawn != "" {
		return fmt.Errorf("release %s was withdrawn: %s; publish a new one", version, r.Withdrawn)
	}
	if r.Channels == nil {
		r.Channels = make(map[string]repo.Phase)
	}
	if now, in := r.Channels[channel]; in && now.Percent == percent {
		return fmt.Errorf("release %s is in channel %q already, for %d percent of machines", version, channel, percent)
	}
	r.Channels[channel] = repo.Phase{Percent: percent}
	return nil
}

// Demote takes a release out of a channel. Machines that run it keep it.
func Demote(a *repo.Author, version, channel string) error {
	r, err := a.Release(version)
	if err != nil {
		return err
	}
	if _, in := r.Channels[channel]; !in {
		return fmt.Errorf("release %s is not in channel %q; it is in %s", version, channel, list(r.Channels))
	}
	delete(r.Channels, channel)
	return nil
}

// list names channels.
func list(channels map[string]repo.Phase) string {
	if len(channels) == 0 {
		return "none"
	}
	var names []string
	for name := range channels {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// SetSeverity says how much operators should hurry with a release.
func SetSeverity(a *repo.Author, version, severity string) error {
	r, err := a.Release(version)
	if err != nil {
		return err
	}
	r.Severity = severity
	return nil
}

// Withdraw keeps machines from installing a release from now on.
func Withdraw(a *repo.Author, version, reason string) error {
	r, err := a.Release(version)
	if err != nil {
		return err
	}
	if strings.TrimSpace(reason) == "" {
		return errors.New("say why it is withdrawn: operators will read it")
	}
	r.Withdrawn = reason
	return nil
}
