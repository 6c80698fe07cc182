package sets

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/incusos/incusos/internal/sys"
)

const (
	// Store is the directory with the images, as VERSION/NAME.raw.
	Store = "/var/lib/incus-os-extensions"

	// Links is the directory in which a link for each application leads to the
	// image that is active; systemd-sysext(8) looks there.
	Links = "/var/lib/extensions"

	// Suffix ends the names of images and links.
	Suffix = ".raw"

	// Part ends the name of an image that is not whole yet.
	Part = ".part"
)

// Path returns where an image is.
func Path(name, version string) string { return path.Join(Store, version, name+Suffix) }

// VersionOf returns the version in the path of an image.
func VersionOf(image string) string { return path.Base(path.Dir(image)) }

func linkOf(name string) string { return path.Join(Links, name+Suffix) }

// Active returns the images that links lead to, by the names of applications. A
// link to anything else, or to nothing, is left out.
func Active(files sys.Dir) (Set, error) {
	active := make(Set)
	entries, err := files.ReadDir(Links)
	if errors.Is(err, fs.ErrNotExist) {
		return active, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing the active applications: %w", err)
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), Suffix)
		link, err := files.Readlink(path.Join(Links, e.Name()))
		image := path.Join(Links, link)
		if ok && err == nil && image == Path(name, VersionOf(image)) && files.Exists(image) {
			active[name] = VersionOf(image)
		}
	}
	return active, nil
}

// Activate has an application's link lead to a version of it.
func Activate(files sys.Dir, name, version string) error {
	err := files.MkdirAll(Links, 0o755)
	if err == nil {
		// Relative, since the initrd follows it from below /sysroot.
		err = files.Symlink(path.Join("..", strings.TrimPrefix(Path(name, version), path.Dir(Links))), linkOf(name))
	}
	if err != nil {
		return fmt.Errorf("activating application %q: %w", name, err)
	}
	return nil
}

// Deactivate removes the link of an application.
func Deactivate(files sys.Dir, name string) error {
	if err := files.Remove(linkOf(name)); err != nil {
		return fmt.Errorf("deactivating application %q: %w", name, err)
	}
	return nil
}

// Point has the links be those of a set, and says what of it is not stored: such an
// application stays with the link it has.
func Point(files sys.Dir, set Set) (missing []Image, err error) {
	active, err := Active(files)
	if err != nil {
		return nil, err
	}
	for name := range active {
		if set[name] == "" {
			err = errors.Join(err, Deactivate(files, name))
		}
	}
	for name, version := range set {
		switch {
		case !files.Exists(Path(name, version)):
			missing = append(missing, Image{name, version})
		case active[name] != version:
			err = errors.Join(err, Activate(files, name, version))
		}
	}
	return missing, err
}

// Running returns the version of the system whose files these are, "" if they do
// not say (os-release(5), IMAGE_VERSION).
func Running(files sys.Dir) string {
	b, err := files.ReadFile("/usr/lib/os-release")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "IMAGE_VERSION="); ok {
			return strings.Trim(v, `"'`)
		}
	}
	return ""
}
