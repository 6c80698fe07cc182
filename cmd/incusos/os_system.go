package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/client"
	"github.com/incusos/incusos/internal/osctl"
)

// systemResources are the configurations of the system, and how long a change of
// one waits to be confirmed if the operator does not say.
func systemResources() []struct {
	name, about string
	within      time.Duration
} {
	return []struct {
		name, about string
		within      time.Duration
	}{
		{"fallback-listener", "the way to the API for when Incus cannot answer", 0},
		{"kernel", "how the kernel is set", 0},
		{"logging", "where the log goes", 0},
		{"network", "the network", 2 * time.Minute},
		{"provider", "where updates come from", 0},
		{"security", "Secure Boot, the TPM and recovery keys", 0},
		{"storage", "drives and pools", 0},
		{"update", "when updates are made", 0},
	}
}

func osSystemCommand(o *osFlags) *cobra.Command {
	c := group("system", "Show and change the configuration of the system.")
	for _, r := range systemResources() {
		path := "system/" + r.name
		g := group(r.name, "Show and change "+r.about+".",
			o.showCommand(path, nil),
			o.planCommand(path, nil),
			o.setCommand(path, nil, r.within),
			o.confirmCommand(path, nil),
		)
		g.AddCommand(o.actions(r.name)...)
		c.AddCommand(g)
	}
	return c
}

// actions are what can be done to a part of the system beside configuring it.
func (o *osFlags) actions(name string) []*cobra.Command {
	switch name {
	case "network":
		return []*cobra.Command{o.actCommand(name, "flush-dns", "Forget the answers of name servers.", (*client.Client).FlushDNS)}
	case "security":
		return []*cobra.Command{
			o.actCommand(name, "retrieved", "Say that the recovery keys were written down.", (*client.Client).KeysRetrieved),
			o.rebindCommand(), o.setPINCommand(), o.updateKeysCommand(),
			o.actCommand(name, "remove-pin", "Start without asking for a PIN again.", (*client.Client).RemovePIN),
		}
	case "storage":
		return o.storageCommands()
	case "update":
		return []*cobra.Command{o.checkCommand("system update")}
	}
	return nil
}

// actCommand does something that needs no words.
func (o *osFlags) actCommand(name, verb, short string, act func(*client.Client, context.Context) error) *cobra.Command {
	c := &cobra.Command{Use: verb, Short: short, Example: "  incusos os system " + name + " " + verb, Args: operands()}
	c.RunE = o.run("do that", func(ctx context.Context, m *client.Client, _ osctl.Printer, _ []string) error { return act(m, ctx) })
	return c
}

// checkCommand is there twice: below the configuration, as clients of Incus have it,
// and with what else can be done about updates.
func (o *osFlags) checkCommand(below string) *cobra.Command {
	c := &cobra.Command{Use: "check", Short: "Look for updates now.", Example: "  incusos os " + below + " check --wait", Args: operands()}
	only := c.Flags().Bool("os-only", false, "wait until that has ended, and end with status 1 if it did not work")
	c.RunE = o.run("look for updates", o.waits(c, func(ctx context.Context, m *client.Client, _ osctl.Printer, _ []string) error {
		return m.CheckUpdates(ctx, api.UpdateCheck{OSOnly: *only})
	}))
	return c
}

// A family is resources that go by names: the command takes one, and the shell
// offers those that there are.
type family struct{ names cobra.CompletionFunc }

// resource returns the resource that a command is about, and the arguments that
// are left.
func (f *family) resource(m *client.Client, path string, args []string) (osctl.Resource, string, []string) {
	if f != nil {
		path, args = path+"/"+args[0], args[1:]
	}
	return osctl.At(m, path), path, args
}

// operands are the names of the arguments, after that of the resource.
func (f *family) operands(names ...string) []string {
	if f != nil {
		names = append([]string{"NAME"}, names...)
	}
	return names
}

// command returns a command about a resource.
func (f *family) command(verb, short, example string, names ...string) *cobra.Command {
	c := &cobra.Command{Use: verb, Short: short, Example: example, Args: operands(f.operands(names...)...)}
	for _, n := range f.operands(names...) {
		c.Use += " " + n
	}
	if f != nil {
		c.ValidArgsFunction = f.names
	}
	return c
}

// example returns the beginning of a line that shows how a command is used.
func (f *family) example(path, verb string) string {
	words := "  incusos os " + strings.ReplaceAll(path, "/", " ") + " " + verb
	switch {
	case f == nil:
		return words
	case path == "services":
		return words + " nvme"
	}
	return words + " incus"
}

func (o *osFlags) showCommand(path string, f *family) *cobra.Command {
	c := f.command("show", "Show the configuration, and what the machine makes of it.", f.example(path, "show")+" --format yaml")
	config := c.Flags().Bool("config", false, "only the configuration, in a form that \"set\" takes: YAML, or JSON with --format json")
	tag := c.Flags().Bool("etag", false, "only the tag of the configuration, for \"set --if-match\"")
	c.RunE = o.run("show "+path, func(ctx context.Context, m *client.Client, p osctl.Printer, args []string) error {
		r, _, _ := f.resource(m, path, args)
		return osctl.Show(ctx, r, *config, *tag, p)
	})
	return c
}

func (o *osFlags) planCommand(path string, f *family) *cobra.Command {
	c := f.command("plan", "Show what a change would do, and change nothing.", f.example(path, "plan")+" FILE", "FILE")
	c.RunE = func(c *cobra.Command, args []string) error {
		return o.run("plan the change", func(ctx context.Context, m *client.Client, p osctl.Printer, args []string) error {
			r, _, rest := f.resource(m, path, args)
			config, err := osctl.ReadConfig(rest[0], c.InOrStdin())
			if err != nil {
				return err
			}
			return osctl.Plan(ctx, r, config, p)
		})(c, args)
	}
	return c
}

func (o *osFlags) setCommand(path string, f *family, within time.Duration) *cobra.Command {
	example := f.example(path, "show") + " --config > config.yaml && $EDITOR config.yaml\n" +
		f.example(path, "set") + " config.yaml --dry-run\n" + f.example(path, "set") + " config.yaml"
	c := f.command("set", "Change the configuration.", example, "FILE")
	c.Long = c.Short + `

FILE is a document in YAML or JSON, with the whole configuration below "config";
"-" reads standard input. The machine checks all of it before it changes
anything, and plain "show --config" gives one to start from.

A change on trial is undone by itself unless it is confirmed in time, also when
the machine loses power meanwhile. With --confirm-within 0 it is saved at once.`
	var t client.TryOptions
	flags := c.Flags()
	dry := flags.Bool("dry-run", false, "show what would change, and change nothing")
	flags.DurationVar(&t.Within, "confirm-within", within, "undo the change unless it is confirmed within `TIME`, at most 1h; 0 saves at once")
	flags.StringVar(&t.IfMatch, "if-match", "", "only if the configuration still has the `TAG` that \"show --etag\" printed")
	c.RunE = func(c *cobra.Command, args []string) error {
		return o.run("change "+path, func(ctx context.Context, m *client.Client, p osctl.Printer, args []string) error {
			r, full, rest := f.resource(m, path, args)
			if t.Within < 0 {
				return osctl.Wrong(fmt.Errorf("--confirm-within %v is no time to confirm in; want one of up to an hour, or 0", t.Within))
			}
			config, err := osctl.ReadConfig(rest[0], c.InOrStdin())
			if err != nil {
				return err
			}
			if *dry {
				return osctl.Plan(ctx, r, config, p)
			}
			return osctl.Change(ctx, m, r, config, t, o.again(c, osctl.ConfirmWords(full)...), c.ErrOrStderr())
		})(c, args)
	}
	return c
}

func (o *osFlags) confirmCommand(path string, f *family) *cobra.Command {
	c := f.command("confirm", "Keep the change that is on trial.", f.example(path, "confirm"))
	c.RunE = o.run("confirm the change", func(ctx context.Context, m *client.Client, _ osctl.Printer, args []string) error {
		r, _, _ := f.resource(m, path, args)
		return r.Confirm(ctx)
	})
	return c
}
