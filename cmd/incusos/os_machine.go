package main

import (
	"context"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/incusos/incusos/api"
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
	o.sure(c, "restore the machine",
		func(host string, args []string) string {
			return "put " + args[0] + " in place of the settings of " + host + " and restart it"
		},
		func(ctx context.Context, m *client.Client, _ osctl.Printer, args []string) error {
			return osctl.Load(args[0], func(r io.Reader) error { return m.Restore(ctx, r, *skip...) })
		})
	return c
}

func osResetCommand(o *osFlags) *cobra.Command {
	var r api.SystemReset
	c := &cobra.Command{
		Use:   "factory-reset",
		Short: "Make the machine as it was first installed, and restart.",
		Long: `Make the machine as it was first installed, and restart. Everything on its system
drive is lost, the pool "local" with it; other drives are not touched. The seed it
was installed with counts again, with the sections that --seed names.`,
		Example: "  incusos os factory-reset --seed incus.yaml --wipe-existing-seeds",
		Args:    operands(),
	}
	f := c.Flags()
	seeds := f.StringArray("seed", nil, "a section of the seed, in YAML or JSON; `FILE` is named after it, such as incus.yaml; repeatable")
	f.BoolVar(&r.WipeExistingSeeds, "wipe-existing-seeds", false, "let the sections of --seed be all there is")
	f.BoolVar(&r.AllowTPMResetFailure, "allow-tpm-reset-failure", false, "go on when the TPM cannot be cleared")
	o.sure(c, "reset the machine",
		func(host string, _ []string) string { return "erase the whole system drive of " + host },
		func(ctx context.Context, m *client.Client, _ osctl.Printer, _ []string) error {
			var err error
			if r.Seeds, err = osctl.ReadSections(*seeds); err != nil {
				return err
			}
			return m.FactoryReset(ctx, r)
		})
	return c
}

// osPowerCommand asks before it acts: the machine may run what others need.
func osPowerCommand(o *osFlags, verb, short string, act func(*client.Client, context.Context) error) *cobra.Command {
	c := &cobra.Command{Use: verb, Short: short, Example: "  incusos os " + verb + " --force", Args: operands()}
	o.sure(c, verb+" the machine",
		func(host string, _ []string) string { return verb + " " + host },
		func(ctx context.Context, m *client.Client, _ osctl.Printer, _ []string) error { return act(m, ctx) })
	return c
}

// asks reports whether somebody can answer.
func asks(in io.Reader) bool {
	f, ok := in.(*os.File)
	return ok && sys.IsTerminal(f)
}
