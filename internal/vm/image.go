package vm

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// An Image is what a build left: the disk that media are made from, and the
// extension images.
type Image struct {
	Version string
	Disk    string
	Incus   string
	Others  map[string]string // files of the other extension images by their names
}

var diskName = regexp.MustCompile(`^IncusOS_([0-9]{12})\.raw$`)

// FindImage returns the newest image in a directory.
func FindImage(dir string) (Image, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return Image{}, fmt.Errorf("looking for an image: %w; make one with `make image`", err)
	}
	var versions []string
	others := make(map[string]string)
	for _, e := range entries {
		name, raw := strings.CutSuffix(e.Name(), ".raw")
		if raw && !strings.HasPrefix(name, "IncusOS_") && name != "incus" {
			others[name] = filepath.Join(dir, e.Name())
		}
		if found := diskName.FindStringSubmatch(e.Name()); found != nil {
			versions = append(versions, found[1])
		}
	}
	if len(versions) == 0 {
		return Image{}, fmt.Errorf("no IncusOS_<version>.raw in %s; make one with `make image`", dir)
	}
	i := Image{Version: slices.Max(versions), Incus: filepath.Join(dir, "incus.raw"), Others: others}
	i.Disk = filepath.Join(dir, "IncusOS_"+i.Version+".raw")
	if _, err := os.Stat(i.Incus); err != nil {
		return Image{}, fmt.Errorf("no application beside %s: %w; make it with `make image`", i.Disk, err)
	}
	return i, nil
}
