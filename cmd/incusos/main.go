// Incusos is the program for those who build IncusOS and run machines with it.
//
// Each file holds one group of commands, made by a function that returns it;
// what they do is in the packages below internal. Every error is printed once,
// here, and begins with what the operator wanted: "cannot …". The exit status is
// 1 after an error, and 2 if the command itself is wrong.
package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/incusos/incusos/internal/osctl"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run runs the command line args and returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := rootCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(stderr, "incusos:", err)
		return osctl.Code(err)
	}
	return 0
}

func rootCommand() *cobra.Command {
	root := group("incusos", "Build IncusOS and look after machines that run it.",
		keysCommand(),
		mediaCommand(),
		imageCommand(),
		repoCommand(),
		serveCommand(),
		vmCommand(),
		osCommand(),
		attestCommand(),
		referenceCommand(),
	)
	root.Long = root.Short + `

A first medium takes three steps: make keys, build an image that is signed with
them, and put the image and a seed on a medium.`
	root.Version = version()
	root.SetVersionTemplate("incusos {{.Version}}\n")
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return osctl.Wrong(fmt.Errorf("cannot understand the command: %w; see \"%s --help\"", err, c.CommandPath()))
	})
	return root
}

// group returns a command that does nothing but hold others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use:   use,
		Short: short,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return osctl.Wrong(fmt.Errorf("cannot run %q: %s has no such command; see \"%s --help\"", args[0], c.CommandPath(), c.CommandPath()))
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(commands...)
	return c
}

// operands demands one argument for each name.
func operands(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == len(names) {
			return nil
		}
		return osctl.Wrong(fmt.Errorf("cannot understand the command: want %s, not %d arguments; see \"%s --help\"",
			cmp.Or(strings.Join(names, " and "), "none"), len(args), c.CommandPath()))
	}
}

// upTo demands one argument for each name; the last one may be left out.
func upTo(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == len(names)-1 {
			return nil
		}
		return operands(names...)(c, args)
	}
}

// cannot says what the operator wanted when err kept it from happening.
func cannot(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("cannot %s: %w", what, err)
}

// version returns the version of the module this was built from, or the commit.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	var commit string
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			commit = s.Value
		}
	}
	if info.Main.Version == "(devel)" {
		return cmp.Or(commit, "unknown")
	}
	return cmp.Or(info.Main.Version, commit, "unknown")
}
