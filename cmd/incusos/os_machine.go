package main

import (
	"context"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/incusos/incusos/client"
	"github.com/incusos/incusos/internal/osctl"
	"github.com/incusos/incusos/internal/sys"
)

func osBackupCommand(o *osFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "backup FILE",
		Short: "Save the machine's configuration and keys, as a tar.gz.",
		Long: `Save the machine's configuration and keys, as a tar.gz. Whoever has FILE can open
its disks: keep it where you keep secrets. FILE must not be there yet.`,
		Example: "  incusos os backup node1.tar.gz",
		Args:    operands("FILE"),
		RunE: o.run("save the backup", func(ctx context.Context, m *client.Client, _ osctl.Printer, args []string) error {
			return osctl.Save(ctx, args[0], m.Backup)
		}),
	}
}

func osRestoreCommand(o *osFlags) *cobra.Command {
	c := &cobra.Command{
		Use:   "restore FILE",
		Short: "Put back what \"backup\" saved, and restart.",
		Long: `Put back what "backup" saved, and restart. Through Incus, with --remote, FILE may
be 1 MiB long.`,
		Example: "  incusos os restore node1.tar.gz --skip network-macs",
		Args:    operands("FILE"),
	}
	skip := c.Flags().StringSlice("skip", nil, "leave `WHAT` as it is: encryption-recovery-keys, local-data-encryption-key or network-macs; repeatable")
	complete(c, "skip", "encryption-recovery-keys", "local-data-encryption-key", "network-macs")
	c.RunE = o.run("restore the machine", func(ctx context.Context, m *client.Client, _ osctl.Printer, args []string) error {
		return osctl.Load(args[0], func(r io.Reader) error { return m.Restore(ctx, r, *skip...) })
	})
	return c
}

// osPowerCommand asks before it acts: the machine may run what others need.
func osPowerCommand(o *osFlags, verb, short string, act func(*client.Client, context.Context) error) *cobra.Command {
	c := &cobra.Command{Use: verb, Short: short, Example: "  incusos os " + verb + " --force", Args: operands()}
	force := c.Flags().Bool("force", false, "do not ask")
	c.RunE = func(c *cobra.Command, args []string) error {
		return o.run(verb+" the machine", func(ctx context.Context, m *client.Client, _ osctl.Printer, _ []string) error {
			if !*force {
				server, err := m.Server(ctx)
				if err != nil {
					return err
				}
				if err := osctl.Ask(c.InOrStdin(), c.ErrOrStderr(), asks(c.InOrStdin()), verb+" "+server.Environment.Hostname); err != nil {
					return err
				}
			}
			return act(m, ctx)
		})(c, args)
	}
	return c
}

// asks reports whether somebody can answer.
func asks(in io.Reader) bool {
	f, ok := in.(*os.File)
	return ok && sys.IsTerminal(f)
}
