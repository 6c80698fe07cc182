package osctl

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/client"
)

// An Overview is a machine at a glance.
type Overview struct {
	Environment  api.Environment   `json:"environment"`
	Addresses    []string          `json:"addresses"`
	Pools        []api.StoragePool `json:"pools"`
	Applications map[string]string `json:"applications"` // versions by name
	Tasks        []api.Task        `json:"tasks"`        // that are running
	Trial        *api.Trial        `json:"trial"`        // null: nothing waits to be confirmed
}

// Info shows a machine at a glance.
func Info(ctx context.Context, c *client.Client, p Printer) error {
	o, err := overview(ctx, c)
	if err != nil {
		return err
	}
	if p.Format != Table {
		return p.Value(o)
	}
	return p.table("", o.rows())
}

func overview(ctx context.Context, c *client.Client) (o Overview, err error) {
	server, err := c.Server(ctx)
	if err != nil {
		return o, err
	}
	o = Overview{Environment: server.Environment, Applications: make(map[string]string)}
	network, err1 := optional(c.Network().Get(ctx))
	for _, name := range slices.Sorted(maps.Keys(network.State.Interfaces)) {
		o.Addresses = append(o.Addresses, network.State.Interfaces[name].Addresses...)
	}
	storage, err2 := optional(c.Storage().Get(ctx))
	o.Pools = storage.State.Pools
	paths, err3 := optional(c.Applications(ctx))
	for _, name := range Names(paths) {
		a, err := optional(c.Application(name).Get(ctx))
		if err != nil {
			return o, err
		}
		o.Applications[name] = a.State.FriendlyVersion
	}
	tasks, err4 := optional(c.Tasks(ctx))
	for _, t := range tasks {
		if t.Status == api.TaskRunning {
			o.Tasks = append(o.Tasks, t)
		}
	}
	var err5 error
	o.Trial, err5 = optional(c.Trial(ctx))
	return o, errors.Join(err1, err2, err3, err4, err5)
}

// optional leaves out what the machine does not do.
func optional[T any](v T, err error) (T, error) {
	if e, ok := errors.AsType[*client.Error](err); ok && e.Status == http.StatusNotImplemented {
		err = nil
	}
	return v, err
}

func (o Overview) rows() [][]string {
	e := o.Environment
	rows := [][]string{
		{"host name", e.Hostname},
		{"system", fmt.Sprintf("%s %s (%s)", e.OSName, e.OSVersion, e.Mode)},
		{"ready", yes(e.SystemIsReady)},
		{"up for", (time.Duration(e.Uptime) * time.Second).String()},
		{"addresses", strings.Join(o.Addresses, ", ")},
	}
	for _, p := range o.Pools {
		rows = append(rows, []string{"pool " + p.Name, fmt.Sprintf("%s, %s of %s allocated", p.State, bytesOf(p.Allocated), bytesOf(p.RawSize))})
	}
	for _, name := range slices.Sorted(maps.Keys(o.Applications)) {
		rows = append(rows, []string{"application " + name, o.Applications[name]})
	}
	for _, t := range o.Tasks {
		rows = append(rows, []string{"task " + t.ID, t.Description + ": " + doing(t)})
	}
	if o.Trial != nil {
		rows = append(rows, []string{"on trial", fmt.Sprintf("%s, until %s", o.Trial.Resource, o.Trial.Deadline)})
	}
	return rows
}

// bytesOf is a number of bytes in the largest unit that leaves it above one.
func bytesOf(n uint64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	f, i := float64(n), 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", f, units[i])
}
