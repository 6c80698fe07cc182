package main

import (
	"context"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/incusos/incusos/client"
	"github.com/incusos/incusos/internal/osctl"
	"github.com/incusos/incusos/internal/sys"
)

// osFlags are those of all commands below `incusos os`.
type osFlags struct {
	target osctl.Target
	format string
}

// osCommand is the branch that speaks to a machine. Its groups are in the files
// os_*.go.
func osCommand() *cobra.Command {
	o := &osFlags{}
	c := group("os", "Look at a machine and change it, over its API.",
		osShowCommand(o), osInfoCommand(o),
		osSystemCommand(o), osApplicationsCommand(o), osServicesCommand(o), osTasksCommand(o), osUpdateCommand(o),
		osLogCommand(o), osReportCommand(o), osMetricsCommand(o), osAuditCommand(o), osDoctorCommand(o), osAttestCommand(o),
		osBackupCommand(o), osRestoreCommand(o), osResetCommand(o), osBundleCommand(o),
		osPowerCommand(o, "reboot", "Restart the machine.", (*client.Client).Reboot),
		osPowerCommand(o, "poweroff", "Turn the machine off.", (*client.Client).Poweroff),
		osPowerCommand(o, "suspend", "Suspend the machine to memory; instances stop until it wakes.", (*client.Client).Suspend),
	)
	c.Long = c.Short + `

Without --remote it is the machine that this runs on, whose socket is for root
alone. With it, it is one whose Incus trusts the client's certificate.

Exit status:
  0  done, or on trial and waiting to be confirmed
  1  the machine could not do it; it is as it was, or says otherwise
  2  the command or the document is wrong; nothing was changed
  3  another change is waiting to be confirmed`
	c.Example = `  incusos os info
  incusos os system network show --config > network.yaml
  incusos os --remote https://192.0.2.10:8443 --server-cert node1.crt show`
	f := c.PersistentFlags()
	f.StringVar(&o.target.Socket, "socket", "/run/incus-os/unix.socket", "speak to the daemon at `PATH`")
	f.StringVar(&o.target.Remote, "remote", "", "speak to the machine whose Incus is at `URL`, such as https://192.0.2.10:8443, not to this one")
	f.StringVar(&o.target.Cert, "cert", "", "with --remote: the client's certificate in `FILE` (default: that of the program incus)")
	f.StringVar(&o.target.Key, "key", "", "with --remote: its key in `FILE` (default: that of the program incus)")
	f.StringVar(&o.target.Server, "server-cert", "", "with --remote: take the certificate in `FILE` and no other (default: one that this system trusts)")
	f.StringVar(&o.format, "format", string(osctl.Table), "show things as `FORMAT`: "+strings.Join(osctl.Formats(), ", "))
	complete(c, "format", osctl.Formats()...)
	return c
}

// complete has the shell offer words for a flag.
func complete(c *cobra.Command, flag string, words ...string) {
	if err := c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // a flag that is not there, or is completed twice
	}
}

// An asking is what a command does with a machine.
type asking func(ctx context.Context, m *client.Client, p osctl.Printer, args []string) error

// run returns the function of a command: what the operator wants, and how it is
// done. Words of the command in what, such as NAME, are replaced by args.
func (o *osFlags) run(what string, ask asking) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		format := osctl.Format(o.format)
		if err := format.Validate(); err != nil {
			return cannot(what, err)
		}
		m, err := o.target.Connect()
		if err != nil {
			return cannot(what, err)
		}
		return cannot(what, ask(c.Context(), m, osctl.Printer{Out: c.OutOrStdout(), Format: format}, args))
	}
}

// again is how this machine is spoken to once more: the flags that say which.
func (o *osFlags) again(c *cobra.Command, words ...string) string {
	line := []string{c.Root().Name(), "os"}
	for _, name := range []string{"socket", "remote", "cert", "key", "server-cert"} {
		if f := c.Flag(name); f != nil && f.Changed {
			line = append(line, "--"+name, f.Value.String())
		}
	}
	return strings.Join(append(line, words...), " ")
}

func osShowCommand(o *osFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "show",
		Short:   "Show what the machine is and runs.",
		Example: "  incusos os show --format json",
		Args:    operands(),
		RunE: o.run("show the machine", func(ctx context.Context, m *client.Client, p osctl.Printer, _ []string) error {
			server, err := m.Server(ctx)
			return shown(p, server, err)
		}),
	}
}

func osInfoCommand(o *osFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "info",
		Short:   "Show the machine at a glance: addresses, pools, applications, and what is under way.",
		Example: "  incusos os info",
		Args:    operands(),
		RunE: o.run("show the machine", func(ctx context.Context, m *client.Client, p osctl.Printer, _ []string) error {
			return osctl.Info(ctx, m, p)
		}),
	}
}

func shown(p osctl.Printer, v any, err error) error {
	if err != nil {
		return err
	}
	return p.Value(v)
}

// sure has a command ask before it acts, unless it is forced: what it does cannot
// be taken back. Question says what that is, in the words after "Really".
func (o *osFlags) sure(c *cobra.Command, what string, question func(host string, args []string) string, act asking) {
	force := c.Flags().Bool("force", false, "do not ask")
	c.RunE = func(c *cobra.Command, args []string) error {
		return o.run(what, func(ctx context.Context, m *client.Client, p osctl.Printer, args []string) error {
			if !*force {
				server, err := m.Server(ctx)
				if err != nil {
					return err
				}
				words := question(server.Environment.Hostname, args)
				if err := osctl.Ask(c.InOrStdin(), c.ErrOrStderr(), asks(c.InOrStdin()), words); err != nil {
					return err
				}
			}
			return act(ctx, m, p, args)
		})(c, args)
	}
}

// waits has a command follow the task that it starts, if it is told to.
func (o *osFlags) waits(c *cobra.Command, act asking) asking {
	wait := c.Flags().Bool("wait", false, "show how the machine gets on with it, until it has ended")
	return func(ctx context.Context, m *client.Client, p osctl.Printer, args []string) error {
		if !*wait {
			return act(ctx, m, p, args)
		}
		return osctl.Follow(ctx, m, terminal(p.Out), p.Out, func() error { return act(ctx, m, p, args) })
	}
}

// A lister asks a machine what an argument can be, given those before it.
type lister func(ctx context.Context, m *client.Client, args []string) ([]string, error)

// offer has the shell offer what the machine has: a list for each argument, files
// for those after them.
func (o *osFlags) offer(lists ...lister) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		m, err := o.target.Connect()
		if err != nil || len(args) >= len(lists) {
			return nil, cobra.ShellCompDirectiveDefault
		}
		ctx := c.Context()
		if ctx == nil {
			ctx = context.Background()
		}
		words, err := lists[len(args)](ctx, m, args)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return words, cobra.ShellCompDirectiveNoFileComp
	}
}

// names has the shell offer what the machine lists by its paths.
func (o *osFlags) names(list func(*client.Client, context.Context) ([]string, error)) cobra.CompletionFunc {
	return o.offer(func(ctx context.Context, m *client.Client, _ []string) ([]string, error) {
		paths, err := list(m, ctx)
		return osctl.Names(paths), err
	})
}

// terminal reports whether w is one.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && sys.IsTerminal(f)
}
