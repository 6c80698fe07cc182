package main

import (
	"fmt"
	"io"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/incusos/incusos/internal/keys"
	"github.com/incusos/incusos/internal/uefi"
)

func keysCommand() *cobra.Command {
	return group("keys", "Make and show the keys that images are signed with.", keysInitCommand(), keysShowCommand(), keysRotateCommand())
}

func keysInitCommand() *cobra.Command {
	var o keys.Options
	c := &cobra.Command{
		Use:   "init DIR",
		Short: "Make a new trust root.",
		Long: `Make a new trust root.

DIR is created; it must not exist. It gets the Secure Boot keys PK, KEK and db,
the key that the disk's encryption is bound to (pcr), the key of the update
repository (update), the key that signs scripts for machines with a fault
(support), and PK.auth, KEK.auth and db.auth, with which a machine in setup mode
enrols them by itself. Take support.key and support.crt out before you build an
image that should run no scripts.

Keep DIR where you keep your most valuable secrets, and keep a copy. Whoever has
it can sign an operating system that your machines accept; without it, they can
never be updated again.

Microsoft's certificates are left out by default: nothing but your own images
then boots. A machine whose graphics or network card brings its own firmware may
need them; name the files with --microsoft-kek and --microsoft-db.`,
		Example: `  incusos keys init keys
  incusos keys init keys --name "Example Ltd" --microsoft-db uefi-ca-2023.der`,
		Args: operands("DIR"),
		RunE: func(_ *cobra.Command, args []string) error {
			return cannot("make keys", keys.Init(args[0], o))
		},
	}
	c.Flags().StringVar(&o.Name, "name", "IncusOS", "start the names in the certificates with `NAME`")
	c.Flags().StringArrayVar(&o.MicrosoftKEK, "microsoft-kek", nil, "let the certificates in `FILE` (PEM or DER) change db and dbx too; repeatable")
	c.Flags().StringArrayVar(&o.MicrosoftDB, "microsoft-db", nil, "trust the certificates in `FILE` (PEM or DER) to sign what boots too; repeatable")
	return c
}

func keysRotateCommand() *cobra.Command {
	var updates string
	c := &cobra.Command{
		Use:   "rotate DIR NEWDIR",
		Short: "Make a trust root with another db key, and the updates that bring machines to it.",
		Long: `Make a trust root with another db key, and the updates that bring machines to it.

NEWDIR is created; it is DIR with another key to sign boot loader, kernels and hashes
with, and db.auth for new machines. DIR stays as it is. Machines that run images of DIR
are brought to the new key in this order, each step with a restart:

  1. apply 1-add.tar: the machine takes images of both keys
  2. update to an image that was built with NEWDIR, until both slots and the boot
     loader are of the new key
  3. apply 2-revoke.tar: the machine takes nothing of the old key any more; it refuses
     as long as anything on its boot partition is of the old one

Updates are applied with "incusos os system security update-keys", or with
"incus admin os debug secureboot update".`,
		Example: "  incusos keys rotate keys keys-2027 --updates keys-2027-updates",
		Args:    operands("DIR", "NEWDIR"),
		RunE: func(_ *cobra.Command, args []string) error {
			r, err := keys.Load(args[0])
			if err != nil {
				return cannot("rotate the keys", err)
			}
			dir := updates
			if dir == "" {
				dir = filepath.Clean(args[1]) + "-updates"
			}
			return cannot("rotate the keys", keys.Rotate(r, args[1], dir))
		},
	}
	c.Flags().StringVar(&updates, "updates", "", "put the updates into `DIR`, which must not exist (default NEWDIR-updates)")
	return c
}

func keysShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show DIR",
		Short: "Check a trust root and show its public half.",
		Long: `Check a trust root and show its public half.

It is checked that no file is missing, that private keys are kept from others,
and that each certificate is for its key. Fingerprints are SHA-256, as
/os/1.0/system/security shows them.`,
		Args: operands("DIR"),
		RunE: func(c *cobra.Command, args []string) error {
			r, err := keys.Load(args[0])
			if err != nil {
				return cannot("show the keys", err)
			}
			return showKeys(c.OutOrStdout(), r)
		},
	}
}

func showKeys(out io.Writer, r *keys.Root) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, p := range r.Pairs() {
		fmt.Fprintf(w, "%s\t%s\tuntil %s\t%s\n", p.Name, p.Cert.Subject, p.Cert.NotAfter.Format(time.DateOnly), uefi.Fingerprint(p.Cert.Raw))
	}
	fmt.Fprintf(w, "update\tEd25519\t\t%x\n", []byte(r.Update.Public))
	fmt.Fprintf(w, "guid\t\t\t%s\n", r.GUID)
	return w.Flush()
}
