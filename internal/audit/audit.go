// Package audit keeps the log of changes: who asked for what, and how it ended.
//
// An entry is one line of JSON at the end of a file that is only added to, and
// is on disk before Record returns. A cut while one is written leaves part of a
// line, which is skipped when reading; the next entry begins a line of its own.
// When the file is full it is put aside, and the oldest one put aside goes.
//
// A change is never refused because it cannot be written down: the machine may
// have to be changed to make that possible again. It goes to the journal
// instead, and Warnings says so.
//
// What belongs in an entry, and that no secret does, is up to package rest.
package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/url"
	"slices"
	"sync"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys"
)

const (
	file = "/var/lib/incus-os/audit.log"
	// onceDir has a file for each action that RecordOnce has written down. It is
	// gone after a boot.
	onceDir = "/run/incus-os/audit-once"
	// full is how long a file gets, bytes.
	full = 4 << 20
	// aside is how many full files are kept.
	aside = 4
)

// A Log is the log of one machine. Its methods may be called from several
// goroutines.
type Log struct {
	files sys.Dir
	full  int64

	once sync.Mutex // held while RecordOnce looks and writes
	mu   sync.Mutex
	err  error // why the last entry could not be written; nil if it was
	lost int   // entries that could not be, and that no entry tells of yet
}

// New returns the log of the machine with these files.
func New(files sys.Dir) *Log { return &Log{files: files, full: full} }

// Record writes an entry down.
func (l *Log) Record(ctx context.Context, e api.AuditEntry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost > 0 {
		gap := api.AuditEntry{
			Time: e.Time, Who: "system", Action: "write the audit log",
			Result: fmt.Sprintf("%d entries before this one could not be written; the journal has them", l.lost),
		}
		if l.err = l.write(ctx, gap); l.err == nil {
			l.lost = 0
		}
	}
	if l.err == nil {
		l.err = l.write(ctx, e)
	}
	if l.err != nil {
		l.lost++
		slog.ErrorContext(ctx, "Cannot write a change down", "err", l.err,
			"who", e.Who, "action", e.Action, "before", string(e.Before), "after", string(e.After), "result", e.Result)
	}
}

// RecordOnce writes an entry down unless one of the same action by the same was in
// this boot. Its result says that the later ones are missing.
func (l *Log) RecordOnce(ctx context.Context, e api.AuditEntry) {
	l.once.Lock()
	defer l.once.Unlock()
	mark := onceDir + "/" + url.PathEscape(e.Who+" "+e.Action)
	if l.files.Exists(mark) {
		return
	}
	e.Result += "; it is not written down again in this boot"
	l.Record(ctx, e)
	if err := l.files.WriteFile(mark, nil, 0o600); err != nil {
		slog.WarnContext(ctx, "Cannot note that a reading was written down; it will be again", "err", err)
	}
}

// Warnings says what is wrong with the log.
func (l *Log) Warnings() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		return nil
	}
	return []string{"changes are not written down: " + l.err.Error()}
}

func (l *Log) write(ctx context.Context, e api.AuditEntry) error {
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	size, whole, err := l.end()
	if err != nil {
		return err
	}
	if !whole {
		line = append([]byte("\n"), line...)
	}
	if size > 0 && size+int64(len(line)) >= l.full {
		if err := l.rotate(); err != nil {
			slog.WarnContext(ctx, "Cannot put the full audit log aside; it goes on", "err", err)
		}
	}
	return l.files.Append(file, append(line, '\n'), 0o600)
}

// end returns how long the file is, and whether its last line is whole.
func (l *Log) end() (size int64, whole bool, err error) {
	f, err := l.files.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, true, nil
	}
	if err != nil {
		return 0, false, err
	}
	defer f.Close()
	if size, err = f.Seek(0, io.SeekEnd); err != nil || size == 0 {
		return size, true, err
	}
	var last [1]byte
	_, err = f.ReadAt(last[:], size-1)
	return size, last[0] == '\n', err
}

// rotate makes room for a new file. After a cut there may be a gap in the
// numbers; the files above it stay where they are, so that nothing is lost.
func (l *Log) rotate() error {
	gap := 1
	for gap < aside && l.files.Exists(numbered(gap)) {
		gap++
	}
	for n := gap; n > 0; n-- {
		if err := l.files.Rename(numbered(n-1), numbered(n)); err != nil {
			return err
		}
	}
	return nil
}

// numbered returns the name of a file put aside, 1 the newest; 0 is the one in
// use.
func numbered(n int) string {
	if n == 0 {
		return file
	}
	return fmt.Sprintf("%s.%d", file, n)
}

// Entries returns the newest entries, oldest first.
func (l *Log) Entries(_ context.Context, newest int) ([]api.AuditEntry, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	entries := []api.AuditEntry{}
	for n := 0; n <= aside && len(entries) < newest; n++ {
		b, err := l.files.ReadFile(numbered(n))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("reading the log of changes: %w", err)
		}
		entries = backwards(b, entries, newest)
	}
	slices.Reverse(entries)
	return entries, nil
}

// backwards adds the entries in a file to those that are newer, up to a number.
func backwards(b []byte, newer []api.AuditEntry, number int) []api.AuditEntry {
	for len(b) > 0 && len(newer) < number {
		start := bytes.LastIndexByte(b[:len(b)-1], '\n') + 1
		var e api.AuditEntry
		if err := json.Unmarshal(b[start:], &e); err == nil && e.Action != "" {
			newer = append(newer, e) // anything else is what a cut left
		}
		b = b[:start]
	}
	return newer
}
