package publish

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/incusos/incusos/internal/fetch"
	"github.com/incusos/incusos/internal/repo"
	"github.com/incusos/incusos/internal/sys"
)

// A Mirroring says what to copy of a repository.
type Mirroring struct {
	From         *fetch.Server
	Root         []byte   // what is trusted
	Channels     []string // releases in one of these; none: all
	Architecture string   // files for this one; "" for all
	Newest       int      // only so many systems of each channel, with applications for them; 0: all
	Now          time.Time
}

// Mirror copies a repository to the directory dir, verified as a machine would.
// The metadata is that of the original: machines trust the copy as much, however
// it reaches them. It returns the files that were copied, and their bytes.
func Mirror(ctx context.Context, dir string, m Mirroring) (count int, size int64, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // to be served
		return 0, 0, err
	}
	unlock, err := lock(dir)
	if err != nil {
		return 0, 0, err
	}
	defer unlock()
	seen := make(map[string][]byte)
	record := func(ctx context.Context, name string, limit int64) ([]byte, error) {
		b, err := m.From.Metadata(ctx, name, limit)
		if err == nil {
			seen[name] = b
		}
		return b, err
	}
	have := repo.Trusted{Root: m.Root}
	if b, err := os.ReadFile(filepath.Join(dir, "metadata/timestamp.json")); err == nil {
		have.Timestamp = b
	}
	trusted, catalog, err := repo.Refresh(ctx, have, repo.Clock{Now: m.Now, Synchronized: true}, record)
	if err != nil {
		return 0, 0, err
	}
	if err := m.earlierRoots(ctx, trusted.Root, seen); err != nil {
		return 0, 0, err
	}
	out := sys.NewDir(dir)
	for _, f := range m.wanted(catalog) {
		if info, err := out.Stat(f.Name()); err == nil && info.Size() == f.Length {
			continue
		}
		if err := put(out, f, func(w io.Writer) error { return m.From.Stream(ctx, f, w) }); err != nil {
			return count, size, err
		}
		count, size = count+1, size+f.Length
	}
	return count, size, writeAll(out, ordered(seen))
}

// earlierRoots fetches the roots that machines with an older image begin with.
// They are not verified: machines do that.
func (m Mirroring) earlierRoots(ctx context.Context, newest []byte, seen map[string][]byte) error {
	last, _, err := repo.RootVersion(newest)
	if err != nil {
		return err
	}
	for v := int64(1); v <= last; v++ {
		name := fmt.Sprintf("metadata/%d.root.json", v)
		if seen[name] != nil {
			continue
		}
		b, err := m.From.Metadata(ctx, name, 1<<20)
		if errors.Is(err, repo.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		seen[name] = b
	}
	return nil
}

// wanted returns the files to copy.
func (m Mirroring) wanted(c *repo.Catalog) []repo.File {
	var all []repo.File
	count := make(newest)
	for _, r := range c.Releases {
		take := len(m.Channels) == 0 && m.Newest == 0
		for channel := range r.Channels {
			if len(m.Channels) > 0 && !slices.Contains(m.Channels, channel) {
				continue
			}
			if m.Newest == 0 || count.among(m.Newest, channel, r) {
				take = true
			}
		}
		if !take {
			continue
		}
		all = append(all, r.Changelog)
		for _, f := range r.Files {
			if m.Architecture == "" || f.Architecture == "" || f.Architecture == m.Architecture {
				all = append(all, f)
			}
		}
	}
	return all
}

// ordered returns metadata so that each file speaks of none that comes later.
func ordered(seen map[string][]byte) []repo.Written {
	rank := func(name string) string {
		for i, kind := range []string{"root", "targets", "snapshot", "timestamp"} {
			if ok, _ := filepath.Match("metadata/*"+kind+".json", name); ok {
				return fmt.Sprint(i, name)
			}
		}
		return name
	}
	var all []repo.Written
	for name, b := range seen {
		all = append(all, repo.Written{Name: name, Data: b})
	}
	slices.SortFunc(all, func(a, b repo.Written) int {
		x, y := rank(a.Name), rank(b.Name)
		switch {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
	return all
}
