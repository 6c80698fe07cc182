package main

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/incusos/incusos/internal/publish"
	"github.com/incusos/incusos/internal/repo"
)

func repoShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "show REPO",
		Short:   "Show what is in a repository.",
		Long:    "Show what is in a repository, and until when it holds.",
		Example: `  incusos repo show updates`,
		Args:    operands("REPO"),
		RunE: func(c *cobra.Command, args []string) error {
			contents, err := publish.Show(c.Context(), args[0])
			if err != nil {
				return cannot("show the repository", err)
			}
			w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "VERSION\tSEVERITY\tCHANNELS\tSIZE\tNOTE")
			for _, r := range contents.Releases {
				fmt.Fprintf(w, "%s\t%s\t%s\t%d MiB\t%s\n", r.Version, r.Severity, showChannels(r), sizeOf(r)>>20, note(r))
			}
			if err := w.Flush(); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "signed %s, expires %s\n", contents.Signed.Format(time.RFC3339), contents.Expires.Format(time.RFC3339))
			return nil
		},
	}
}

func showChannels(r repo.Release) string {
	var all []string
	for name, p := range r.Channels {
		if p.Percent < 100 {
			name += fmt.Sprintf(" (%d %%)", p.Percent)
		}
		all = append(all, name)
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

func sizeOf(r repo.Release) (n int64) {
	for _, f := range r.All() {
		n += f.Length
	}
	return n
}

func note(r repo.Release) string {
	var notes []string
	if r.Withdrawn != "" {
		notes = append(notes, "withdrawn: "+r.Withdrawn)
	}
	if r.Floor != "" {
		notes = append(notes, "nothing older than "+r.Floor)
	}
	return strings.Join(notes, "; ")
}
