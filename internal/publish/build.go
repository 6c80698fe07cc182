package publish

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/incusos/incusos/internal/verity"
)

// A Build names the files that a build of an image made.
type Build struct {
	Version      string // twelve digits
	Architecture string // "x86_64" or "aarch64"

	Usr          string            // file system of a slot; "": a build of applications alone, without tree, signature and UKI
	Tree         string            // its hash tree
	Signature    string            // JSON with its root hash, signed
	UKI          string            // kernel, initrd and command line
	Disk         string            // disk image, whose boot partition has the boot loader; "" if it is not there
	Applications map[string]string // extension images by name
}

// architectures maps the names that files of a build have to ours.
func architectures() map[string]string {
	return map[string]string{"x86-64": "x86_64", "arm64": "aarch64"}
}

// appFile is what the extension image of an application is called.
var appFile = regexp.MustCompile(`^([a-z][a-z0-9-]*)\.raw$`)

// FindBuild finds the files of the newest build in dir, as `incusos image build`
// leaves them.
func FindBuild(dir string) (Build, error) {
	raw, err := os.ReadFile(filepath.Join(dir, "version"))
	if err != nil {
		return Build{}, fmt.Errorf("there is no build in %q: %w", dir, err)
	}
	b := Build{Version: strings.TrimSpace(string(raw)), Applications: make(map[string]string)}
	base := filepath.Join(dir, "IncusOS_"+b.Version)
	for theirs, ours := range architectures() {
		if found, _ := filepath.Glob(base + ".usr-" + theirs + ".*.raw"); len(found) > 0 {
			b.Architecture, b.Usr = ours, found[0]
			if b.Tree, err = one(base + ".usr-" + theirs + "-verity.*.raw"); err != nil {
				return Build{}, err
			}
			if b.Signature, err = one(base + ".usr-" + theirs + "-verity-sig.*.raw"); err != nil {
				return Build{}, err
			}
		}
	}
	if b.Usr == "" {
		return Build{}, fmt.Errorf("the build in %q has no partition IncusOS_%s.usr-*.raw", dir, b.Version)
	}
	if b.UKI, err = one(base + ".efi"); err != nil {
		return Build{}, err
	}
	if _, err := os.Stat(base + ".raw"); err == nil {
		b.Disk = base + ".raw"
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return Build{}, err
	}
	for _, e := range entries {
		if m := appFile.FindStringSubmatch(e.Name()); m != nil && e.Type().IsRegular() {
			b.Applications[m[1]] = filepath.Join(dir, e.Name())
		}
	}
	return b, nil
}

// Only returns a build of nothing but applications of b: a release of them is for
// machines that run the release of a system before it.
func (b Build) Only(names []string) (Build, error) {
	only := Build{Version: b.Version, Architecture: b.Architecture, Applications: make(map[string]string)}
	for _, name := range names {
		file, ok := b.Applications[name]
		if !ok {
			return Build{}, fmt.Errorf("the build has no application %q; want some of %s", name, strings.Join(slices.Sorted(maps.Keys(b.Applications)), ", "))
		}
		only.Applications[name] = file
	}
	return only, nil
}

// one returns the only file that a pattern matches.
func one(pattern string) (string, error) {
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("%d files are called %q; want one", len(found), pattern)
	}
	return found[0], nil
}

// maxSignature is the size of a slot's signature partition.
const maxSignature = 16 << 10

// rootHash reads the root hash out of a signature partition: JSON with the members
// rootHash, certificateFingerprint and signature, filled up with zeros (Discoverable
// Partitions Specification, "Verity Signature").
func rootHash(name string) (verity.Digest, error) {
	f, err := os.Open(name)
	if err != nil {
		return verity.Digest{}, err
	}
	defer f.Close() //nolint:errcheck // only read
	b, err := io.ReadAll(io.LimitReader(f, maxSignature+1))
	if err != nil {
		return verity.Digest{}, err
	}
	if len(b) > maxSignature {
		return verity.Digest{}, fmt.Errorf("%q has more than %d bytes", name, maxSignature)
	}
	var doc struct {
		RootHash string `json:"rootHash"`
	}
	if err := json.Unmarshal(bytes.TrimRight(b, "\x00"), &doc); err != nil {
		return verity.Digest{}, fmt.Errorf("%q is no signature of a root hash: %w", name, err)
	}
	return verity.ParseDigest(doc.RootHash)
}
