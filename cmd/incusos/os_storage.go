package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/client"
	"github.com/incusos/incusos/internal/osctl"
)

// driveExample is a drive as `show` lists it.
const driveExample = "/dev/disk/by-id/nvme-disk2"

// storageCommands are what can be done to drives and pools beside configuring
// them.
func (o *osFlags) storageCommands() []*cobra.Command {
	return []*cobra.Command{
		o.actCommand("storage", "cleanup-root", "Make room on the root file system: old logs and caches go.", (*client.Client).CleanupRoot),
		o.actCommand("storage", "rescan-scsi", "Look for new disks on all SCSI hosts.", (*client.Client).RescanSCSI),
		o.wipeCommand("wipe-drive", "Wipe a drive. What it held is lost.", "wipe", (*client.Client).WipeDrive),
		o.wipeCommand("encrypt-drive", "Encrypt a drive. What it held is lost.", "encrypt", (*client.Client).EncryptDrive),
		o.importDriveCommand(), o.importPoolCommand(), o.deletePoolCommand(),
		o.poolTaskCommand("scrub-pool", "Check the data of a pool against its checksums.", (*client.Client).ScrubPool),
		o.poolTaskCommand("trim-pool", "Tell the drives of a pool which blocks are free.", (*client.Client).TrimPool),
		o.createVolumeCommand(), o.deleteVolumeCommand(),
	}
}

func (o *osFlags) wipeCommand(verb, short, does string, act func(*client.Client, context.Context, api.StorageDriveWipe) error) *cobra.Command {
	c := &cobra.Command{
		Use: verb + " DRIVE", Short: short,
		Long:    short + " DRIVE is as \"show\" lists it.",
		Example: "  incusos os system storage " + verb + " " + driveExample + " --wait",
		Args:    operands("DRIVE"), ValidArgsFunction: o.offer(osctl.Drives),
	}
	secure := c.Flags().Bool("secure", false, "overwrite all of it first, which takes hours")
	o.sure(c, does+" the drive",
		func(host string, args []string) string { return does + " the drive " + args[0] + " of " + host },
		o.waits(c, func(ctx context.Context, m *client.Client, _ osctl.Printer, args []string) error {
			return act(m, ctx, api.StorageDriveWipe{ID: args[0], SecureWipe: *secure})
		}))
	return c
}

func (o *osFlags) importDriveCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "import-encrypted-drive DRIVE FILE",
		Short: "Open a drive that was encrypted elsewhere.",
		Long: `Open a drive that was encrypted elsewhere. FILE holds its key, 32 bytes in base64,
as "incusos os system security show" prints it on the other machine; "-" reads
standard input.`,
		Example: "  incusos os system storage import-encrypted-drive " + driveExample + " drive.key",
		Args:    operands("DRIVE", "FILE"), ValidArgsFunction: o.offer(osctl.Drives),
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		return o.run("import the drive", func(ctx context.Context, m *client.Client, _ osctl.Printer, args []string) error {
			key, err := osctl.ReadKey(args[1], c.InOrStdin())
			if err != nil {
				return err
			}
			return m.ImportDrive(ctx, api.StorageDriveImport{ID: args[0], Key: key})
		})(c, args)
	}
	return c
}

func (o *osFlags) importPoolCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "import-pool POOL [FILE]",
		Short: "Import a pool that was made elsewhere.",
		Long: `Import a pool that was made elsewhere. FILE holds its key, 32 bytes in base64, as
"incusos os system security show" prints it on the other machine; "-" reads
standard input. A pool that is not encrypted has none.`,
		Example: "  incusos os system storage import-pool data data.key",
		Args:    upTo("POOL", "FILE"),
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		return o.run("import the pool", func(ctx context.Context, m *client.Client, _ osctl.Printer, args []string) error {
			pool := api.StoragePoolImport{Name: args[0], Type: "zfs"}
			if len(args) == 2 {
				key, err := osctl.ReadKey(args[1], c.InOrStdin())
				if err != nil {
					return err
				}
				pool.EncryptionKey = key
			}
			return m.ImportPool(ctx, pool)
		})(c, args)
	}
	return c
}

func (o *osFlags) deletePoolCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "delete-pool POOL", Short: "Destroy a pool and wipe its drives. What it held is lost.",
		Example: "  incusos os system storage delete-pool data",
		Args:    operands("POOL"), ValidArgsFunction: o.offer(osctl.Pools),
	}
	o.sure(c, "delete the pool",
		func(host string, args []string) string {
			return "destroy the pool " + args[0] + " of " + host + " and wipe its drives"
		},
		o.waits(c, func(ctx context.Context, m *client.Client, _ osctl.Printer, args []string) error {
			return m.DeletePool(ctx, args[0])
		}))
	return c
}

// poolTaskCommand starts something that takes hours and does no harm.
func (o *osFlags) poolTaskCommand(verb, short string, act func(*client.Client, context.Context, string) error) *cobra.Command {
	c := &cobra.Command{
		Use: verb + " POOL", Short: short,
		Long: short + ` The machine goes on with it after
this command has ended, unless --wait is given.`,
		Example: "  incusos os system storage " + verb + " local --wait",
		Args:    operands("POOL"), ValidArgsFunction: o.offer(osctl.Pools),
	}
	c.RunE = o.run(verb, o.waits(c, func(ctx context.Context, m *client.Client, _ osctl.Printer, args []string) error {
		return act(m, ctx, args[0])
	}))
	return c
}

func (o *osFlags) createVolumeCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "create-volume POOL NAME", Short: "Make a dataset in a pool.",
		Example: "  incusos os system storage create-volume data fast --quota 100GiB --use incus",
		Args:    operands("POOL", "NAME"), ValidArgsFunction: o.offer(osctl.Pools),
	}
	quota := c.Flags().String("quota", "", "let it grow to `SIZE` at most, such as 100GiB")
	use := c.Flags().String("use", "", "who it is for, `WHO`: incus or linstor")
	complete(c, "use", "incus", "linstor")
	c.RunE = o.run("make the volume", func(ctx context.Context, m *client.Client, _ osctl.Printer, args []string) error {
		v := api.StorageVolumeCreate{Pool: args[0], Name: args[1], Use: *use}
		if *quota != "" {
			size, err := api.ParseSize(*quota)
			if err != nil {
				return osctl.Wrong(fmt.Errorf("--quota: %w", err))
			}
			v.Quota = size
		}
		return m.CreateVolume(ctx, v)
	})
	return c
}

func (o *osFlags) deleteVolumeCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "delete-volume POOL NAME", Short: "Destroy a dataset of a pool. What it held is lost.",
		Example: "  incusos os system storage delete-volume data fast",
		Args:    operands("POOL", "NAME"), ValidArgsFunction: o.offer(osctl.Pools, osctl.Volumes),
	}
	used := c.Flags().Bool("in-use", false, "even if it has snapshots, clones or datasets below it; they go too")
	o.sure(c, "delete the volume",
		func(host string, args []string) string {
			return "destroy the volume " + args[0] + "/" + args[1] + " of " + host
		},
		func(ctx context.Context, m *client.Client, _ osctl.Printer, args []string) error {
			return m.DeleteVolume(ctx, api.StorageVolumeDelete{Pool: args[0], Name: args[1], Force: *used})
		})
	return c
}
