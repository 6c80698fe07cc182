package repo

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"
)

// A Catalog is what a repository has to offer, verified.
type Catalog struct {
	Releases []Release // newest first
	Floor    string    // nothing older may be installed; "" if all may
	Signed   time.Time // when the repository was last refreshed
	Expires  time.Time // until when that holds
	Unproven bool      // the clock could not tell whether it still holds; see Clock
	Problems []string  // releases that are left out since they are not understood
}

// A Release is a set of files that belong together.
type Release struct {
	Version   string    // twelve digits, YYYYMMDDhhmm in UTC
	Published time.Time // when it was
	Origin    string    // who published it, such as "example.net"
	Severity  string    // how much an operator should hurry: see Severities
	Channels  map[string]Phase
	Floor     string // the oldest version that may be installed from now on
	Withdrawn string // why nobody should install it any more
	Changelog File   // text for people
	Files     []File // by path
}

// A Phase says how far a release has got in a channel.
type Phase struct {
	Percent int `json:"percent"` // of machines that may take it, 0 to 100
}

// A File is one file of a release.
type File struct {
	Path         string // within the repository, such as "202611271200/x86_64/os/usr.raw"
	Length       int64  // bytes
	SHA256       [32]byte
	Kind         string // what it is: see Kinds
	Component    string // "os", or the name of an application
	Architecture string // "x86_64", "aarch64", or "" for any
	RootHash     string // of its hash tree, if it has one
	Tree         string // path of its hash tree
	Index        string // path of its compact index, as package verity has it
}

// Kinds of files. Those that the reference has too are called as there.
const (
	KindChangelog = "changelog"
	KindUsr       = "update-usr"                  // file system of a slot
	KindTree      = "update-usr-verity"           // hash tree of any file
	KindSignature = "update-usr-verity-signature" // of the root hash of a slot
	KindUKI       = "update-efi"                  // kernel, initrd and command line
	KindApp       = "application"                 // extension image
	KindIndex     = "verity-index"                // compact index of any file
	KindImage     = "image-raw"                   // disk image, from which media are made
	KindManifest  = "image-manifest"              // list of packages
	KindMeasured  = "measurements"                // what the release leaves in the registers of a TPM
)

// Kinds returns all kinds of files.
func Kinds() []string {
	return []string{KindChangelog, KindUsr, KindTree, KindSignature, KindUKI, KindApp, KindIndex, KindImage, KindManifest, KindMeasured}
}

// Severities returns how much a release can matter, the least first.
func Severities() []string { return []string{"none", "low", "medium", "high", "critical"} }

// Architectures returns the names of architectures in a repository.
func Architectures() []string { return []string{"x86_64", "aarch64"} }

// Name returns the name of the file on a server.
func (f File) Name() string {
	dir, base := path.Split(f.Path)
	return "targets/" + dir + hex.EncodeToString(f.SHA256[:]) + "." + base
}

// Release returns the release of that version.
func (c *Catalog) Release(version string) (Release, bool) {
	i := slices.IndexFunc(c.Releases, func(r Release) bool { return r.Version == version })
	if i < 0 {
		return Release{}, false
	}
	return c.Releases[i], true
}

// For returns the files for an architecture.
func (r Release) For(architecture string) []File {
	var files []File
	for _, f := range r.Files {
		if f.Architecture == "" || f.Architecture == architecture {
			files = append(files, f)
		}
	}
	return files
}

// System reports whether the release has a system, and not applications alone for the
// system of the release before it.
func (r Release) System() bool {
	return slices.ContainsFunc(r.Files, func(f File) bool { return f.Kind == KindUsr })
}

// File returns the file with that path.
func (r Release) File(name string) (File, bool) {
	i := slices.IndexFunc(r.Files, func(f File) bool { return f.Path == name })
	if i < 0 {
		return File{}, false
	}
	return r.Files[i], true
}

// All returns the files of a release with its changelog.
func (r Release) All() []File { return append([]File{r.Changelog}, r.Files...) }

var (
	versionPattern = regexp.MustCompile(`^[0-9]{12}$`)
	wordPattern    = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)
	pathPattern    = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$`)
)

// CheckVersion reports what is wrong with the form of a version.
func CheckVersion(v string) error {
	if !versionPattern.MatchString(v) {
		return fmt.Errorf("version %q: want twelve digits, YYYYMMDDhhmm", v)
	}
	return nil
}

// CheckChannel reports what is wrong with the name of a channel.
func CheckChannel(name string) error {
	if !wordPattern.MatchString(name) {
		return fmt.Errorf("channel %q: want lower-case letters, digits, '.', '_' and '-', at most 64", name)
	}
	return nil
}

// check reports what is wrong with a release.
func (r Release) check() error {
	if err := CheckVersion(r.Version); err != nil {
		return err
	}
	if !slices.Contains(Severities(), r.Severity) {
		return fmt.Errorf("severity %q: want one of %s", r.Severity, strings.Join(Severities(), ", "))
	}
	if r.Floor != "" {
		if err := CheckVersion(r.Floor); err != nil {
			return fmt.Errorf("floor: %w", err)
		}
	}
	for name, p := range r.Channels {
		if err := CheckChannel(name); err != nil {
			return err
		}
		if p.Percent < 0 || p.Percent > 100 {
			return fmt.Errorf("channel %q: %d percent; want 0 to 100", name, p.Percent)
		}
	}
	for _, f := range r.Files {
		if err := r.checkFile(f); err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
	}
	return nil
}

func (r Release) checkFile(f File) error {
	switch {
	case !pathPattern.MatchString(f.Path) || !strings.HasPrefix(f.Path, r.Version+"/"):
		return fmt.Errorf("the path should be below %s/", r.Version)
	case f.Length < 0:
		return fmt.Errorf("a length of %d", f.Length)
	case !slices.Contains(Kinds(), f.Kind):
		return fmt.Errorf("kind %q: want one of %s", f.Kind, strings.Join(Kinds(), ", "))
	case f.Architecture != "" && !slices.Contains(Architectures(), f.Architecture):
		return fmt.Errorf("architecture %q: want one of %s", f.Architecture, strings.Join(Architectures(), ", "))
	case !wordPattern.MatchString(f.Component):
		return fmt.Errorf("component %q: want lower-case letters, digits and '-'", f.Component)
	}
	for _, other := range []string{f.Tree, f.Index} {
		if _, ok := r.File(other); other != "" && !ok {
			return fmt.Errorf("%s belongs to it and is not in the release", other)
		}
	}
	return nil
}

// newCatalog reads what was verified.
func newCatalog(tm *trustedmetadata.TrustedMetadata) *Catalog {
	c := catalogOf(tm.Targets[metadata.TARGETS].Signed.Targets)
	c.Expires = tm.Timestamp.Signed.Expires
	c.Signed = signedAt(tm.Timestamp)
	return c
}

func catalogOf(targets map[string]*metadata.TargetFiles) *Catalog {
	c := new(Catalog)
	for version, r := range releasesOf(targets, c.problem) {
		if err := r.check(); err != nil {
			c.problem(version, err)
			continue
		}
		c.Releases = append(c.Releases, *r)
		c.Floor = max(c.Floor, r.Floor)
	}
	slices.SortFunc(c.Releases, func(a, b Release) int { return cmp.Compare(b.Version, a.Version) })
	slices.Sort(c.Problems)
	return c
}

func (c *Catalog) problem(what string, err error) {
	c.Problems = append(c.Problems, fmt.Sprintf("%s: %v", what, err))
}
