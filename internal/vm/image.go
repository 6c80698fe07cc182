package vm

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
)

// An Image is what a build left: the disk that media are made from, and the
// extension image of Incus.
type Image struct {
	Version string
	Disk    string
	Incus   string
}

var diskName = regexp.MustCompile(`^IncusOS_([0-9]{12})\.raw$`)

// FindImage returns the newest image in a directory.
func FindImage(dir string) (Image, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return Image{}, fmt.Errorf("looking for an image: %w; make one with `make image`", err)
	}
	var versions []string
	for _, e := range entries {
		if found := diskName.FindStringSubmatch(e.Name()); found != nil {
			versions = append(versions, found[1])
		}
	}
	if len(versions) == 0 {
		return Image{}, fmt.Errorf("no IncusOS_<version>.raw in %s; make one with `make image`", dir)
	}
	i := Image{Version: slices.Max(versions), Incus: filepath.Join(dir, "incus.raw")}
	i.Disk = filepath.Join(dir, "IncusOS_"+i.Version+".raw")
	if _, err := os.Stat(i.Incus); err != nil {
		return Image{}, fmt.Errorf("no application beside %s: %w; make it with `make image`", i.Disk, err)
	}
	return i, nil
}
