// Package seed reads the documents that a machine is given before it has an
// API: how to install itself, its network, its applications.
//
// They come from two places. The partition seed-data of the disk the machine
// was booted from holds a tar archive, written when the install medium was
// made. A medium labelled SEED_DATA, plugged in beside it, holds plain files and
// overrides the archive section by section.
//
//	source.go   finds the two and reads them          (touches the machine)
//	archive.go  takes the archive apart, and writes one for an installed disk
//	renew.go    adds other sections to that of an installed disk
//	settle.go   takes them out again once the machine is set up
//	decode.go   turns a section into an api document   (pure, strict)
//
// A seed is read and never applied here: package install beside this one, the
// areas below and package daemon above do that with the documents they get.
package seed

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys"
)

// A Seed is everything a machine was given.
type Seed struct {
	files    sys.Dir
	device   string // of the archive; "" without a partition for one
	end      int64  // where the archive ends, bytes from its start; -1 if nothing may be added to it
	sections map[string]section
	images   []Application
}

// A section is one document as somebody wrote it.
type section struct {
	medium string // "seed-data" or "SEED_DATA"
	file   string // such as "install.yaml"
	data   []byte
}

// An Application is an extension image that the seed carries, so that a machine
// without network can be installed.
type Application struct {
	Name    string // such as "incus"
	Version string // such as "202601010000"
	Size    uint64 // bytes
}

// handled and foreign name all sections there are: those with a getter below,
// and those that this release passes on without reading them.
func handled() []string {
	return []string{"applications", "incus", "install", "kernel", "logging", "network", "provider", "security", "services", "update"}
}

func foreign() []string {
	return []string{"migration-manager", "operations-center"}
}

// Open reads the seed of host. A machine that was given nothing has an empty
// one. Documents are not looked into until they are asked for.
func Open(host sys.Host) (*Seed, error) {
	s := &Seed{files: host.Files, sections: make(map[string]section)}
	if err := s.openBuiltIn(); err != nil {
		return nil, fmt.Errorf("%s: %w", builtIn, err)
	}
	if err := s.openKept(); err != nil {
		return nil, fmt.Errorf("%s: %w", keptFile, err)
	}
	if err := s.openMedium(host.Mounts); err != nil {
		return nil, fmt.Errorf("%s: %w", external, err)
	}
	return s, nil
}

// Has reports whether a section is there, whatever is in it.
func (s *Seed) Has(name string) bool {
	_, ok := s.sections[name]
	return ok
}

// Unused returns the sections that are there and that this release does not
// apply, sorted.
func (s *Seed) Unused() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(s.sections)), func(name string) bool {
		return slices.Contains(handled(), name)
	})
}

// Install returns the section `install`, and whether there is one. An empty
// file is one: it asks for an install with defaults.
func (s *Seed) Install() (*api.SeedInstall, bool, error) {
	return get[api.SeedInstall](s, "install")
}

// ApplicationList returns the section `applications`, and whether there is one.
func (s *Seed) ApplicationList() (*api.SeedApplications, bool, error) {
	return get[api.SeedApplications](s, "applications")
}

// Incus returns the section `incus`, and whether there is one.
func (s *Seed) Incus() (*api.SeedIncus, bool, error) { return get[api.SeedIncus](s, "incus") }

// Network returns the section `network`, and whether there is one.
func (s *Seed) Network() (*api.SeedNetwork, bool, error) {
	return get[api.SeedNetwork](s, "network")
}

// Kernel returns the section `kernel`, and whether there is one.
func (s *Seed) Kernel() (*api.SeedKernel, bool, error) { return get[api.SeedKernel](s, "kernel") }

// Logging returns the section `logging`, and whether there is one.
func (s *Seed) Logging() (*api.SeedLogging, bool, error) {
	return get[api.SeedLogging](s, "logging")
}

// Security returns the section `security`, and whether there is one.
func (s *Seed) Security() (*api.SeedSecurity, bool, error) {
	return get[api.SeedSecurity](s, "security")
}

// Services returns the section `services`, and whether there is one.
func (s *Seed) Services() (*api.SeedServices, bool, error) {
	return get[api.SeedServices](s, "services")
}

// Provider returns the section `provider`, and whether there is one.
func (s *Seed) Provider() (*api.SeedProvider, bool, error) {
	return get[api.SeedProvider](s, "provider")
}

// Update returns the section `update`, and whether there is one.
func (s *Seed) Update() (*api.SeedUpdate, bool, error) { return get[api.SeedUpdate](s, "update") }

// Check reports the mistakes in the sections that this release applies.
func (s *Seed) Check() error {
	_, _, install := s.Install()
	_, _, list := s.ApplicationList()
	_, _, incus := s.Incus()
	_, _, network := s.Network()
	_, _, kernel := s.Kernel()
	_, _, logging := s.Logging()
	_, _, security := s.Security()
	_, _, services := s.Services()
	_, _, provider := s.Provider()
	_, _, update := s.Update()
	return errors.Join(install, list, incus, network, kernel, logging, security, services, provider, update)
}

// get decodes a section. Its error names the medium, the file, and mostly the
// line and column.
func get[T any](s *Seed, name string) (*T, bool, error) {
	sec, ok := s.sections[name]
	if !ok {
		return nil, false, nil
	}
	doc, err := decode[T](sec.data)
	if at, ok := errors.AsType[*mistake](err); ok {
		return nil, true, fmt.Errorf("%s: %s:%w", sec.medium, sec.file, at)
	}
	if err != nil {
		return nil, true, fmt.Errorf("%s: %s: %w", sec.medium, sec.file, err)
	}
	return doc, true, nil
}

// Applications returns the extension images the seed carries, in the order in
// which they lie there.
func (s *Seed) Applications() []Application { return slices.Clone(s.images) }

// OpenApplication streams the image of a, as Applications returned it.
func (s *Seed) OpenApplication(a Application) (io.ReadCloser, error) {
	f, err := s.files.Open(s.device)
	if err != nil {
		return nil, fmt.Errorf("opening the image of %s: %w", a.Name, err)
	}
	r, err := find(f, a)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening the image of %s: %w", a.Name, err), f.Close())
	}
	return stream{r, f}, nil
}

type stream struct {
	io.Reader
	io.Closer
}

// sectionFile splits the name of a file into section and format. Files that
// are no documents, and those that desktop systems leave behind, are not ok. A
// document of no known section is an error: it is more likely misspelt than
// meant for somebody else.
func sectionFile(file string) (name string, ok bool, err error) {
	i := strings.LastIndexByte(file, '.')
	if i <= 0 || strings.HasPrefix(file, ".") || !slices.Contains([]string{".json", ".yaml", ".yml"}, file[i:]) {
		return "", false, nil
	}
	name = file[:i]
	known := append(handled(), foreign()...)
	if slices.Contains(known, name) {
		return name, true, nil
	}
	return "", false, fmt.Errorf("%s: there is no section %q; %s", file, name, advice(name, known))
}

const (
	maxSection = 1 << 20  // bytes of one document
	maxTotal   = 16 << 20 // bytes of all documents of one medium
)

// A collection gathers the sections of one medium.
type collection struct {
	medium   string
	sections map[string]section
	total    int64
}

// add reads a document of size bytes, and refuses what is too large or twice.
func (c *collection) add(name, file string, size int64, r io.Reader) error {
	if first, ok := c.sections[name]; ok {
		return fmt.Errorf("%s: the section %q is already in %s; keep one of them", file, name, first.file)
	}
	if size > maxSection {
		return fmt.Errorf("%s: %d bytes are too much; want %d at most", file, size, maxSection)
	}
	if c.total += size; c.total > maxTotal {
		return fmt.Errorf("%s: makes all documents %d bytes; want %d at most", file, c.total, maxTotal)
	}
	data, err := io.ReadAll(io.LimitReader(r, size))
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	c.sections[name] = section{c.medium, file, data}
	return nil
}
