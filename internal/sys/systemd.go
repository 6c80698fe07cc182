package sys

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/coreos/go-systemd/v22/dbus"
)

// systemd talks to the service manager over its private socket, which is there
// long before the system bus is.
type systemd struct {
	mu   sync.Mutex
	conn *dbus.Conn
}

func (s *systemd) connect(ctx context.Context) (*dbus.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil && s.conn.Connected() {
		return s.conn, nil
	}
	// The connection outlives the request that needed it first.
	conn, err := dbus.NewSystemdConnectionContext(context.WithoutCancel(ctx))
	if err != nil {
		return nil, fmt.Errorf("connecting to systemd: %w", err)
	}
	s.conn = conn
	return conn, nil
}

func (s *systemd) Start(ctx context.Context, unit string) error {
	conn, err := s.connect(ctx)
	if err != nil {
		return err
	}
	return job(ctx, unit, "starting", conn.StartUnitContext)
}

func (s *systemd) Stop(ctx context.Context, unit string) error {
	conn, err := s.connect(ctx)
	if err != nil {
		return err
	}
	return job(ctx, unit, "stopping", conn.StopUnitContext)
}

func (s *systemd) Restart(ctx context.Context, unit string) error {
	conn, err := s.connect(ctx)
	if err != nil {
		return err
	}
	return job(ctx, unit, "restarting", conn.RestartUnitContext)
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

func (s *systemd) Queue(ctx context.Context, unit string) error {
	conn, err := s.connect(ctx)
	if err != nil {
		return err
	}
	mode := "replace"
	if strings.HasSuffix(unit, ".target") {
		mode = "replace-irreversibly" // as systemctl(1) does when the machine is to end
	}
	if _, err := conn.StartUnitContext(ctx, unit, mode, nil); err != nil {
		return fmt.Errorf("starting %s: %w", unit, err)
	}
	return nil
}

func (s *systemd) Reload(ctx context.Context) error {
	conn, err := s.connect(ctx)
	if err != nil {
		return err
	}
	if err := conn.ReloadContext(ctx); err != nil {
		return fmt.Errorf("reloading systemd: %w", err)
	}
	return nil
}

func (s *systemd) State(ctx context.Context, unit string) (string, error) {
	conn, err := s.connect(ctx)
	if err != nil {
		return "", err
	}
	p, err := conn.GetUnitPropertyContext(ctx, unit, "ActiveState")
	if err != nil {
		return "", fmt.Errorf("asking for the state of %s: %w", unit, err)
	}
	state, _ := p.Value.Value().(string)
	return state, nil
}

func (s *systemd) List(ctx context.Context) ([]Unit, error) {
	conn, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	statuses, err := conn.ListUnitsContext(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing units: %w", err)
	}
	units := make([]Unit, 0, len(statuses))
	for _, u := range statuses {
		units = append(units, Unit{u.Name, u.ActiveState, u.SubState})
	}
	slices.SortFunc(units, func(a, b Unit) int { return strings.Compare(a.Name, b.Name) })
	return units, nil
}
