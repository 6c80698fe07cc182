package sys

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/dbus"
)

// systemd talks to the service manager over its private socket, which is there
// long before the system bus is. Nobody stays connected: systemd tells all who
// are of every change of every unit, and to write and to read that takes longer
// than the rest of the boot leaves time for.
type systemd struct{}

// connected calls do with a connection of its own.
func connected(ctx context.Context, do func(*dbus.Conn) error) error {
	conn, err := dbus.NewSystemdConnectionContext(ctx)
	if err != nil {
		return fmt.Errorf("connecting to systemd: %w", err)
	}
	defer conn.Close()
	return do(conn)
}

func (systemd) Start(ctx context.Context, unit string) error {
	return connected(ctx, func(conn *dbus.Conn) error {
		return job(ctx, unit, "starting", conn.StartUnitContext)
	})
}

func (systemd) Stop(ctx context.Context, unit string) error {
	return connected(ctx, func(conn *dbus.Conn) error {
		return job(ctx, unit, "stopping", conn.StopUnitContext)
	})
}

func (systemd) Restart(ctx context.Context, unit string) error {
	return connected(ctx, func(conn *dbus.Conn) error {
		return job(ctx, unit, "restarting", conn.RestartUnitContext)
	})
}

// job queues a job and waits for its result (org.freedesktop.systemd1,
// JobRemoved: "done", "failed", "dependency", "timeout", "canceled", "skipped").
func job(ctx context.Context, unit, doing string, queue func(context.Context, string, string, chan<- string) (int, error)) error {
	done := make(chan string, 1)
	if _, err := queue(ctx, unit, "replace", done); err != nil {
		return fmt.Errorf("%s %s: %w", doing, unit, err)
	}
	select {
	case result := <-done:
		if result != "done" && result != "skipped" {
			return fmt.Errorf("%s %s: its job ended as %q; see the log of that unit", doing, unit, result)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s %s: %w", doing, unit, ctx.Err())
	}
}

func (systemd) Queue(ctx context.Context, unit string) error {
	mode := "replace"
	if strings.HasSuffix(unit, ".target") {
		mode = "replace-irreversibly" // as systemctl(1) does when the machine is to end
	}
	return connected(ctx, func(conn *dbus.Conn) error {
		if _, err := conn.StartUnitContext(ctx, unit, mode, nil); err != nil {
			return fmt.Errorf("starting %s: %w", unit, err)
		}
		return nil
	})
}

func (systemd) Reload(ctx context.Context) error {
	return connected(ctx, func(conn *dbus.Conn) error {
		if err := conn.ReloadContext(ctx); err != nil {
			return fmt.Errorf("reloading systemd: %w", err)
		}
		return nil
	})
}

func (systemd) State(ctx context.Context, unit string) (state string, err error) {
	err = connected(ctx, func(conn *dbus.Conn) error {
		p, err := conn.GetUnitPropertyContext(ctx, unit, "ActiveState")
		if err != nil {
			return fmt.Errorf("asking for the state of %s: %w", unit, err)
		}
		state, _ = p.Value.Value().(string)
		return nil
	})
	return state, err
}

func (systemd) List(ctx context.Context) (units []Unit, err error) {
	err = connected(ctx, func(conn *dbus.Conn) error {
		statuses, err := conn.ListUnitsContext(ctx)
		if err != nil {
			return fmt.Errorf("listing units: %w", err)
		}
		units = make([]Unit, 0, len(statuses))
		for _, u := range statuses {
			units = append(units, Unit{u.Name, u.ActiveState, u.SubState})
		}
		return nil
	})
	slices.SortFunc(units, func(a, b Unit) int { return strings.Compare(a.Name, b.Name) })
	return units, err
}
