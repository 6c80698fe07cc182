package systest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/incusos/incusos/internal/sys"
)

// Journal models journalctl: entries of several boots, picked by unit, boot,
// number, time as "@SECONDS", and fields with "+" between alternatives.
type Journal struct {
	mu      sync.Mutex
	entries []JournalEntry
}

// A JournalEntry is one line of a log.
type JournalEntry struct {
	Boot       int // 0 is the running one, -1 the one before
	Time       time.Time
	Unit       string
	Identifier string
	Message    string
	Priority   int // as in syslog(3); 0 is that of information
}

func (e JournalEntry) field(name string) string {
	if name == "PRIORITY" {
		return strconv.Itoa(cmp.Or(e.Priority, 6))
	}
	return e.Unit
}

// NewJournal adds journalctl to the programs of rig, with a few entries.
func NewJournal(rig *Rig) *Journal {
	j := &Journal{}
	at := time.Date(2026, time.January, 1, 12, 0, 0, 0, time.UTC)
	for i, e := range []JournalEntry{
		{-1, at, "incus-osd.service", "incus-osd", "Restarting", 0},
		{0, at, "incus-osd.service", "incus-osd", "Machine starts", 0},
		{0, at, "incus-osd.service", "systemd", "Started incus-osd.service - IncusOS daemon.", 0},
		{0, at, "incus.service", "incusd", "Incus is starting", 0},
	} {
		e.Time = at.Add(time.Duration(i) * time.Second)
		j.Add(e)
	}
	rig.Programs.Model("journalctl", j.journalctl)
	return j
}

// Add appends an entry.
func (j *Journal) Add(e JournalEntry) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.entries = append(j.entries, e)
}

func (j *Journal) journalctl(_ context.Context, c sys.Cmd) ([]byte, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	picked := j.entries
	lines := len(picked)
	alternatives := []map[string][]string{{}} // each: values by field
	for _, arg := range c.Args {
		name, value, _ := strings.Cut(arg, "=")
		var err error
		switch name {
		case "--unit":
			picked = pick(picked, func(e JournalEntry) bool { return e.Unit == value })
		case "--boot":
			picked, err = boot(picked, value)
		case "--lines":
			lines, err = strconv.Atoi(value)
		case "--since", "--until":
			var at int64
			if at, err = strconv.ParseInt(strings.TrimPrefix(value, "@"), 10, 64); err != nil {
				err = &sys.ExecError{Name: "journalctl", Code: 1, Stderr: "Failed to parse timestamp: " + value}
			}
			picked = pick(picked, func(e JournalEntry) bool { return e.Time.Unix() == at || e.Time.Unix() > at == (name == "--since") })
		case "--output", "--no-pager", "--quiet":
		case "+":
			alternatives = append(alternatives, map[string][]string{})
		case "PRIORITY", "_SYSTEMD_UNIT":
			last := alternatives[len(alternatives)-1]
			last[name] = append(last[name], value)
		default:
			err = &sys.ExecError{Name: "journalctl", Code: 1, Stderr: "unrecognized option '" + arg + "'"}
		}
		if err != nil {
			return nil, err
		}
	}
	picked = pick(picked, func(e JournalEntry) bool {
		return slices.ContainsFunc(alternatives, func(fields map[string][]string) bool { return e.has(fields) })
	})
	return write(c, picked[max(0, len(picked)-lines):])
}

// has reports whether e has one of the values in each of the fields.
func (e JournalEntry) has(fields map[string][]string) bool {
	for name, values := range fields {
		if !slices.Contains(values, e.field(name)) {
			return false
		}
	}
	return true
}

func boot(entries []JournalEntry, value string) ([]JournalEntry, error) {
	n, err := strconv.Atoi(value)
	if err != nil {
		return entries, nil //nolint:nilerr // a boot id, or all
	}
	picked := pick(entries, func(e JournalEntry) bool { return e.Boot == n })
	if len(picked) == 0 && n != 0 {
		return nil, &sys.ExecError{Name: "journalctl", Code: 1, Stderr: fmt.Sprintf("No journal boot entry found for the specified boot (%+d).", n)}
	}
	return picked, nil
}

func pick(entries []JournalEntry, wanted func(JournalEntry) bool) []JournalEntry {
	var out []JournalEntry
	for _, e := range entries {
		if wanted(e) {
			out = append(out, e)
		}
	}
	return out
}

// write prints entries in JSON, one a line.
func write(c sys.Cmd, entries []JournalEntry) ([]byte, error) {
	var out bytes.Buffer
	for _, e := range entries {
		line, err := json.Marshal(map[string]string{
			"__REALTIME_TIMESTAMP": strconv.FormatInt(e.Time.UnixMicro(), 10),
			"_SYSTEMD_UNIT":        e.Unit,
			"SYSLOG_IDENTIFIER":    e.Identifier,
			"MESSAGE":              e.Message,
			"_BOOT_ID":             fmt.Sprintf("%032x", 16+e.Boot),
		})
		if err != nil {
			return nil, err
		}
		out.Write(append(line, '\n'))
	}
	if c.Stdout == nil {
		return out.Bytes(), nil
	}
	_, err := c.Stdout.Write(out.Bytes())
	return nil, err
}
