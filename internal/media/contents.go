package media

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/incusos/incusos/api"
)

// sections are the names a file of a seed may have before its ending.
func sections() []string {
	return []string{
		"applications", "incus", "install", "kernel", "logging", "migration-manager", "network",
		"operations-center", "provider", "security", "services", "update",
	}
}

// applicationDir is where extension images are in the archive.
const applicationDir = "applications/"

// maxSeedFile is the most a file of a seed may hold, in bytes.
const maxSeedFile = 1 << 20

// An entry is a file of the archive.
type entry struct {
	name string
	size int64 // bytes
	open func() (io.ReadCloser, error)
}

// entries returns the files of the archive in their order: the seed by name,
// then the applications as they are listed.
func (c Contents) entries() ([]entry, error) {
	entries, err := seedEntries(c.Seed)
	if err != nil {
		return nil, err
	}
	names := make(map[string]bool)
	for _, a := range c.Applications {
		if names[a.Name] {
			return nil, fmt.Errorf("application %q is listed twice; want one version of each", a.Name)
		}
		names[a.Name] = true
		e, err := a.entry()
		if err != nil {
			return nil, fmt.Errorf("application %q: %w", a.Name, err)
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// seedEntries reads the files of dir. The seed is somebody else's: nothing
// outside dir is read, whatever symlinks it has.
func seedEntries(dir string) ([]entry, error) {
	if dir == "" {
		return nil, nil
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close() //nolint:errcheck // only read
	files, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return nil, err
	}
	var entries []entry
	seen := make(map[string]string)
	for _, f := range files {
		section, err := sectionOf(f.Name())
		if err != nil {
			return nil, fmt.Errorf("seed %q: %w", dir, err)
		}
		if first, dup := seen[section]; dup {
			return nil, fmt.Errorf("seed %q has both %q and %q; want one", dir, first, f.Name())
		}
		seen[section] = f.Name()
		e, err := seedEntry(root, f.Name())
		if err != nil {
			return nil, fmt.Errorf("seed %q: %w", dir, err)
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// sectionOf returns the section that a file of that name seeds.
func sectionOf(name string) (string, error) {
	ext := path.Ext(name)
	section := strings.TrimSuffix(name, ext)
	if !slices.Contains([]string{".yaml", ".yml", ".json"}, ext) {
		return "", fmt.Errorf("%q is no seed file; want a name that ends in .yaml, .yml or .json", name)
	}
	if !slices.Contains(sections(), section) {
		return "", fmt.Errorf("%q seeds no known section; want one of %s", name, strings.Join(sections(), ", "))
	}
	return section, nil
}

func seedEntry(root *os.Root, name string) (entry, error) {
	info, err := root.Stat(name)
	if err != nil {
		return entry{}, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxSeedFile {
		return entry{}, fmt.Errorf("%q is no file of at most %d bytes", name, maxSeedFile)
	}
	b, err := root.ReadFile(name)
	if err != nil {
		return entry{}, err
	}
	return entry{name, int64(len(b)), func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(b)), nil
	}}, nil
}

// entry returns the file of the archive that a becomes.
func (a Application) entry() (entry, error) {
	if !api.ApplicationName(a.Name) {
		return entry{}, errors.New("want a name of lower-case letters, digits and hyphens")
	}
	if !regexp.MustCompile(`^[0-9a-z][0-9a-z.~-]*$`).MatchString(a.Version) {
		return entry{}, fmt.Errorf("%q is no version; want lower-case letters, digits, '.', '~' and '-'", a.Version)
	}
	info, err := os.Stat(a.File)
	if err != nil {
		return entry{}, err
	}
	if !info.Mode().IsRegular() || info.Size() == 0 {
		return entry{}, fmt.Errorf("%q is no extension image; want a file that is not empty", a.File)
	}
	name := applicationDir + a.Name + "_" + a.Version + ".raw"
	return entry{name, info.Size(), func() (io.ReadCloser, error) { return os.Open(a.File) }}, nil
}
