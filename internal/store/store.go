// Package store keeps one JSON document per resource.
//
// A document lives in /var/lib/incus-os/NAME.json and looks like this:
//
//	{"schema": 1, "config": {...}}
//
// It holds what the operator wants and nothing else. Writing goes through
// sys.Dir.WriteFile, so that after a cut at any point the old or the new
// document is there, whole. A document that does not parse is reported with the
// place of the damage and never replaced by an empty one.
//
// Fields that this release does not know are those of a newer one that was
// rolled back; merge.go keeps them across a rewrite. The areas above decide what
// a document means, and package change beside this one when it is saved.
package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"github.com/incusos/incusos/internal/sys"
)

// Schema is the newest form of documents this release writes. A document with a
// greater number is read all the same: newer releases only add fields.
const Schema = 1

const dir = "/var/lib/incus-os/"

// A Document is the saved configuration of one resource. Its methods may be
// called from several goroutines.
type Document[T any] struct {
	files sys.Dir
	file  string // as the machine sees it

	mu    sync.Mutex
	whole map[string]any // the file, with fields this release does not know
	known []byte         // its config as T, in JSON
	saved bool           // there is a file
}

// envelope is the part of the file around a configuration.
type envelope[T any] struct {
	Schema int `json:"schema"`
	Config T   `json:"config"`
}

// Open reads the document name, such as "network". One that was never saved is
// the zero T. What cannot be read is reported with the file and, where it is the
// content that is wrong, line and column.
func Open[T any](files sys.Dir, name string) (*Document[T], error) {
	d := &Document[T]{files: files, file: dir + name + ".json", whole: make(map[string]any)}
	var env envelope[T]
	data, err := files.ReadFile(d.file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("reading %s: %w", d.file, err)
	default:
		if err := decode(data, &env, &d.whole); err != nil {
			return nil, fmt.Errorf("%s: %w", d.file, err)
		}
		d.saved = true
	}
	if d.known, err = encode(env.Config); err != nil {
		return nil, fmt.Errorf("%s: %w", d.file, err)
	}
	return d, nil
}

// Saved reports whether there is a file, which is to say that the configuration
// was set by somebody rather than being the zero T.
func (d *Document[T]) Saved() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.saved
}

// Get returns the configuration. What it points to belongs to the caller.
func (d *Document[T]) Get() T {
	d.mu.Lock()
	defer d.mu.Unlock()
	var v T
	if err := json.Unmarshal(d.known, &v); err != nil {
		panic(fmt.Sprintf("%s: %v", d.file, err)) // encode checked that it can be read
	}
	return v
}

// Set saves v. Get returns it only once it is safely on disk; after an error
// document and file are as they were.
func (d *Document[T]) Set(v T) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	known, err := encode(v)
	if err != nil {
		return fmt.Errorf("saving %s: %w", d.file, err)
	}
	whole, err := d.rewrite(known)
	if err != nil {
		return fmt.Errorf("saving %s: %w", d.file, err)
	}
	data, err := json.MarshalIndent(whole, "", "  ")
	if err != nil {
		return fmt.Errorf("saving %s: %w", d.file, err)
	}
	if err := d.files.WriteFile(d.file, append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("saving %s: %w", d.file, err)
	}
	d.whole, d.known, d.saved = whole, known, true
	return nil
}

// rewrite returns the file with known as its configuration.
func (d *Document[T]) rewrite(known []byte) (map[string]any, error) {
	before, err := generic(d.known)
	if err != nil {
		return nil, err
	}
	after, err := generic(known)
	if err != nil {
		return nil, err
	}
	whole := make(map[string]any)
	for k, v := range d.whole {
		whole[k] = v
	}
	if _, ok := whole["schema"]; !ok {
		whole["schema"] = Schema
	}
	whole["config"] = merge(d.whole["config"], before, after)
	return whole, nil
}

// encode returns v in JSON, and makes sure that it can be read back.
func encode[T any](v T) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	var back T
	return b, json.Unmarshal(b, &back)
}

// generic decodes JSON without knowing its type, and without rounding numbers.
func generic(data []byte) (v any, err error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	err = d.Decode(&v)
	return v, err
}
