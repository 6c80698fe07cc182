package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

//go:generate go run . reference ../../doc/reference/cli.md

const referenceHead = `<!-- Made from the code by ` + "`go generate ./...`" + `; do not edit. -->

# The program incusos

For those who build IncusOS and look after machines that run it. Every command
has ` + "`--help`" + `; ` + "`incusos completion SHELL`" + ` prints what lets a shell complete
commands, flags and the names of what is on a machine. An error is one line on
standard error. CACHE stands for the directory incusos in the user's cache, or
` + "`INCUSOS_CACHE`" + `.

`

// referenceCommand writes the page about this program, for doc/reference.
func referenceCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "reference FILE",
		Short:  "Write the reference page of this program.",
		Hidden: true,
		Args:   operands("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			return cannot("write the page", os.WriteFile(args[0], []byte(reference(c.Root())), 0o644)) //nolint:gosec // a page
		},
	}
}

// reference returns the page about a program.
func reference(root *cobra.Command) string {
	var b strings.Builder
	b.WriteString(referenceHead)
	referTo(&b, root)
	return strings.TrimRight(strings.ReplaceAll(b.String(), cacheDir(), "CACHE"), "\n") + "\n"
}

// referTo writes about the commands below c, and about c if it does something.
func referTo(b *strings.Builder, c *cobra.Command) {
	if c.Hidden || c.Name() == "help" || c.Name() == "completion" {
		return
	}
	if c.HasParent() {
		fmt.Fprintf(b, "## %s\n\n", c.CommandPath())
		describe(b, c)
	}
	for _, sub := range c.Commands() {
		referTo(b, sub)
	}
}

func describe(b *strings.Builder, c *cobra.Command) {
	if !c.HasSubCommands() {
		fmt.Fprintf(b, "    %s\n\n", c.UseLine())
	}
	text := c.Long
	if text == "" {
		text = c.Short
	}
	for part := range strings.SplitSeq(text, "\n\n") {
		if strings.Contains(part, "\n  ") { // a table that has to stay one
			part = "    " + strings.ReplaceAll(part, "\n", "\n    ")
		}
		b.WriteString(part + "\n\n")
	}
	flags := c.LocalFlags()
	if flags.HasAvailableFlags() {
		b.WriteString("| Flag | Default | Meaning |\n|---|---|---|\n")
		flags.VisitAll(func(f *pflag.Flag) { describeFlag(b, f) })
		b.WriteString("\n")
	}
	if c.Example != "" {
		b.WriteString(strings.TrimRight(strings.ReplaceAll("  "+c.Example, "\n", "\n  "), " ") + "\n\n")
	}
}

func describeFlag(b *strings.Builder, f *pflag.Flag) {
	if f.Hidden || f.Name == "help" {
		return
	}
	word, usage := pflag.UnquoteUsage(f)
	value := ""
	switch f.DefValue {
	case "", "false", "[]":
	default:
		value = "`" + f.DefValue + "`"
	}
	fmt.Fprintf(b, "| `%s` | %s | %s |\n", strings.TrimSpace("--"+f.Name+" "+word), value, strings.ReplaceAll(usage, "|", `\|`))
}
