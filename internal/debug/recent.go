package debug

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys"
)

// recentEntries is how many entries Recent returns.
const recentEntries = 300

// ownUnits are those of which Recent shows everything.
var ownUnits = []string{"incus-osd.service", "incus.service"}

// notice is the least important priority that Recent shows of others (syslog(3)).
const notice = 5

// Recent returns the newest entries of this boot, oldest first and one a line, as
// somebody at the machine wants to see them: what is notable, and all that the
// system and Incus say.
func (d *Debug) Recent(ctx context.Context) ([]string, error) {
	args := []string{"--output=json", "--no-pager", "--quiet", "--boot=0", "--lines=" + strconv.Itoa(recentEntries)}
	args = append(args, notable()...)
	kept := &entries{limit: maxLogBytes}
	cmd := sys.Command("journalctl", args...)
	cmd.Stdout = kept
	if _, err := d.host.Exec.Run(ctx, cmd); err != nil {
		if ctx.Err() != nil {
			err = errors.New("it took too long")
		}
		return nil, fmt.Errorf("reading the log: %w", err)
	}
	var lines []string
	for _, e := range kept.list() {
		lines = append(lines, recentLine(e))
	}
	return lines, nil
}

// notable are the arguments of journalctl for what is notable.
func notable() (args []string) {
	for p := range notice + 1 {
		args = append(args, "PRIORITY="+strconv.Itoa(p))
	}
	for _, unit := range ownUnits {
		args = append(args, "+", "_SYSTEMD_UNIT="+unit)
	}
	return args
}

// recentLine is an entry in a line. The message is a list of bytes where it is no
// text (journalctl(1)).
func recentLine(e api.LogEntry) string {
	var f struct {
		Time    string          `json:"__REALTIME_TIMESTAMP"` // microseconds
		Who     string          `json:"SYSLOG_IDENTIFIER"`
		Comm    string          `json:"_COMM"`
		Message json.RawMessage `json:"MESSAGE"`
	}
	if err := json.Unmarshal(e, &f); err != nil {
		return string(e)
	}
	when := ""
	if us, err := strconv.ParseInt(f.Time, 10, 64); err == nil {
		when = time.UnixMicro(us).UTC().Format("15:04:05") + " "
	}
	return when + cmp.Or(f.Who, f.Comm, "?") + ": " + recentMessage(f.Message)
}

func recentMessage(message json.RawMessage) string {
	var text string
	if json.Unmarshal(message, &text) == nil {
		return text
	}
	var numbers []uint8
	var wide []uint16 // []uint8 would be read from base64
	if json.Unmarshal(message, &wide) != nil {
		return string(message)
	}
	for _, n := range wide {
		numbers = append(numbers, uint8(n)) //nolint:gosec // journalctl writes bytes
	}
	return string(numbers)
}
