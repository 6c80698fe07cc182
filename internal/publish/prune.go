package publish

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"

	"github.com/incusos/incusos/internal/repo"
	"github.com/incusos/incusos/internal/sys"
)

// A newest counts the systems of each channel, from the newest release on.
type newest map[string]int

// among reports whether the next release of a channel is one of its newest systems, or
// has applications alone for one of those.
func (n newest) among(keep int, channel string, r repo.Release) bool {
	if r.System() {
		n[channel]++
		return n[channel] <= keep
	}
	return n[channel] < keep
}

// Drop takes releases out of a repository that are not among the keep newest of
// any channel; those of applications alone stay and go with the system that they are
// for. It returns their versions. The newest release stays whatever channel it is in.
func Drop(a *repo.Author, keep int) (dropped []string, err error) {
	if keep < 1 {
		return nil, fmt.Errorf("to keep %d releases of each channel leaves none; want 1 at least", keep)
	}
	count := make(newest)
	var kept []repo.Release
	for i, r := range a.Releases { // newest first
		needed := i == 0
		for channel := range r.Channels {
			if count.among(keep, channel, r) {
				needed = true
			}
		}
		if needed {
			kept = append(kept, r)
		} else {
			dropped = append(dropped, r.Version)
		}
	}
	a.Releases = kept
	return dropped, nil
}

// oldMetadata is how many versions of metadata are kept for those who are in the
// middle of reading it.
const oldMetadata = 5

// numbered is the name of metadata that is replaced by the next version.
var numbered = regexp.MustCompile(`^metadata/([0-9]+)\.(snapshot|targets)\.json$`)

// Sweep removes files that belong to no release any more, and old metadata, from
// the repository in dir. It returns how many bytes they had.
func Sweep(ctx context.Context, dir string) (freed int64, err error) {
	unlock, err := lock(dir)
	if err != nil {
		return 0, err
	}
	defer unlock()
	author, err := open(ctx, dir)
	if err != nil {
		return 0, err
	}
	wanted := make(map[string]bool)
	for _, r := range author.Releases {
		for _, f := range r.All() {
			wanted[f.Name()] = true
		}
	}
	names, sizes, err := files(dir)
	if err != nil {
		return 0, err
	}
	keepNewest(names, wanted)
	out := sys.NewDir(dir)
	for _, name := range names {
		if wanted[name] {
			continue
		}
		if err := out.Remove(name); err != nil {
			return freed, err
		}
		freed += sizes[name]
	}
	return freed, nil
}

// keepNewest adds the metadata to wanted that is kept.
func keepNewest(names []string, wanted map[string]bool) {
	newest := make(map[string]int64)
	number := func(name string) (kind string, n int64) {
		m := numbered.FindStringSubmatch(name)
		if m == nil {
			return "", 0
		}
		n, _ = strconv.ParseInt(m[1], 10, 64)
		return m[2], n
	}
	for _, name := range names {
		kind, n := number(name)
		newest[kind] = max(newest[kind], n)
	}
	for _, name := range names {
		if kind, n := number(name); filepath.Dir(name) == "metadata" && (kind == "" || n > newest[kind]-oldMetadata) {
			wanted[name] = true
		}
	}
}

// files lists the files of a repository, in metadata and targets.
func files(dir string) (names []string, sizes map[string]int64, err error) {
	sizes = make(map[string]int64)
	root := os.DirFS(dir)
	for _, top := range []string{"metadata", "targets"} {
		err := fs.WalkDir(root, top, func(name string, e fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			info, err := e.Info()
			if err != nil {
				return err
			}
			names, sizes[name] = append(names, name), info.Size()
			return nil
		})
		if err != nil {
			return nil, nil, err
		}
	}
	return names, sizes, nil
}
