package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Print lists what was built, with sizes in MB (10^6 bytes).
func (r Result) Print(w io.Writer) error {
	usr, err := r.usr()
	if err != nil {
		return err
	}
	type part struct{ what, name string }
	parts := []part{{"disk image", r.Disk}, {"usr", usr}, {"UKI", r.UKI}, {"Incus extension", r.Incus}}
	for _, name := range r.Others {
		parts = append(parts, part{"extension", name})
	}
	for _, part := range parts {
		fi, err := os.Stat(part.name)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "%-16s %7.1f MB  %s\n", part.what, float64(fi.Size())/1e6, part.name); err != nil {
			return err
		}
	}
	return nil
}

// usr returns the name of the /usr partition as a file of its own. mkosi adds the
// UUID of the partition to the name.
func (r Result) usr() (string, error) {
	parts, err := r.partitions()
	if err != nil {
		return "", err
	}
	for _, name := range parts {
		if kind, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(name), "IncusOS_"+r.Version+".usr-"), "."); !strings.Contains(kind, "verity") {
			return name, nil
		}
	}
	return "", fmt.Errorf("mkosi did not split off the usr partition of %s", r.Disk)
}

// partitions returns the names of the split-off partitions of slot A: usr, its
// hash tree and the signature of that, sorted.
func (r Result) partitions() ([]string, error) {
	names, err := filepath.Glob(filepath.Join(filepath.Dir(r.Disk), "IncusOS_"+r.Version+".usr-*.raw"))
	if err == nil && len(names) != 3 {
		err = fmt.Errorf("there are %d partitions split off %s, want usr, its hash tree and its signature", len(names), r.Disk)
	}
	return names, err
}

// Reproduce builds twice, each time without any cache but the downloaded
// packages, and compares usr, its hash tree and the extension images. Builds that
// differ are kept for whoever wants to know why.
func (b *Builder) Reproduce(ctx context.Context, epoch time.Time, report io.Writer) (err error) {
	work, err := os.MkdirTemp(b.Cache, "reproduce-")
	if err != nil {
		return err
	}
	differ := false
	defer func() {
		if !differ {
			err = errors.Join(err, os.RemoveAll(work))
		}
	}()
	var sums [2]map[string]string
	for i, name := range []string{"first", "second"} {
		if sums[i], err = b.once(ctx, filepath.Join(work, name), epoch); err != nil {
			return err
		}
	}
	if differ, err = compare(sums[0], sums[1], report); differ {
		return fmt.Errorf("two builds of the same inputs differ; compare the images in %s with diffoscope and remove that directory", work)
	}
	return err
}

// compare prints a line for each image and reports whether any differs.
func compare(first, second map[string]string, report io.Writer) (differ bool, err error) {
	for _, name := range slices.Sorted(maps.Keys(first)) {
		verdict := "identical"
		if second[name] != first[name] {
			verdict, differ = "DIFFERENT", true
		}
		if _, err := fmt.Fprintf(report, "%s %.16s %s\n", verdict, first[name], name); err != nil {
			return differ, err
		}
	}
	return differ || len(first) != len(second), nil
}

// once builds in the directory work, of which only the images stay, and returns
// digests by file name.
func (b *Builder) once(ctx context.Context, work string, epoch time.Time) (map[string]string, error) {
	tools, err := b.Tools(ctx)
	if err != nil {
		return nil, err
	}
	one := *b
	one.Output = filepath.Join(work, "image")
	one.Cache = filepath.Join(work, "cache")
	if err := link(b.Cache, one.Cache, tools); err != nil {
		return nil, err
	}
	r, err := one.Build(ctx, "", epoch)
	if err != nil {
		return nil, err
	}
	names, err := r.partitions()
	if err != nil {
		return nil, err
	}
	sums := make(map[string]string)
	for _, name := range slices.Concat(names, []string{r.Incus}, r.Others) {
		if sums[filepath.Base(name)], err = digest(name); err != nil {
			return nil, err
		}
	}
	return sums, os.RemoveAll(one.Cache)
}

// link gives a fresh cache the tools and the downloaded packages of another.
func link(from, to, tools string) error {
	if err := os.MkdirAll(to, 0o755); err != nil { //nolint:gosec // a cache of public packages
		return err
	}
	for _, name := range []string{filepath.Base(tools), "packages"} {
		if err := os.Symlink(filepath.Join(from, name), filepath.Join(to, name)); err != nil {
			return err
		}
	}
	return nil
}

func digest(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}
