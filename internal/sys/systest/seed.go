package systest

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"
	"maps"
	"slices"

	"github.com/incusos/incusos/internal/sys"
)

const seedDevice = "/dev/disk/by-partlabel/seed-data"

// incusImage is the image of Incus on a medium, named as `incusos media` does.
const incusImage = "applications/incus_202601010000.raw"

// WriteSeed writes an archive of files, by their names, to the seed partition
// of the machine.
func WriteSeed(d sys.Dir, files map[string]string) (err error) {
	f, err := d.OpenDevice(seedDevice)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := tar.NewWriter(f)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		content := files[name]
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(content)), Mode: 0o600, Format: tar.FormatUSTAR}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.WriteString(w, content); err != nil {
			return err
		}
	}
	return w.Close()
}

// SeedIncus writes a seed with an image of Incus and nothing else. A machine
// without a seed partition, or with something on it, stays as it is.
func SeedIncus(d sys.Dir) error {
	f, err := d.Open(seedDevice)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var first [1]byte
	_, err = io.ReadFull(f, first[:])
	if err := errors.Join(err, f.Close()); err != nil || first[0] != 0 {
		return err
	}
	return WriteSeed(d, map[string]string{incusImage: "pretend image of Incus\n"})
}
