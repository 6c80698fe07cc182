package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/client"
	"github.com/incusos/incusos/internal/osctl"
)

func osLogCommand(o *osFlags) *cobra.Command {
	var q api.DebugLogQuery
	c := &cobra.Command{
		Use:     "log",
		Short:   "Show entries of the log, oldest first.",
		Example: "  incusos os log --unit incus.service --entries 50\n  incusos os log --boot -1 --format json",
		Args:    operands(),
		RunE: o.run("show the log", func(ctx context.Context, m *client.Client, p osctl.Printer, _ []string) error {
			return osctl.Log(ctx, m, q, p)
		}),
	}
	f := c.Flags()
	f.StringVar(&q.Unit, "unit", "", "only of `UNIT`, such as incus.service")
	f.StringVar(&q.Boot, "boot", "", "only of boot `N`: 0 is this one, -1 the one before")
	f.IntVar(&q.Entries, "entries", 100, "only the newest `N`; 0 shows all")
	f.StringVar(&q.Since, "since", "", "not before `TIME`, as journalctl understands it")
	f.StringVar(&q.Until, "until", "", "not after `TIME`")
	return c
}

func osReportCommand(o *osFlags) *cobra.Command {
	c := &cobra.Command{
		Use:     "report",
		Short:   "Show figures about the machine.",
		Example: "  incusos os report --match memory --match zfs",
		Args:    operands(),
	}
	match := c.Flags().StringArray("match", nil, "only figures whose name holds `WORD`; repeatable")
	c.RunE = o.run("show the report", func(ctx context.Context, m *client.Client, p osctl.Printer, _ []string) error {
		return osctl.Report(ctx, m, *match, p)
	})
	return c
}

func osMetricsCommand(o *osFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "metrics",
		Short: "Show the metrics, as OpenMetrics text.",
		Long: `Show the metrics, as OpenMetrics text. On the machine they are those of the
operating system, from port 9100 of 127.0.0.1; with --remote they come from
Incus, which adds them to its own.`,
		Example: "  incusos os metrics | grep reboot",
		Args:    operands(),
		RunE: o.run("show the metrics", func(ctx context.Context, m *client.Client, p osctl.Printer, _ []string) error {
			return m.Metrics(ctx, p.Out)
		}),
	}
}

func osAuditCommand(o *osFlags) *cobra.Command {
	c := &cobra.Command{
		Use:     "audit",
		Short:   "Show the log of changes and of who read secrets, oldest first.",
		Example: "  incusos os audit --entries 20\n  incusos os audit --format json",
		Args:    operands(),
	}
	newest := c.Flags().Int("entries", 100, "only the newest `N`")
	c.RunE = o.run("show the audit log", func(ctx context.Context, m *client.Client, p osctl.Printer, _ []string) error {
		return osctl.Audit(ctx, m, *newest, p)
	})
	return c
}

func osBundleCommand(o *osFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "bundle FILE",
		Short:   "Save everything that helps to find a fault, without secrets, as a tar.gz.",
		Example: "  incusos os bundle node1.tar.gz",
		Args:    operands("FILE"),
		RunE: o.run("save the bundle", func(ctx context.Context, m *client.Client, _ osctl.Printer, args []string) error {
			return osctl.Save(ctx, args[0], m.Bundle)
		}),
	}
}
