package osctl

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"path"
	"strconv"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/client"
)

// Names returns the last parts of paths, such as "incus" of
// "/os/1.0/applications/incus".
func Names(paths []string) []string {
	names := make([]string, 0, len(paths))
	for _, p := range paths {
		names = append(names, path.Base(p))
	}
	return names
}

// Applications shows what is installed.
func Applications(ctx context.Context, c *client.Client, p Printer) error {
	paths, err := c.Applications(ctx)
	if err != nil {
		return err
	}
	all := make(map[string]api.Application)
	var rows [][]string
	for _, name := range Names(paths) {
		a, err := c.Application(name).Get(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		all[name] = a
		rows = append(rows, []string{name, cmp.Or(a.State.FriendlyVersion, a.State.Version), yes(a.State.Initialized), yes(a.Config.PinCurrentVersions)})
	}
	return p.Rows(all, "name|version|set up|pinned", rows)
}

// Services shows what can be configured.
func Services(ctx context.Context, c *client.Client, p Printer) error {
	paths, err := c.Services(ctx)
	if err != nil {
		return err
	}
	all := make(map[string]json.RawMessage)
	var rows [][]string
	for _, name := range Names(paths) {
		doc, err := c.Service(name).Get(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		all[name] = doc
		var common api.Service
		if err := json.Unmarshal(doc, &common); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		rows = append(rows, []string{name, yes(common.Config.Enabled)})
	}
	return p.Rows(all, "name|enabled", rows)
}

// Tasks shows work that takes longer than a request.
func Tasks(ctx context.Context, c *client.Client, p Printer) error {
	tasks, err := c.Tasks(ctx)
	if err != nil {
		return err
	}
	var rows [][]string
	for _, t := range tasks {
		rows = append(rows, []string{t.ID, t.Description, string(t.Status), doing(t), t.Started.Format(time.DateTime)})
	}
	return p.Rows(tasks, "id|task|status|at|started", rows)
}

// doing says what a task is at, or why it failed.
func doing(t api.Task) string {
	switch {
	case t.Error != "":
		return t.Error
	case t.Status != api.TaskRunning:
		return ""
	case t.Total > 0:
		return t.Phase + " " + percent(t)
	}
	return t.Phase
}

func percent(t api.Task) string {
	return fmt.Sprintf("%.0f%%", 100*float64(min(t.Done, t.Total))/float64(t.Total))
}

// Audit shows the log of changes.
func Audit(ctx context.Context, c *client.Client, newest int, p Printer) error {
	entries, err := c.Audit(ctx, newest)
	if err != nil {
		return err
	}
	var rows [][]string
	for _, e := range entries {
		rows = append(rows, []string{e.Time.Format(time.DateTime), e.Who, e.Action, e.Result})
	}
	return p.Rows(entries, "time|who|action|result", rows)
}

// Log shows entries of the log, as a table one a line.
func Log(ctx context.Context, c *client.Client, q api.DebugLogQuery, p Printer) error {
	entries, err := c.Log(ctx, q)
	if err != nil || p.Format != Table {
		if err == nil {
			err = p.Value(entries)
		}
		return err
	}
	for _, e := range entries {
		if _, err := fmt.Fprintln(p.Out, logLine(e)); err != nil {
			return err
		}
	}
	return nil
}

// logLine is an entry as journalctl prints it. The message is a list of bytes
// where it is no text (systemd.journal-fields(7), journalctl(1)).
func logLine(e api.LogEntry) string {
	var f struct {
		Time    string `json:"__REALTIME_TIMESTAMP"` // microseconds
		Who     string `json:"SYSLOG_IDENTIFIER"`
		Comm    string `json:"_COMM"`
		Message any    `json:"MESSAGE"`
	}
	if err := json.Unmarshal(e, &f); err != nil {
		return visible(string(e))
	}
	when := ""
	if us, err := strconv.ParseInt(f.Time, 10, 64); err == nil {
		when = time.UnixMicro(us).Format(time.DateTime)
	}
	return visible(fmt.Sprintf("%s %s: %s", when, cmp.Or(f.Who, f.Comm, "?"), message(f.Message)))
}

func message(v any) string {
	numbers, ok := v.([]any)
	if !ok {
		return fmt.Sprint(v)
	}
	var b []byte
	for _, n := range numbers {
		if f, ok := n.(float64); ok && f >= 0 && f < 256 {
			b = append(b, byte(f))
		}
	}
	return string(b)
}

// Report shows figures about the machine.
func Report(ctx context.Context, c *client.Client, match []string, p Printer) error {
	report, err := c.Report(ctx, match...)
	if err != nil {
		return err
	}
	var rows [][]string
	for _, m := range report.Metrics {
		value, err := json.Marshal(m.Value)
		if err != nil {
			return err
		}
		rows = append(rows, []string{m.Name, m.Object, string(value)})
	}
	return p.Rows(report, "metric|of|value", rows)
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
