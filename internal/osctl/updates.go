package osctl

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/client"
)

// Updates shows how updates fare, and what the starts of a version wrote that did
// not work.
func Updates(ctx context.Context, c *client.Client, p Printer) error {
	doc, err := c.Update().Get(ctx)
	if err != nil {
		return err
	}
	if p.Format != Table {
		return p.Value(doc)
	}
	if err := p.table("", updateRows(doc)); err != nil {
		return err
	}
	for _, f := range doc.State.Failed {
		if len(f.Log) == 0 {
			continue
		}
		fmt.Fprintf(p.Out, "\nwhat the starts of version %s wrote:\n", visible(f.Version))
		for _, line := range f.Log {
			fmt.Fprintf(p.Out, "  %s\n", visible(line))
		}
	}
	return nil
}

func updateRows(doc api.SystemUpdate) [][]string {
	s := doc.State
	checked := "not since the start"
	if !s.LastCheck.IsZero() {
		checked = s.LastCheck.Format(time.RFC3339)
	}
	rows := [][]string{
		{"channel", cmp.Or(doc.Config.Channel, api.DefaultChannel)},
		{"paused", yes(doc.Config.Paused)},
		{"last check", checked},
		{"status", s.Status},
	}
	if s.Version != "" {
		rows = append(rows, []string{"version " + s.Version, s.Phase})
	}
	if s.Progress.Total > 0 {
		rows = append(rows, []string{"fetched", fmt.Sprintf("%s of %s", bytesOf(s.Progress.Done), bytesOf(s.Progress.Total))})
	}
	rows = append(rows, []string{"needs a restart", yes(s.NeedsReboot)})
	for _, f := range s.Failed {
		rows = append(rows, []string{"not tried again: " + f.Version, f.Reason})
	}
	return rows
}
