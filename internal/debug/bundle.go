package debug

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/incusos/incusos/api"
)

// bundleDir is the directory that an archive consists of.
const bundleDir = "incus-os-bundle/"

const (
	// partPatience is how long one part of a bundle may take. A pool whose
	// drives are gone can keep those waiting who ask for it.
	partPatience = 20 * time.Second
	// boots before this one matter less: how many of their entries are taken.
	entriesBefore = 2000
)

// A Part is one file of a bundle.
type Part struct {
	Name string // in the archive, such as "documents/system/network.json"
	// Read returns what is in it: text as a string, anything else as a
	// document, of which the secrets are left out.
	Read func(context.Context) (any, error)
}

// Bundle writes an archive, tar.gz, with everything that helps to find a fault:
// what this package knows about the machine, and parts. What cannot be had is a
// line in its file ERRORS.txt; an error of Bundle is one of w.
func (d *Debug) Bundle(ctx context.Context, w io.Writer, parts []Part) error {
	zipped := gzip.NewWriter(w)
	archive := tar.NewWriter(zipped)
	now := time.Now()
	var problems strings.Builder
	for _, p := range append(d.parts(), parts...) {
		content, err := p.content(ctx)
		if err != nil {
			fmt.Fprintf(&problems, "%s: %v\n", p.Name, err)
			continue
		}
		if err := add(archive, p.Name, content, now); err != nil {
			return err
		}
	}
	all := cmp.Or(problems.String(), "There were none.\n")
	return errors.Join(add(archive, "ERRORS.txt", []byte(all), now), archive.Close(), zipped.Close())
}

// parts are those that this package knows itself.
func (d *Debug) parts() []Part {
	return []Part{
		{"kernel.json", func(ctx context.Context) (any, error) { return d.Kernel(ctx) }},
		{"processes.txt", func(ctx context.Context) (any, error) { return d.Processes(ctx) }},
		{"units.txt", d.units},
		{"event-log.json", func(ctx context.Context) (any, error) { return d.EventLog(ctx) }},
		{"log/this-boot.jsonl", func(ctx context.Context) (any, error) { return d.Log(ctx, api.DebugLogQuery{}) }},
		{"log/boot-before.jsonl", func(ctx context.Context) (any, error) {
			return d.Log(ctx, api.DebugLogQuery{Boot: "-1", Entries: entriesBefore})
		}},
	}
}

// units lists the units of the service manager and their states.
func (d *Debug) units(ctx context.Context) (any, error) {
	units, err := d.host.Units.List(ctx)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	for _, u := range units {
		fmt.Fprintf(&b, "%-9s %-12s %s\n", u.Active, u.Sub, u.Name)
	}
	return b.String(), nil
}

// content reads p, but does not wait for it longer than partPatience.
func (p Part) content(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, partPatience)
	defer cancel()
	type result struct {
		content []byte
		err     error
	}
	done := make(chan result, 1)
	go func() {
		content, err := p.read(ctx)
		done <- result{content, err}
	}()
	select {
	case r := <-done:
		return r.content, r.err
	case <-ctx.Done():
		return nil, fmt.Errorf("not there after %v", partPatience)
	}
}

// read returns p as bytes. A fault in one part must not cost the others, whatever
// it is: the machine is being looked into because something is wrong.
func (p Part) read(ctx context.Context) (content []byte, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			err = fmt.Errorf("a fault of incus-osd: %v", fault)
		}
	}()
	v, err := p.Read(ctx)
	if err != nil {
		return nil, err
	}
	switch v := v.(type) {
	case string:
		return []byte(v), nil
	case []api.LogEntry:
		return append(bytes.Join(rawLines(v), []byte("\n")), '\n'), nil
	}
	b, err := json.MarshalIndent(api.Redact(v), "", "  ")
	return append(b, '\n'), err
}

func rawLines(entries []api.LogEntry) [][]byte {
	lines := make([][]byte, len(entries))
	for i, e := range entries {
		lines[i] = e
	}
	return lines
}

func add(archive *tar.Writer, name string, content []byte, now time.Time) error {
	h := &tar.Header{Name: bundleDir + name, Mode: 0o600, Size: int64(len(content)), ModTime: now, Typeflag: tar.TypeReg, Format: tar.FormatPAX}
	if err := archive.WriteHeader(h); err != nil {
		return err
	}
	_, err := archive.Write(content)
	return err
}
