package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/client"
	"github.com/incusos/incusos/internal/osctl"
)

func osUpdateCommand(o *osFlags) *cobra.Command {
	c := group("update", "Follow and steer updates of the machine.",
		o.updateShowCommand(), o.checkCommand("update"), o.pauseCommand(), o.resumeCommand(),
		o.rollbackCommand(), o.forgiveCommand(), o.repairCommand())
	c.Long = c.Short + `

When and from where updates are made is configured with "incusos os system update"
and "incusos os system provider".`
	return c
}

func (o *osFlags) updateShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show",
		Short: "Show how updates fare.",
		Long: `Show how updates fare: what is being done, what waits for a restart, and which versions
did not work, why, and what their starts wrote before they failed.`,
		Example: "  incusos os update show",
		Args:    operands(),
		RunE: o.run("show how updates fare", func(ctx context.Context, m *client.Client, p osctl.Printer, _ []string) error {
			return osctl.Updates(ctx, m, p)
		}),
	}
}

func (o *osFlags) pauseCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "pause",
		Short: "Stop what is being fetched, and do nothing until updates are resumed.",
		Long: `Stop what is being fetched, and do nothing until updates are resumed, also after a
restart. What was fetched is kept. A version that is staged already is tried with the
next restart all the same.`,
		Example: "  incusos os update pause",
		Args:    operands(),
		RunE: o.run("pause updates", func(ctx context.Context, m *client.Client, _ osctl.Printer, _ []string) error {
			return m.PauseUpdates(ctx)
		}),
	}
}

func (o *osFlags) resumeCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "resume",
		Short:   "Go on with updates.",
		Example: "  incusos os update resume",
		Args:    operands(),
		RunE: o.run("resume updates", func(ctx context.Context, m *client.Client, _ osctl.Printer, _ []string) error {
			return m.ResumeUpdates(ctx)
		}),
	}
}

func (o *osFlags) rollbackCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "rollback",
		Short: "Go back to the version before.",
		Long: `Go back to the version before, with the applications that belong to it. It counts from
the next restart on; with --reboot the machine is restarted at once. The version that
runs now is not tried again until it is forgiven; a newer one is.`,
		Example: "  incusos os update rollback --reboot",
		Args:    operands(),
	}
	reboot := c.Flags().Bool("reboot", false, "restart the machine at once")
	o.sure(c, "go back", func(host string, _ []string) string {
		return "have " + host + " go back to the version before"
	}, func(ctx context.Context, m *client.Client, _ osctl.Printer, _ []string) error {
		return m.RollBack(ctx, api.UpdateRollback{Reboot: *reboot})
	})
	return c
}

func (o *osFlags) forgiveCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "forgive [VERSION]",
		Short:   "Let a version be tried again that did not work, or all such.",
		Example: "  incusos os update forgive 202611271200",
		Args:    upTo("VERSION"),
		ValidArgsFunction: o.offer(func(ctx context.Context, m *client.Client, _ []string) ([]string, error) {
			doc, err := m.Update().Get(ctx)
			var all []string
			for _, f := range doc.State.Failed {
				all = append(all, f.Version)
			}
			return all, err
		}),
		RunE: o.run("forgive the version", func(ctx context.Context, m *client.Client, _ osctl.Printer, args []string) error {
			var f api.UpdateForgive
			if len(args) == 1 {
				f.Version = args[0]
			}
			return m.ForgiveUpdate(ctx, f)
		}),
	}
}

func (o *osFlags) repairCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "repair",
		Short: "Look for damage in what the machine has of its versions, and mend it.",
		Long: `Look for damage in what the machine has of its versions, and mend it.

The slots of the version that runs and of the one before, the kernels on the boot
partition and the images of applications are compared with what the repository signed,
and only what is damaged is fetched and written. What was found is in the status.`,
		Example: "  incusos os update repair --wait",
		Args:    operands(),
	}
	c.RunE = o.run("look for damage", o.waits(c, func(ctx context.Context, m *client.Client, _ osctl.Printer, _ []string) error {
		return m.RepairUpdate(ctx)
	}))
	return c
}
