package daemon

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/incusos/incusos/internal/sys"
)

const (
	// rescueLabel is the label of a partition or a file system with a copy of an
	// update repository, which is in rescueUpdates.
	rescueLabel   = "RESCUE_DATA"
	rescueUpdates = "/update"
	rescuePoint   = "/run/incus-os/rescue" // where it is mounted
)

// rescueDevice returns the medium that somebody plugged in; "" for none. A label of
// a partition counts before that of a file system.
func rescueDevice(files sys.Dir) string {
	for _, dir := range []string{"/dev/disk/by-partlabel/", "/dev/disk/by-label/"} {
		if files.Exists(dir + rescueLabel) {
			return dir + rescueLabel
		}
	}
	return ""
}

// rescueMedium mounts the medium that somebody plugged in, and returns the repository
// on it: "" if there is no medium. What is on it is believed no more than what a
// server sends.
func rescueMedium(m sys.Host) (dir string, done func(), err error) {
	device := rescueDevice(m.Files)
	if device == "" {
		return "", nil, nil
	}
	if err := m.Files.MkdirAll(rescuePoint, 0o700); err != nil {
		return "", nil, err
	}
	options := []string{"ro", "nodev", "nosuid", "noexec", "nosymfollow"}
	if err = m.Mounts.Mount(device, rescuePoint, "vfat", options...); err != nil {
		if other := m.Mounts.Mount(device, rescuePoint, "iso9660", options...); other != nil {
			return "", nil, fmt.Errorf("the medium labelled %s has neither a FAT nor an ISO 9660 file system: %w", rescueLabel, errors.Join(err, other))
		}
	}
	done = func() { _ = m.Mounts.Unmount(rescuePoint) } // the next time it is mounted over
	_, err = m.Files.Stat(rescuePoint + rescueUpdates + "/metadata")
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("the medium labelled %s has no copy of a repository in its directory %q; make one with `incusos repo mirror`", rescueLabel, rescueUpdates[1:])
	}
	if err != nil {
		done()
		return "", nil, err
	}
	return m.Files.Path(rescuePoint + rescueUpdates), done, nil
}
