package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/incusos/incusos/client"
	"github.com/incusos/incusos/internal/osctl"
)

func osTasksCommand(o *osFlags) *cobra.Command {
	ids := o.names(func(m *client.Client, ctx context.Context) ([]string, error) {
		tasks, err := m.Tasks(ctx)
		var all []string
		for _, t := range tasks {
			all = append(all, t.ID)
		}
		return all, err
	})
	list := &cobra.Command{Use: "list", Short: "List tasks, newest first.", Example: "  incusos os tasks list", Args: operands(),
		RunE: o.run("list the tasks", func(ctx context.Context, m *client.Client, p osctl.Printer, _ []string) error {
			return osctl.Tasks(ctx, m, p)
		})}
	show := &cobra.Command{Use: "show ID", Short: "Show one task.", Example: "  incusos os tasks show 7", Args: operands("ID"), ValidArgsFunction: ids,
		RunE: o.run("show the task", func(ctx context.Context, m *client.Client, p osctl.Printer, args []string) error {
			task, err := m.Task(ctx, args[0])
			return shown(p, task, err)
		})}
	cancel := &cobra.Command{Use: "cancel ID", Short: "Ask a task to stop.", Example: "  incusos os tasks cancel 7", Args: operands("ID"), ValidArgsFunction: ids,
		RunE: o.run("cancel the task", func(ctx context.Context, m *client.Client, _ osctl.Printer, args []string) error {
			return m.CancelTask(ctx, args[0])
		})}
	watch := o.watchCommand()
	watch.ValidArgsFunction = ids
	return group("tasks", "Follow work that takes longer than a request.", list, show, watch, cancel)
}

func (o *osFlags) watchCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "watch [ID]",
		Short: "Watch one task, or all that run, until they have ended.",
		Long: `Watch one task, or all that run, until they have ended. A task that failed ends
this with status 1. On a terminal each has a bar; elsewhere a line is printed
when something is new.`,
		Example: "  incusos os applications add debug && incusos os tasks watch",
		Args:    upTo("ID"),
		RunE: o.run("watch the tasks", func(ctx context.Context, m *client.Client, p osctl.Printer, args []string) error {
			id := ""
			if len(args) == 1 {
				id = args[0]
			}
			return osctl.Watch(ctx, m, id, terminal(p.Out), p.Out)
		}),
	}
}
