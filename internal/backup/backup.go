// Package backup keeps the machine's own configuration: it packs it, puts it
// back, and makes the machine forget it.
//
//	archive.go  the archive, as bytes: packing, and strict unpacking   (pure)
//	restore.go  checking an archive against this machine, and staging it
//	keys.go     which keys of an archive this machine has a use for
//	cards.go    which network cards an archive means                   (pure)
//	finish.go   putting what is staged in place, before anything is loaded
//	reset.go    the factory reset
//
// What is kept is the directory of package store: documents, and the keys beside
// them. It all is a secret: no content is ever in a log or an error. What a
// document means is known to the areas beside this one; package daemon above
// hands their checks over, and package seed's way of writing a seed.
//
// A restore changes nothing but a directory of its own, which one renaming makes
// count; the next start of the daemon moves it into place before it loads
// anything. A cut before the renaming is undone, one after it is finished, and
// the running daemon never sees half of either.
package backup

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys"
)

// dir is where package store keeps documents, and areas their keys.
const dir = "/var/lib/incus-os"

// Options is what a Backup has to be told.
type Options struct {
	// Documents are the documents there are, by name, such as "network". Each
	// check gets the content of a file and says why it would not load.
	Documents map[string]func(content []byte) error

	// Local names fields of documents that tell what was done on this very
	// machine. A restore leaves them as they are.
	Local map[string][]string

	// Seed checks sections of a seed, and returns what makes them the seed of
	// the next first boot: instead of those on the disk, or added to them.
	Seed func(sections map[string]json.RawMessage, instead bool) (write func() error, err error)
	// Links returns the network devices, cards under the names that documents
	// know them by; nil: the names they have now.
	Links func() ([]sys.Link, error)
}

// A Backup keeps the configuration of one machine.
type Backup struct {
	host sys.Host
	Options
	turn sync.Mutex // one restore or reset at a time
}

// New returns the backup of host.
func New(host sys.Host, o Options) *Backup {
	if o.Links == nil {
		o.Links = host.Links.List
	}
	return &Backup{host: host, Options: o}
}

// Archive returns all documents and keys as an archive, the same bytes for the
// same content. It holds secrets.
func (b *Backup) Archive(ctx context.Context) ([]byte, error) {
	files, err := b.present()
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	for _, file := range slices.Sorted(maps.Keys(files)) {
		if err := b.sound(file, files[file]); err != nil {
			return nil, api.Errorf(api.Conflict, "%s of this machine is damaged, and a backup with it could not be restored: %v", file, err)
		}
	}
	data, err := pack(manifest{Version: b.version(), MachineID: b.line("/etc/machine-id")}, files)
	if err != nil {
		return nil, err
	}
	slog.InfoContext(ctx, "Backup was made", "files", len(files), "bytes", len(data))
	return data, nil
}

// present returns the documents and keys there are. Each is whole: they are
// replaced, never written to.
func (b *Backup) present() (map[string][]byte, error) {
	files := make(map[string][]byte)
	entries, err := b.host.Files.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return files, nil
	}
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() || !b.ours(e.Name()) {
			continue
		}
		content, err := b.host.Files.ReadFile(dir + "/" + e.Name())
		if err != nil {
			return nil, err
		}
		files[e.Name()] = content
	}
	return files, nil
}

// ours reports whether a file of dir belongs into an archive. The notes that
// areas make for themselves and the logs do not.
func (b *Backup) ours(file string) bool {
	name, document := strings.CutSuffix(file, ".json")
	return document && b.Documents[name] != nil || isKey(file)
}

// sound reports why a document would not load, or a key cannot be one.
func (b *Backup) sound(file string, content []byte) error {
	if name, document := strings.CutSuffix(file, ".json"); document {
		return b.Documents[name](content)
	}
	if strings.HasPrefix(file, "zpool.") && len(content) != keySize {
		return fmt.Errorf("the key of a pool has %d bytes; want %d", len(content), keySize)
	}
	if b, err := base64.StdEncoding.DecodeString(string(content)); strings.HasPrefix(file, "wireguard.") && (err != nil || len(b) != keySize) {
		return fmt.Errorf("the key of a tunnel is no base64 of %d bytes", keySize)
	}
	return nil
}

// version returns that of the running system, "" if it does not say.
func (b *Backup) version() string {
	content, err := b.host.Files.ReadFile("/usr/lib/os-release")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(content)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "IMAGE_VERSION="); ok {
			return strings.Trim(v, `"'`)
		}
	}
	return ""
}

// line returns the content of a file of one line, "" if it cannot be read.
func (b *Backup) line(file string) string {
	content, err := b.host.Files.ReadFile(file)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(content))
}
