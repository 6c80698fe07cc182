package main

import (
	"context"

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
