package debug

import (
	"context"
	"encoding/json"
	"strconv"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys"
)

const (
	// failedStarts is how many starts before this one FailedStarts looks at: as
	// many as a new version is tried, and a few that somebody added.
	failedStarts = 5
	// failedEntries is how many entries it returns of each, and failedLine the
	// longest, in bytes: they are kept in a document.
	failedEntries, failedLine = 40, 300
	// failedTime is how long it looks for those of one.
	failedTime = 30 * time.Second
)

// FailedStarts returns the end of what the starts wrote between the one with the id
// since and this one, oldest first and an entry in a line. Without an id it is that
// of the start before this one. What cannot be had is left out: a start that ended
// before its log was on the disk wrote nothing.
func (d *Debug) FailedStarts(ctx context.Context, since string) []string {
	var lines []string
	for n := 1; n <= failedStarts; n++ {
		entries := d.endOf(ctx, n)
		if len(entries) == 0 || since != "" && bootOf(entries[0]) == since {
			break
		}
		var start []string
		for _, e := range entries {
			line := recentLine(e)
			start = append(start, line[:min(len(line), failedLine)])
		}
		lines = append(start, lines...)
		if since == "" {
			break
		}
	}
	return lines
}

// endOf returns the newest notable entries of the start so many before this one.
func (d *Debug) endOf(ctx context.Context, before int) []api.LogEntry {
	ctx, cancel := context.WithTimeout(ctx, failedTime)
	defer cancel()
	args := []string{"--output=json", "--no-pager", "--quiet", "--boot=-" + strconv.Itoa(before), "--lines=" + strconv.Itoa(failedEntries)}
	kept := &entries{limit: maxLogBytes}
	cmd := sys.Command("journalctl", append(args, notable()...)...)
	cmd.Stdout = kept
	if _, err := d.host.Exec.Run(ctx, cmd); err != nil {
		return nil // there was no such start
	}
	return kept.list()
}

// bootOf is the id of the start that wrote an entry; "" if it does not say.
func bootOf(e api.LogEntry) string {
	var f struct {
		Boot string `json:"_BOOT_ID"`
	}
	if err := json.Unmarshal(e, &f); err != nil {
		return ""
	}
	return f.Boot
}
