package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/client"
	"github.com/incusos/incusos/internal/osctl"
)

func osApplicationsCommand(o *osFlags) *cobra.Command {
	const path = "applications"
	f := &family{o.names((*client.Client).Applications)}
	list := &cobra.Command{Use: "list", Short: "List what is installed.", Example: "  incusos os applications list", Args: operands(),
		RunE: o.run("list the applications", func(ctx context.Context, m *client.Client, p osctl.Printer, _ []string) error {
			return osctl.Applications(ctx, m, p)
		})}
	return group(path, "List, install and configure applications.",
		list,
		o.showCommand(path, f), o.planCommand(path, f), o.setCommand(path, f, 0), o.confirmCommand(path, f),
		o.addCommand(),
		o.loseCommand(f, "remove", "Stop an application and remove it with what it keeps.", path, (*client.Client).RemoveApplication),
		o.doCommand(f, "restart", "Restart an application.", path, (*client.Client).RestartApplication),
		o.switchCommand(f),
		o.appBackupCommand(f), o.appRestoreCommand(f), o.appDebugCommand(f),
		o.loseCommand(f, "factory-reset", "Make an application as it was first installed. What it kept is lost.", path, (*client.Client).ResetApplication),
	)
}

// doCommand does one thing to what has a name.
func (o *osFlags) doCommand(f *family, verb, short, path string, act func(*client.Client, context.Context, string) error) *cobra.Command {
	c := f.command(verb, short, f.example(path, verb))
	c.RunE = o.run(verb+" it", o.waits(c, func(ctx context.Context, m *client.Client, _ osctl.Printer, args []string) error {
		return act(m, ctx, args[0])
	}))
	return c
}

// loseCommand does one thing to what has a name, and what it keeps is lost.
func (o *osFlags) loseCommand(f *family, verb, short, path string, act func(*client.Client, context.Context, string) error) *cobra.Command {
	c := f.command(verb, short, f.example(path, verb))
	o.sure(c, verb+" it",
		func(host string, args []string) string {
			return verb + " " + args[0] + " of " + host + " and lose what it keeps"
		},
		o.waits(c, func(ctx context.Context, m *client.Client, _ osctl.Printer, args []string) error {
			return act(m, ctx, args[0])
		}))
	return c
}

func (o *osFlags) addCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "add NAME",
		Short: "Install an application.",
		Long: `Install an application. The machine goes on with it after this command has
ended, unless --wait is given.`,
		Example: "  incusos os applications add debug --wait",
		Args:    operands("NAME"),
	}
	c.RunE = o.run("install the application", o.waits(c, func(ctx context.Context, m *client.Client, _ osctl.Printer, args []string) error {
		return m.AddApplication(ctx, args[0])
	}))
	return c
}

func (o *osFlags) appBackupCommand(f *family) *cobra.Command {
	c := f.command("backup", "Save everything an application keeps, as a tar.gz.", "  incusos os applications backup incus incus.tar.gz", "FILE")
	c.Long = c.Short + `
It holds keys: keep it where you keep secrets. FILE must not be there yet.`
	complete := c.Flags().Bool("complete", false, "with what could be fetched again")
	c.RunE = o.run("save the backup", func(ctx context.Context, m *client.Client, _ osctl.Printer, args []string) error {
		return osctl.Save(ctx, args[1], func(ctx context.Context, w io.Writer) error {
			return m.BackupApplication(ctx, args[0], api.ApplicationBackup{Complete: *complete}, w)
		})
	})
	return c
}

func (o *osFlags) appRestoreCommand(f *family) *cobra.Command {
	c := f.command("restore", "Put back what \"backup\" saved.", "  incusos os applications restore incus incus.tar.gz --wait", "FILE")
	c.Long = c.Short + ` What the application has now
is replaced. Through Incus, with --remote, FILE may be 1 MiB long.`
	o.sure(c, "restore the application",
		func(host string, args []string) string {
			return "put " + args[1] + " in place of what " + args[0] + " of " + host + " keeps"
		},
		o.waits(c, func(ctx context.Context, m *client.Client, _ osctl.Printer, args []string) error {
			return osctl.Load(args[1], func(r io.Reader) error { return m.RestoreApplication(ctx, args[0], r) })
		}))
	return c
}

func (o *osFlags) appDebugCommand(f *family) *cobra.Command {
	c := f.command("debug", "Save what an application has to say about itself, as an archive.", "  incusos os applications debug incus logs.tar.gz", "FILE")
	c.Long = c.Short + `
FILE must not be there yet.`
	action := c.Flags().String("action", "get-logs", "have it do `ACTION`")
	c.RunE = o.run("look into the application", func(ctx context.Context, m *client.Client, _ osctl.Printer, args []string) error {
		return osctl.Save(ctx, args[1], func(ctx context.Context, w io.Writer) error {
			return m.DebugApplication(ctx, args[0], api.ApplicationAction{Action: *action}, w)
		})
	})
	return c
}

func (o *osFlags) switchCommand(f *family) *cobra.Command {
	c := f.command("switch-version", "Run another version that is stored; the one before if none is named.", "  incusos os applications switch-version incus 202601010000")
	c.Use += " [VERSION]"
	c.Args = upTo("NAME", "VERSION")
	c.RunE = o.run("switch the version", o.waits(c, func(ctx context.Context, m *client.Client, _ osctl.Printer, args []string) error {
		version := ""
		if len(args) == 2 {
			version = args[1]
		}
		return m.SwitchApplication(ctx, args[0], version)
	}))
	return c
}

func osServicesCommand(o *osFlags) *cobra.Command {
	const path = "services"
	f := &family{o.names((*client.Client).Services)}
	list := &cobra.Command{Use: "list", Short: "List the services that can be configured.", Example: "  incusos os services list", Args: operands(),
		RunE: o.run("list the services", func(ctx context.Context, m *client.Client, p osctl.Printer, _ []string) error {
			return osctl.Services(ctx, m, p)
		})}
	return group(path, "List and configure services, such as iSCSI or OVN.",
		list,
		o.showCommand(path, f), o.planCommand(path, f), o.setCommand(path, f, 0), o.confirmCommand(path, f),
		o.loseCommand(f, "reset", "Stop a service, have it forget what it keeps, and start it.", path, (*client.Client).ResetService),
	)
}
