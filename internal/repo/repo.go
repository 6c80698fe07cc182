// Package repo knows the update repository: what is in it, who signed it, and
// which release a machine may take. It is made as The Update Framework says
// (TUF specification 1.0.31), so that neither the server nor anybody on the way
// can make a machine install what was not published, or hide for long what was.
//
//	metadata/N.root.json      which keys may sign what; each signed by the one before
//	metadata/timestamp.json   which snapshot is the newest; expires soon
//	metadata/N.snapshot.json  which list of targets is the newest
//	metadata/N.targets.json   all files, with what a machine needs to know of them
//	targets/DIR/HASH.NAME     the files, each under its SHA-256
//
//	repo.go     a machine's side: from what it trusts to what is newer
//	clock.go    which time it is for a machine whose clock may be wrong
//	catalog.go  the list of targets, read: releases and their files
//	custom.go   how they are written in it
//	choose.go   which release a machine may take
//	author.go   the publisher's side
//	sign.go     and its keys
//
// Nothing here opens a file or a connection: bytes come from a Fetch, and the time
// from the caller. Package fetch downloads, publish writes repositories, update
// decides when.
package repo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"
)

// Most bytes a file of the metadata may have. Targets have about 500 bytes for
// each file, and a release about 15 files.
const (
	maxRoot      = 512 << 10
	maxTimestamp = 16 << 10
	maxSnapshot  = 64 << 10
	maxTargets   = 16 << 20
)

// maxRotations is how many changes of keys a machine follows at a time.
const maxRotations = 1024

// ErrNotFound is what a Fetch returns for a file that is not there.
var ErrNotFound = errors.New("the repository has no such file")

// A Fetch returns a file of the repository, such as "metadata/timestamp.json". It
// fails if the file has more than limit bytes.
type Fetch func(ctx context.Context, name string, limit int64) ([]byte, error)

// Trusted is what a machine has verified, as the files say it. The root comes with
// the image; the others may be empty.
type Trusted struct {
	Root      []byte `json:"root"`
	Timestamp []byte `json:"timestamp,omitempty"`
	Snapshot  []byte `json:"snapshot,omitempty"`
	Targets   []byte `json:"targets,omitempty"`
}

// Refresh brings what a machine trusts up to date, in the order of section 5.3 of
// the specification. What it returns is to be kept even if there is an error:
// changes of keys that were verified are not asked for again.
//
// An *Error says which file could not be accepted; IsExpired tells whether that is
// because of its age.
func Refresh(ctx context.Context, t Trusted, clock Clock, fetch Fetch) (Trusted, *Catalog, error) {
	c := client{trusted: t, fetch: fetch}
	if err := c.begin(time.Time{}); err != nil {
		return t, nil, err
	}
	if err := c.root(ctx); err != nil {
		return c.trusted, nil, err
	}
	now, second := clock.times(c.signedAt())
	catalog, err := c.run(ctx, now)
	if IsExpired(err) && !second.IsZero() {
		if catalog, err = c.run(ctx, second); err == nil {
			catalog.Unproven = true
		}
	}
	return c.trusted, catalog, err
}

// begin starts from what is trusted, at the time now.
func (c *client) begin(now time.Time) (err error) {
	if c.tm, err = trustedmetadata.New(c.trusted.Root); err != nil {
		return &Error{"the root this machine came with", err}
	}
	c.tm.RefTime = now
	return nil
}

// run does what comes after the roots.
func (c *client) run(ctx context.Context, now time.Time) (*Catalog, error) {
	if err := c.begin(now); err != nil {
		return nil, err
	}
	for _, step := range []func(context.Context) error{c.timestamp, c.snapshot, c.targets} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return newCatalog(c.tm), nil
}

// A client is a refresh in progress.
type client struct {
	tm      *trustedmetadata.TrustedMetadata
	trusted Trusted
	fetch   Fetch
}

// root follows the changes of keys, one after the other. That roots on the way
// have expired does not matter, and a machine may have missed any number of them.
func (c *client) root(ctx context.Context) error {
	for range maxRotations {
		name := fmt.Sprintf("metadata/%d.root.json", c.tm.Root.Signed.Version+1)
		b, err := c.fetch(ctx, name, maxRoot)
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := c.tm.UpdateRoot(b); err != nil {
			return &Error{name, err}
		}
		c.trusted.Root = b
	}
	return fmt.Errorf("the repository has changed its keys more than %d times; run the check again", maxRotations)
}

// timestamp loads the timestamp. The one from before is read first: the new one
// must not be older. If the keys have changed since it is not accepted any more,
// and with it goes what a thief of the old keys could have made of it.
func (c *client) timestamp(ctx context.Context) error {
	if c.trusted.Timestamp != nil {
		c.tm.UpdateTimestamp(c.trusted.Timestamp) //nolint:errcheck // what was wrong with it then does not matter now
	}
	const name = "metadata/timestamp.json"
	b, err := c.fetch(ctx, name, maxTimestamp)
	if err != nil {
		return err
	}
	if err := wellFormed(b, metadata.Timestamp(), func(m *metadata.TimestampType) bool { return m.Meta[snapshotFile] != nil }); err != nil {
		return &Error{name, err}
	}
	before := c.tm.Timestamp
	_, err = c.tm.UpdateTimestamp(b)
	if equal := (&metadata.ErrEqualVersionNumber{}); errors.As(err, &equal) {
		return nil // no news; if it has expired the snapshot is refused
	}
	if c.tm.Timestamp != before {
		c.trusted.Timestamp = b // even if it has expired: nothing older is taken from now on
	}
	if err != nil {
		return &Error{name, err}
	}
	return nil
}

// Names of files in the metadata.
const (
	snapshotFile = "snapshot.json"
	targetsFile  = "targets.json"
)

// wellFormed reports whether b has what the library takes for granted.
func wellFormed[T metadata.Roles](b []byte, m *metadata.Metadata[T], whole func(*T) bool) error {
	got, err := m.FromBytes(b)
	if err != nil {
		return err
	}
	if !whole(&got.Signed) {
		return errors.New("something is missing in it")
	}
	return nil
}

func (c *client) snapshot(ctx context.Context) error {
	meta := c.tm.Timestamp.Signed.Meta[snapshotFile]
	if c.trusted.Snapshot != nil {
		if _, err := c.tm.UpdateSnapshot(c.trusted.Snapshot, true); err == nil {
			return nil
		}
	}
	name := fmt.Sprintf("metadata/%d.%s", meta.Version, snapshotFile)
	b, err := c.fetch(ctx, name, limitOf(meta, maxSnapshot))
	if err != nil {
		return err
	}
	if err := wellFormed(b, metadata.Snapshot(), func(m *metadata.SnapshotType) bool { return m.Meta[targetsFile] != nil }); err != nil {
		return &Error{name, err}
	}
	if _, err := c.tm.UpdateSnapshot(b, false); err != nil {
		return &Error{name, err}
	}
	c.trusted.Snapshot = b
	return nil
}

func (c *client) targets(ctx context.Context) error {
	meta := c.tm.Snapshot.Signed.Meta[targetsFile]
	if c.trusted.Targets != nil {
		if _, err := c.tm.UpdateTargets(c.trusted.Targets); err == nil {
			return nil
		}
	}
	name := fmt.Sprintf("metadata/%d.%s", meta.Version, targetsFile)
	b, err := c.fetch(ctx, name, limitOf(meta, maxTargets))
	if err != nil {
		return err
	}
	if _, err := c.tm.UpdateTargets(b); err != nil {
		return &Error{name, err}
	}
	c.trusted.Targets = b
	return nil
}

// limitOf returns how large a file may be.
func limitOf(m *metadata.MetaFiles, most int64) int64 {
	if m.Length > 0 && m.Length < most {
		return m.Length
	}
	return most
}

// An Error reports a file of the repository that cannot be accepted.
type Error struct {
	File string
	Err  error
}

func (e *Error) Error() string {
	if IsExpired(e.Err) {
		return fmt.Sprintf("%s has expired: the repository is no longer looked after, or somebody holds back a newer one; its publisher runs `incusos repo refresh`", e.File)
	}
	return fmt.Sprintf("%s cannot be accepted: %v", e.File, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// IsExpired reports whether a file was refused because of its age.
func IsExpired(err error) bool {
	expired := &metadata.ErrExpiredMetadata{}
	return errors.As(err, &expired)
}
