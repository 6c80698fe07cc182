package debug

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"regexp"
	"strconv"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys"
)

const (
	// maxEntries is how many entries one answer has at most, and how many it
	// has when nobody says.
	maxEntries = 10_000
	// maxLogBytes is how long an answer may become; of more, the newest
	// entries are kept.
	maxLogBytes = 8 << 20
	// maxEntryBytes is the longest entry that is kept. Journalctl leaves out
	// long fields by itself, so that hardly any is.
	maxEntryBytes = 1 << 20
	// logPatience is how long journalctl may take.
	logPatience = 30 * time.Second
)

// What journalctl may be asked for. Every value goes behind a "=", and none can
// become an option of its own.
var (
	unitForm = regexp.MustCompile(`^[A-Za-z0-9_:.\\@][A-Za-z0-9_:.\\@-]{0,254}$`)
	bootForm = regexp.MustCompile(`^([+-]?[0-9]{1,6}|[0-9a-f]{32}([+-][0-9]{1,6})?|all)$`)
	timeForm = regexp.MustCompile(`^[A-Za-z0-9@:+./ -]{1,64}$`)
)

// Log returns entries of the journal, oldest first: the newest so many that were
// asked for and fit.
func (d *Debug) Log(ctx context.Context, q api.DebugLogQuery) ([]api.LogEntry, error) {
	args, err := logArguments(q)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, logPatience)
	defer cancel()
	kept := &entries{limit: maxLogBytes}
	cmd := sys.Command("journalctl", args...)
	cmd.Stdout = kept
	_, err = d.host.Exec.Run(ctx, cmd)
	switch exit, failed := errors.AsType[*sys.ExecError](err); {
	case ctx.Err() != nil:
		return nil, api.Errorf(api.Unavailable, "reading the log took longer than %v; ask for fewer entries or a shorter time", logPatience)
	case failed:
		return nil, api.Errorf(api.Invalid, "reading the log: %v", exit)
	case err != nil:
		return nil, err
	}
	return kept.list(), nil
}

// logArguments returns the arguments of journalctl for q.
func logArguments(q api.DebugLogQuery) ([]string, error) {
	boot := q.Boot
	if boot == "" {
		boot = "0"
	}
	if !bootForm.MatchString(boot) {
		return nil, api.Fieldf("boot", "%q is no boot; want a number such as 0 for the running one and -1 for the one before, a boot id, or all", boot)
	}
	if q.Entries < 0 {
		return nil, api.Fieldf("entries", "%d is less than none; want a number such as 100", q.Entries)
	}
	lines := maxEntries
	if q.Entries > 0 {
		lines = min(q.Entries, maxEntries)
	}
	args := []string{"--output=json", "--no-pager", "--quiet", "--boot=" + boot, "--lines=" + strconv.Itoa(lines)}
	if q.Unit != "" {
		if !unitForm.MatchString(q.Unit) {
			return nil, api.Fieldf("unit", "%q is no name of a unit; want one such as incus.service", q.Unit)
		}
		args = append(args, "--unit="+q.Unit)
	}
	for _, t := range []struct{ name, value string }{{"since", q.Since}, {"until", q.Until}} {
		if t.value == "" {
			continue
		}
		if !timeForm.MatchString(t.value) {
			return nil, api.Fieldf(t.name, "%q is no time; want one such as 2026-11-24 15:00, -1h or yesterday", t.value)
		}
		args = append(args, "--"+t.name+"="+t.value)
	}
	return args, nil
}

// entries collects JSON objects, one a line, as they come, and forgets the oldest
// when there are too many bytes of them. What is no object is dropped.
type entries struct {
	limit int
	kept  []api.LogEntry
	size  int    // bytes of kept
	line  []byte // begun and not ended
	long  bool   // the line is too long and dropped
}

// Write implements io.Writer.
func (e *entries) Write(p []byte) (int, error) {
	n := len(p)
	for {
		head, rest, ended := bytes.Cut(p, []byte("\n"))
		e.long = e.long || len(e.line)+len(head) > maxEntryBytes
		if e.long {
			e.line = e.line[:0]
		} else {
			e.line = append(e.line, head...)
		}
		if !ended {
			return n, nil
		}
		e.end()
		p = rest
	}
}

// end takes the line that has ended.
func (e *entries) end() {
	line := bytes.TrimSpace(e.line)
	if !e.long && len(line) > 0 && line[0] == '{' && json.Valid(line) {
		e.kept = append(e.kept, bytes.Clone(line))
		e.size += len(line)
	}
	e.line, e.long = e.line[:0], false
	for e.size > e.limit && len(e.kept) > 1 {
		e.size -= len(e.kept[0])
		e.kept[0] = nil
		e.kept = e.kept[1:]
	}
}

// list returns what was collected, never nil.
func (e *entries) list() []api.LogEntry {
	e.end()
	return append([]api.LogEntry{}, e.kept...)
}
