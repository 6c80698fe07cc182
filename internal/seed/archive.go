package seed

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/incusos/incusos/api"
)

// imageDir is where in the archive extension images lie, each as
// <name>_<version>.raw.
const imageDir = "applications/"

// maxEntries bounds the time a hostile archive costs.
const maxEntries = 4096

// readTar reads the sections of an archive (POSIX ustar, or what GNU tar and
// pax make of it) and lists its images without reading them. Entries of other
// names are skipped: nothing is ever written by the name an archive gives.
func readTar(r io.ReadSeeker) (map[string]section, []Application, error) {
	c := &collection{medium: builtIn, sections: make(map[string]section)}
	var images []Application
	tr := tar.NewReader(r)
	for range maxEntries {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return c.sections, images, nil
		}
		if err != nil {
			return nil, nil, fmt.Errorf("want a tar archive at its start, or nothing but zeros: %w", err)
		}
		image, ok, err := c.entry(h, tr)
		if err != nil {
			return nil, nil, err
		}
		if !ok {
			continue
		}
		if slices.ContainsFunc(images, func(a Application) bool { return a.Name == image.Name }) {
			return nil, nil, fmt.Errorf("%s: there is already an image of %s; keep one", h.Name, image.Name)
		}
		images = append(images, image)
	}
	return nil, nil, fmt.Errorf("the archive has too many entries; want %d at most", maxEntries)
}

// entry takes a section into c, or returns the image that h describes.
func (c *collection) entry(h *tar.Header, r io.Reader) (image Application, ok bool, err error) {
	file := strings.TrimPrefix(h.Name, "./")
	if h.Typeflag == tar.TypeDir {
		return Application{}, false, nil
	}
	if file == renewed {
		clear(c.sections)
		c.total = 0
		return Application{}, false, nil
	}
	if name, ok, err := sectionFile(file); ok || err != nil {
		if err == nil && h.Typeflag != tar.TypeReg {
			err = fmt.Errorf("%s: is no regular file", file)
		}
		if err != nil {
			return Application{}, false, err
		}
		return Application{}, false, c.add(name, file, h.Size, r)
	}
	return imageOf(h)
}

// imageOf tells whether an entry is an extension image. A file in their
// directory that is none is an error, since somebody meant it to be one.
func imageOf(h *tar.Header) (image Application, ok bool, err error) {
	file, inside := strings.CutPrefix(strings.TrimPrefix(h.Name, "./"), imageDir)
	if !inside {
		return Application{}, false, nil
	}
	stem, raw := strings.CutSuffix(file, ".raw")
	name, version, _ := strings.Cut(stem, "_")
	if !raw || h.Typeflag != tar.TypeReg || !api.ApplicationName(name) || !plainVersion(version) {
		return Application{}, false, fmt.Errorf("%s: is no extension image; want a regular file <name>_<version>.raw", h.Name)
	}
	return Application{Name: name, Version: version, Size: uint64(h.Size)}, true, nil //nolint:gosec // archive/tar refuses negative sizes
}

func plainVersion(s string) bool {
	return s != "" && s[0] != '.' && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && r != '.' && r != '-' && r != '~'
	})
}

// find returns the content of a's image in an archive.
func find(r io.Reader, a Application) (io.Reader, error) {
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("the archive no longer has version %s of it", a.Version)
		}
		if err != nil {
			return nil, err
		}
		if image, ok, err := imageOf(h); err == nil && ok && image == a {
			return tr, nil
		}
	}
}

// Forward writes the archive for the disk that an install makes: every section
// in force but `install`, which would install again, and every image. It has
// the form that Open reads.
func (s *Seed) Forward(w io.Writer) error {
	tw := tar.NewWriter(w)
	for _, name := range slices.Sorted(maps.Keys(s.sections)) {
		if name == "install" {
			continue
		}
		sec := s.sections[name]
		if err := header(tw, sec.file, int64(len(sec.data))); err != nil {
			return err
		}
		if _, err := tw.Write(sec.data); err != nil {
			return err
		}
	}
	for _, a := range s.images {
		if err := s.forwardImage(tw, a); err != nil {
			return err
		}
	}
	return tw.Close()
}

func (s *Seed) forwardImage(tw *tar.Writer, a Application) error {
	r, err := s.OpenApplication(a)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := header(tw, imageDir+a.Name+"_"+a.Version+".raw", int64(a.Size)); err != nil { //nolint:gosec // it came from an int64
		return err
	}
	if _, err := io.Copy(tw, r); err != nil {
		return fmt.Errorf("copying the image of %s: %w", a.Name, err)
	}
	return nil
}

// header starts an entry. It carries no time, so that equal seeds are equal.
func header(tw *tar.Writer, name string, size int64) error {
	return tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o600, Format: tar.FormatUSTAR})
}
