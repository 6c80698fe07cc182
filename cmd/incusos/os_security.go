package main

import (
	"context"
	"os"

	"github.com/spf13/cobra"

	"github.com/incusos/incusos/client"
	"github.com/incusos/incusos/internal/osctl"
)

func osDoctorCommand(o *osFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Tell whether the next start will unlock the disk, and if not, why and what to do.",
		Long: `Tell whether the next start will unlock the disk, and if not, why and what to do.

Shown are the state of Secure Boot, the certificates that the firmware has, each kernel
image on the boot partition, each binding of the disk to the TPM, and the events of the
firmware's log: what was measured at this start, and what will be at the next. Nothing
is changed.`,
		Example: "  incusos os doctor\n  incusos os doctor --format json",
		Args:    operands(),
		RunE: o.run("examine the machine", func(ctx context.Context, m *client.Client, p osctl.Printer, _ []string) error {
			return osctl.Doctor(ctx, m, p)
		}),
	}
}

func (o *osFlags) rebindCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "tpm-rebind",
		Short: "Bind the disks to the TPM anew, after a recovery key was used.",
		Long: `Bind the disks to the TPM anew, after a recovery key was used. It counts from the next
start on, and is refused when that unlocks anyway. On a machine that asks for a PIN the
TPM has to be told it again: with --pin it is read from standard input.`,
		Example: "  incusos os system security tpm-rebind",
		Args:    operands(),
	}
	ask := c.Flags().Bool("pin", false, "read the PIN from standard input")
	c.RunE = o.run("bind the disks to the TPM", func(ctx context.Context, m *client.Client, _ osctl.Printer, _ []string) error {
		if !*ask {
			return m.RebindTPM(ctx, "")
		}
		pin, err := osctl.ReadSecret(ctx, c.InOrStdin(), c.ErrOrStderr(), "PIN")
		if err != nil {
			return err
		}
		return m.RebindTPM(ctx, pin)
	})
	return c
}

func (o *osFlags) setPINCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "set-pin",
		Short: "Have the machine ask for a PIN at each start; it is read from standard input.",
		Long: `Have the machine ask for a PIN at each start, on its consoles, besides what the TPM
wants: whoever takes the whole machine away does not get at the data then. A recovery
key does as well. The PIN is read from standard input, has 6 to 64 letters, digits and
signs, and takes the place of an earlier one. After some wrong ones the TPM answers
nobody for a while.`,
		Example: "  incusos os system security set-pin",
		Args:    operands(),
	}
	c.RunE = o.run("set the PIN", func(ctx context.Context, m *client.Client, _ osctl.Printer, _ []string) error {
		pin, err := osctl.ReadSecret(ctx, c.InOrStdin(), c.ErrOrStderr(), "PIN")
		if err != nil {
			return err
		}
		return m.SetPIN(ctx, pin)
	})
	return c
}

func (o *osFlags) updateKeysCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "update-keys FILE",
		Short: "Apply signed updates of the Secure Boot databases, one for each start.",
		Long: `Apply signed updates of the Secure Boot databases, from a tar archive that
"incusos keys rotate" made. The first one that has not been applied is, and counts from
the next start on; for the others restart the machine and do it again. What would keep
the machine from starting what is on its disk is refused.`,
		Example: "  incusos os system security update-keys keys-2027-updates/1-add.tar",
		Args:    operands("FILE"),
		RunE: o.run("update the Secure Boot databases", func(ctx context.Context, m *client.Client, _ osctl.Printer, args []string) error {
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			return m.UpdateSecureBoot(ctx, f)
		}),
	}
}
