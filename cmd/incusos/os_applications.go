package main

import (
	"context"

	"github.com/spf13/cobra"

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
		o.doCommand(f, "remove", "Stop an application and remove it with what it keeps.", path, (*client.Client).RemoveApplication),
		o.doCommand(f, "restart", "Restart an application.", path, (*client.Client).RestartApplication),
		o.switchCommand(f),
	)
}

// doCommand does one thing to what has a name.
func (o *osFlags) doCommand(f *family, verb, short, path string, act func(*client.Client, context.Context, string) error) *cobra.Command {
	c := f.command(verb, short, f.example(path, verb))
	c.RunE = o.run(verb+" it", func(ctx context.Context, m *client.Client, _ osctl.Printer, args []string) error {
		return act(m, ctx, args[0])
	})
	return c
}

func (o *osFlags) addCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "add NAME",
		Short: "Install an application.",
		Long: `Install an application. The machine goes on with it after this command has
ended; "incusos os tasks watch" shows how far it is.`,
		Example: "  incusos os applications add debug && incusos os tasks watch",
		Args:    operands("NAME"),
		RunE: o.run("install the application", func(ctx context.Context, m *client.Client, _ osctl.Printer, args []string) error {
			return m.AddApplication(ctx, args[0])
		}),
	}
}

func (o *osFlags) switchCommand(f *family) *cobra.Command {
	c := f.command("switch-version", "Run another version that is stored; the one before if none is named.", "  incusos os applications switch-version incus 202601010000")
	c.Use += " [VERSION]"
	c.Args = upTo("NAME", "VERSION")
	c.RunE = o.run("switch the version", func(ctx context.Context, m *client.Client, _ osctl.Printer, args []string) error {
		version := ""
		if len(args) == 2 {
			version = args[1]
		}
		return m.SwitchApplication(ctx, args[0], version)
	})
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
		o.doCommand(f, "reset", "Stop a service, have it forget what it keeps, and start it.", path, (*client.Client).ResetService),
	)
}
