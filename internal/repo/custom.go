package repo

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// custom is what the list of targets says of each file beside length and hash.
// What is said of a release as a whole is with its changelog. Fields that are
// added later are passed over, and kinds too, so that machines that have not been
// updated for long still understand what is new to them.
type custom struct {
	Kind         string `json:"kind"`
	Version      string `json:"version"`
	Component    string `json:"component"`
	Architecture string `json:"architecture,omitempty"`
	RootHash     string `json:"root_hash,omitempty"`
	Tree         string `json:"tree,omitempty"`
	Index        string `json:"index,omitempty"`

	Release *customRelease `json:"release,omitempty"`
}

type customRelease struct {
	Published time.Time        `json:"published"`
	Origin    string           `json:"origin,omitempty"`
	Severity  string           `json:"severity"`
	Channels  map[string]Phase `json:"channels"`
	Floor     string           `json:"floor,omitempty"`
	Withdrawn string           `json:"withdrawn,omitempty"`
}

// releasesOf puts the files together that belong to one release, by version. What
// is wrong with one file is said to problem.
func releasesOf(targets map[string]*metadata.TargetFiles, problem func(string, error)) map[string]*Release {
	releases := make(map[string]*Release)
	files := make(map[string][]File)
	for name, t := range targets {
		f, c, err := fileOf(name, t)
		switch {
		case err != nil:
			problem(name, err)
		case c.Release != nil && f.Kind == KindChangelog:
			releases[c.Version] = &Release{
				Version: c.Version, Published: c.Release.Published, Origin: c.Release.Origin, Severity: c.Release.Severity,
				Channels: c.Release.Channels, Floor: c.Release.Floor, Withdrawn: c.Release.Withdrawn, Changelog: f,
			}
		case slices.Contains(Kinds(), f.Kind):
			files[c.Version] = append(files[c.Version], f)
		}
	}
	for version, list := range files {
		r, ok := releases[version]
		if !ok {
			problem(version, errors.New("it has files and no changelog, which says what it is"))
			continue
		}
		slices.SortFunc(list, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
		r.Files = list
	}
	return releases
}

func fileOf(name string, t *metadata.TargetFiles) (File, custom, error) {
	var c custom
	if t == nil || t.Custom == nil {
		return File{}, c, errors.New("nothing is said of it")
	}
	if err := json.Unmarshal(*t.Custom, &c); err != nil {
		return File{}, c, fmt.Errorf("what is said of it: %w", err)
	}
	f := File{
		Path: name, Length: t.Length, Kind: c.Kind, Component: c.Component, Architecture: c.Architecture,
		RootHash: c.RootHash, Tree: c.Tree, Index: c.Index,
	}
	if n := copy(f.SHA256[:], t.Hashes["sha256"]); n != len(f.SHA256) || len(t.Hashes["sha256"]) != n {
		return File{}, c, errors.New("it has no SHA-256")
	}
	return f, c, nil
}

// targetsOf is the reverse of catalogOf.
func targetsOf(releases []Release) (map[string]*metadata.TargetFiles, error) {
	all := make(map[string]*metadata.TargetFiles)
	for _, r := range releases {
		for _, f := range r.All() {
			c := custom{Kind: f.Kind, Version: r.Version, Component: f.Component, Architecture: f.Architecture, RootHash: f.RootHash, Tree: f.Tree, Index: f.Index}
			if f.Path == r.Changelog.Path {
				c.Release = &customRelease{r.Published, r.Origin, r.Severity, r.Channels, r.Floor, r.Withdrawn}
			}
			raw, err := json.Marshal(c)
			if err != nil {
				return nil, err
			}
			t := metadata.TargetFile()
			t.Path, t.Length, t.Hashes["sha256"], t.Custom = f.Path, f.Length, f.SHA256[:], (*json.RawMessage)(&raw)
			if all[f.Path] != nil {
				return nil, fmt.Errorf("two files are called %s", f.Path)
			}
			all[f.Path] = t
		}
	}
	return all, nil
}

// ChangelogPath returns where the changelog of a release is.
func ChangelogPath(version string) string { return version + "/changelog.md" }

// oneLine reports whether s can be shown in a table.
func oneLine(s string) bool {
	return len(s) <= 500 && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' })
}
