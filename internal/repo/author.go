package repo

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// An Author changes a repository. What it does to Releases and to the keys counts
// once Sign has returned the files and they are written, in their order.
type Author struct {
	Releases []Release // newest first

	first     []byte // a root that others signed, and that is not written yet; nil: none
	root      *metadata.Metadata[metadata.RootType]
	newRoot   *metadata.Metadata[metadata.RootType] // to be signed; nil: no change of keys
	targets   *metadata.Metadata[metadata.TargetsType]
	snapshot  *metadata.Metadata[metadata.SnapshotType]
	timestamp *metadata.Metadata[metadata.TimestampType]
}

// A Validity says for how long metadata holds once it is signed.
type Validity struct {
	Root      time.Duration
	Targets   time.Duration // and snapshots
	Timestamp time.Duration // the repository has to be refreshed within this time
}

// DefaultValidity is for a publisher without a machine that refreshes by itself.
// A shorter timestamp limits for how long updates can be hidden from a machine.
func DefaultValidity() Validity {
	const day = 24 * time.Hour
	return Validity{Root: 10 * 365 * day, Targets: 365 * day, Timestamp: 30 * day}
}

// A Written is a file of the metadata to write.
type Written struct {
	Name string // such as "metadata/timestamp.json"
	Data []byte
}

// Create begins a repository in which the keys of each role are those given.
func Create(keys map[string]RoleKeys) (*Author, error) {
	a := &Author{newRoot: metadata.Root()}
	a.newRoot.Signed.Version = 0
	return a, a.SetKeys(keys)
}

// FirstRoot returns the first root of a repository, in which the keys of each role are
// those given. The same keys and the same time give the same bytes if the keys sign as
// Ed25519 does (RFC 8032), so that it can be made wherever the keys are.
func FirstRoot(keys map[string]RoleKeys, with []crypto.Signer, expires time.Time) ([]byte, error) {
	a, err := Create(keys)
	if err != nil {
		return nil, err
	}
	w, err := a.signRoot(with, expires.UTC().Truncate(time.Second), Validity{})
	if err != nil {
		return nil, err
	}
	return w.Data, nil
}

// Begin begins a repository with the root that FirstRoot made.
func Begin(root []byte) (*Author, error) {
	m, err := metadata.Root().FromBytes(root)
	if err != nil {
		return nil, fmt.Errorf("the root of the repository: %w", err)
	}
	if m.Signed.Version != 1 {
		return nil, fmt.Errorf("the root of the repository has version %d; want the first", m.Signed.Version)
	}
	if err := m.VerifyDelegate(metadata.ROOT, m); err != nil {
		return nil, fmt.Errorf("the root of the repository: %w", err)
	}
	return &Author{first: root, root: m}, nil
}

// Open reads a repository to change it. Its age does not matter: a repository that
// has expired can be refreshed.
func Open(ctx context.Context, fetch Fetch) (*Author, error) {
	first, err := fetch(ctx, "metadata/1.root.json", maxRoot)
	if err != nil {
		return nil, err
	}
	c := client{trusted: Trusted{Root: first}, fetch: fetch}
	if err := c.begin(time.Time{}); err != nil {
		return nil, err
	}
	if err := c.root(ctx); err != nil {
		return nil, err
	}
	newest := c.tm.Root
	catalog, err := c.run(ctx, time.Time{})
	if err != nil && newest.Signed.Version > 1 { // a change of keys was cut short: the rest is signed by the old ones
		if c.trusted.Root, err = fetch(ctx, fmt.Sprintf("metadata/%d.root.json", newest.Signed.Version-1), maxRoot); err == nil {
			catalog, err = c.run(ctx, time.Time{})
		}
	}
	if err != nil {
		return nil, err
	}
	a := &Author{root: newest, targets: c.tm.Targets[metadata.TARGETS], snapshot: c.tm.Snapshot, timestamp: c.tm.Timestamp}
	if len(catalog.Problems) > 0 {
		return nil, fmt.Errorf("the repository has releases that this program does not understand; use a newer one: %s", catalog.Problems[0])
	}
	a.Releases = catalog.Releases
	return a, nil
}

// SetKeys changes the keys of roles. The others stay.
func (a *Author) SetKeys(keys map[string]RoleKeys) error {
	if a.newRoot == nil {
		b, err := a.root.ToBytes(false)
		if err != nil {
			return err
		}
		if a.newRoot, err = metadata.Root().FromBytes(b); err != nil {
			return err
		}
	}
	for role, k := range keys {
		if !slices.Contains(Roles(), role) {
			return fmt.Errorf("there is no role %q; want one of root, targets, snapshot and timestamp", role)
		}
		if err := setRole(&a.newRoot.Signed, role, k); err != nil {
			return err
		}
	}
	dropUnused(&a.newRoot.Signed)
	return nil
}

// Release returns the release of that version, to be changed.
func (a *Author) Release(version string) (*Release, error) {
	for i := range a.Releases {
		if a.Releases[i].Version == version {
			return &a.Releases[i], nil
		}
	}
	return nil, fmt.Errorf("there is no release %q in the repository", version)
}

// Add adds a release, which must be one more version.
func (a *Author) Add(r Release) error {
	if _, err := a.Release(r.Version); err == nil {
		return fmt.Errorf("release %s is in the repository already", r.Version)
	}
	a.Releases = append(a.Releases, r)
	slices.SortFunc(a.Releases, func(x, y Release) int { return cmp.Compare(y.Version, x.Version) })
	return nil
}

// Sign signs what has changed, what has used up half its time, and a new
// timestamp. It returns the files in the order in which they must be written: each
// speaks of none that is not there yet.
func (a *Author) Sign(keys []crypto.Signer, now time.Time, v Validity) ([]Written, error) {
	now = now.UTC().Truncate(time.Second)
	if at, _ := a.Times(); now.Before(at) {
		return nil, fmt.Errorf("the clock says %s, and the repository was signed at %s; set the clock", now.Format(time.RFC3339), at.Format(time.RFC3339))
	}
	var files []Written
	before := *a
	if a.first != nil {
		files, a.first = append(files, Written{"metadata/1.root.json", a.first}), nil
	}
	for _, step := range []func([]crypto.Signer, time.Time, Validity) (*Written, error){a.signRoot, a.signTargets, a.signSnapshot, a.signTimestamp} {
		w, err := step(keys, now, v)
		if err != nil {
			*a = before // nothing was written
			return nil, err
		}
		if w != nil {
			files = append(files, *w)
		}
	}
	return files, nil
}

// Times returns when the repository was signed and when that expires; both are zero
// before that.
func (a *Author) Times() (signed, expires time.Time) {
	if a.timestamp == nil {
		return time.Time{}, time.Time{}
	}
	return signedAt(a.timestamp), a.timestamp.Signed.Expires
}

// stale reports whether half of the time is over.
func stale(expires, now time.Time, valid time.Duration) bool { return expires.Sub(now) < valid/2 }

func (a *Author) signRoot(keys []crypto.Signer, now time.Time, v Validity) (*Written, error) {
	if a.newRoot == nil {
		if !stale(a.root.Signed.Expires, now, v.Root) {
			return nil, nil //nolint:nilnil // nothing to write
		}
		if err := a.SetKeys(nil); err != nil {
			return nil, err
		}
	}
	next := a.newRoot
	next.Signed.Expires = now.Add(v.Root)
	next.Signed.Version = 1
	roots := []*metadata.Metadata[metadata.RootType]{next}
	if a.root != nil {
		next.Signed.Version = a.root.Signed.Version + 1
		roots = append(roots, a.root)
	}
	for _, role := range Roles() {
		if r := next.Signed.Roles[role]; r == nil || len(r.KeyIDs) == 0 {
			return nil, fmt.Errorf("nobody may sign %s; name a key for it", role)
		}
	}
	if err := sign(next, metadata.ROOT, keys, roots...); err != nil {
		return nil, err
	}
	a.root, a.newRoot = next, nil
	return written(fmt.Sprintf("metadata/%d.root.json", next.Signed.Version), next)
}

func (a *Author) signTargets(keys []crypto.Signer, now time.Time, v Validity) (*Written, error) {
	targets, err := targetsOf(a.Releases)
	if err != nil {
		return nil, err
	}
	for _, r := range a.Releases {
		if err := r.check(); err != nil {
			return nil, fmt.Errorf("release %s: %w", r.Version, err)
		}
		if !oneLine(r.Withdrawn) || !oneLine(r.Origin) {
			return nil, fmt.Errorf("release %s: origin and reason of withdrawal must be one line of at most 500 bytes", r.Version)
		}
	}
	version := int64(1)
	if a.targets != nil {
		same, err := equal(a.targets.Signed.Targets, targets)
		if err != nil {
			return nil, err
		}
		if same && a.root.VerifyDelegate(metadata.TARGETS, a.targets) == nil && !stale(a.targets.Signed.Expires, now, v.Targets) {
			return nil, nil //nolint:nilnil // nothing to write
		}
		version = a.targets.Signed.Version + 1
	}
	m := metadata.Targets(now.Add(v.Targets))
	m.Signed.Version, m.Signed.Targets = version, targets
	if err := sign(m, metadata.TARGETS, keys, a.root); err != nil {
		return nil, err
	}
	a.targets = m
	w, err := written(fmt.Sprintf("metadata/%d.targets.json", version), m)
	if err == nil && len(w.Data) > maxTargets {
		return nil, fmt.Errorf("the list of targets has %d bytes; want at most %d, so prune old releases", len(w.Data), maxTargets)
	}
	return w, err
}

// equal compares as what they are written as.
func equal(a, b any) (bool, error) {
	x, err := json.Marshal(a)
	if err != nil {
		return false, err
	}
	y, err := json.Marshal(b)
	return bytes.Equal(x, y), err
}

func (a *Author) signSnapshot(keys []crypto.Signer, now time.Time, v Validity) (*Written, error) {
	meta, err := metaOf(a.targets, a.targets.Signed.Version)
	if err != nil {
		return nil, err
	}
	version := int64(1)
	if a.snapshot != nil {
		same, err := equal(a.snapshot.Signed.Meta[targetsFile], meta)
		if err != nil {
			return nil, err
		}
		if same && a.root.VerifyDelegate(metadata.SNAPSHOT, a.snapshot) == nil && !stale(a.snapshot.Signed.Expires, now, v.Targets) {
			return nil, nil //nolint:nilnil // nothing to write
		}
		version = a.snapshot.Signed.Version + 1
	}
	m := metadata.Snapshot(now.Add(v.Targets))
	m.Signed.Version, m.Signed.Meta[targetsFile] = version, meta
	if err := sign(m, metadata.SNAPSHOT, keys, a.root); err != nil {
		return nil, err
	}
	a.snapshot = m
	return written(fmt.Sprintf("metadata/%d.snapshot.json", version), m)
}

func (a *Author) signTimestamp(keys []crypto.Signer, now time.Time, v Validity) (*Written, error) {
	meta, err := metaOf(a.snapshot, a.snapshot.Signed.Version)
	if err != nil {
		return nil, err
	}
	m := metadata.Timestamp(now.Add(v.Timestamp))
	if a.timestamp != nil {
		m.Signed.Version = a.timestamp.Signed.Version + 1
	}
	m.Signed.Meta[snapshotFile] = meta
	m.Signed.UnrecognizedFields = map[string]any{signedField: now.Format(time.RFC3339)}
	if err := sign(m, metadata.TIMESTAMP, keys, a.root); err != nil {
		return nil, err
	}
	a.timestamp = m
	return written("metadata/timestamp.json", m)
}

// metaOf describes a file of the metadata to the one that speaks of it.
func metaOf[T metadata.Roles](m *metadata.Metadata[T], version int64) (*metadata.MetaFiles, error) {
	b, err := m.ToBytes(false)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(b)
	meta := metadata.MetaFile(version)
	meta.Length, meta.Hashes["sha256"] = int64(len(b)), sum[:]
	return meta, nil
}

func written[T metadata.Roles](name string, m *metadata.Metadata[T]) (*Written, error) {
	b, err := m.ToBytes(false)
	if err != nil {
		return nil, err
	}
	return &Written{name, b}, nil
}

// Root returns the newest root, which images carry.
func (a *Author) Root() ([]byte, error) {
	if a.root == nil {
		return nil, errors.New("the repository has no root yet; sign it first")
	}
	return a.root.ToBytes(false)
}
