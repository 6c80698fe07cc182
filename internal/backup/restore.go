package backup

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/store"
)

// What can be left as it is.
const (
	skipRecoveryKeys = "encryption-recovery-keys"
	skipLocalKey     = "local-data-encryption-key"
	skipMACs         = "network-macs"
)

func skipWords() []string { return []string{skipRecoveryKeys, skipLocalKey, skipMACs} }

// Restore checks an archive against this machine and stages it. The next start
// of the daemon makes it count; nothing in force changes until then. After an
// error everything is as it was.
func (b *Backup) Restore(ctx context.Context, archive io.Reader, skip []string) error {
	b.turn.Lock()
	defer b.turn.Unlock()
	for _, word := range skip {
		if !slices.Contains(skipWords(), word) {
			return api.Fieldf("skip", "%.40q is unknown; want some of %s", word, strings.Join(skipWords(), ", "))
		}
	}
	data, err := io.ReadAll(io.LimitReader(archive, maxArchive+1))
	if err != nil {
		return fmt.Errorf("receiving the backup: %w", err)
	}
	if len(data) > maxArchive {
		return api.Errorf(api.Invalid, "the backup is longer than %d bytes; want what `:backup` gave", maxArchive)
	}
	m, files, err := unpack(data)
	if err != nil {
		return err
	}
	put, err := b.prepare(ctx, files, skip)
	if err != nil {
		return err
	}
	if err := b.stage(put); err != nil {
		return fmt.Errorf("staging the backup: %w", err)
	}
	slog.InfoContext(ctx, "Restore is staged", "from_version", m.Version, "from_machine", m.MachineID, "files", slices.Sorted(maps.Keys(put)))
	return nil
}

// prepare returns the files that will take the place of those there are. It
// changes nothing.
func (b *Backup) prepare(ctx context.Context, files map[string][]byte, skip []string) (map[string][]byte, error) {
	have, err := b.present()
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	put := make(map[string][]byte)
	for _, file := range slices.Sorted(maps.Keys(files)) {
		if isKey(file) {
			continue
		}
		name := strings.TrimSuffix(file, ".json")
		if err := b.check(name, files[file]); err != nil {
			return nil, err
		}
		if put[file], err = b.adapt(name, files[file], have[file], skip); err != nil {
			return nil, err
		}
	}
	keys, err := b.keys(ctx, files, have, skip)
	maps.Copy(put, keys)
	return put, err
}

// check reports why a document of an archive would not load.
func (b *Backup) check(name string, content []byte) error {
	if b.Documents[name] == nil {
		return api.Errorf(api.Invalid, "the backup holds the document %q, which this release does not know", name)
	}
	var form struct{ Schema int }
	if err := json.Unmarshal(content, &form); err == nil && form.Schema > store.Schema {
		return api.Errorf(api.Conflict, "the document %q of the backup is of a newer release; update this machine first", name)
	}
	if err := b.sound(name+".json", content); err != nil {
		return api.Errorf(api.Invalid, "the document %q of the backup: %v", name, err)
	}
	return nil
}

// adapt returns a document as this machine can use it. Have is the one it has
// now, nil for none.
func (b *Backup) adapt(name string, content, have []byte, skip []string) ([]byte, error) {
	if local := b.Local[name]; local != nil {
		var err error
		if content, err = keepLocal(content, have, local); err != nil {
			return nil, api.Errorf(api.Invalid, "the document %q of the backup: %v", name, err)
		}
	}
	if name != "network" {
		return content, nil
	}
	links, err := b.Links()
	if err != nil {
		return nil, fmt.Errorf("listing network cards: %w", err)
	}
	content, err = fitCards(content, links, slices.Contains(skip, skipMACs))
	if err != nil {
		return nil, err
	}
	return content, b.check(name, content)
}

// keepLocal returns the document content with some fields of its configuration
// as they are in have. A document that is damaged now tells nothing, and what
// the backup says is the best there is.
func keepLocal(content, have []byte, fields []string) ([]byte, error) {
	doc, config, err := open(content)
	if err != nil {
		return nil, err
	}
	var now map[string]any
	if have != nil {
		if _, now, err = open(have); err != nil {
			return content, nil //nolint:nilerr // see above
		}
	}
	for _, field := range fields {
		delete(config, field)
		if v, ok := now[field]; ok {
			config[field] = v
		}
	}
	return closed(doc)
}

// open decodes a document without its type, so that fields which this release
// does not know stay. The configuration is a part of doc.
func open(content []byte) (doc, config map[string]any, err error) {
	d := json.NewDecoder(bytes.NewReader(content))
	d.UseNumber()
	if err := d.Decode(&doc); err != nil {
		return nil, nil, err
	}
	config, ok := doc["config"].(map[string]any)
	if !ok {
		return nil, nil, errors.New("its config is no object")
	}
	return doc, config, nil
}

// closed is the opposite of open, in the form that package store writes.
func closed(doc map[string]any) ([]byte, error) {
	content, err := json.MarshalIndent(doc, "", "  ")
	return append(content, '\n'), err
}

// stage writes put, and what is to be removed, into a directory of its own and
// makes it count by renaming that.
func (b *Backup) stage(put map[string][]byte) error {
	files := b.host.Files
	l := list{Put: slices.Sorted(maps.Keys(put)), Remove: []string{}}
	for _, name := range slices.Sorted(maps.Keys(b.Documents)) {
		if _, ok := put[name+".json"]; !ok {
			l.Remove = append(l.Remove, name+".json")
		}
	}
	content, err := json.Marshal(l)
	if err != nil {
		return err
	}
	if err := files.RemoveAll(half); err != nil {
		return err
	}
	if err := files.MkdirAll(half, 0o700); err != nil {
		return err
	}
	for _, file := range l.Put {
		perm := fs.FileMode(0o600)
		if isKey(file) {
			perm = 0o400
		}
		if err := files.WriteFile(half+"/"+file, put[file], perm); err != nil {
			return err
		}
	}
	if err := files.WriteFile(half+"/"+listName, content, 0o600); err != nil {
		return err
	}
	if err := files.RemoveAll(staged); err != nil { // one that no start has come to finish
		return err
	}
	return files.Rename(half, staged)
}
