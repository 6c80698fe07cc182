package sys

import (
	"context"
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
)

// lookEvery is how often a watch looks whether its connection still stands:
// systemd ends all of them when it executes itself anew.
const lookEvery = time.Minute

// A watching is a connection on which systemd tells of changes.
type watching struct {
	conn    *dbus.Conn
	changes chan *dbus.PropertiesUpdate
	missed  chan error // sent to when changes was full
}

// Watch implements Units. Whoever is connected to systemd directly is told of
// all changes without having to ask.
func (systemd) Watch(ctx context.Context, unit string) (<-chan struct{}, error) {
	w, err := watchUnits(ctx)
	if err != nil {
		return nil, err
	}
	out := make(chan struct{}, 1)
	go w.follow(ctx, unit, out)
	return out, nil
}

func watchUnits(ctx context.Context) (*watching, error) {
	conn, err := dbus.NewSystemdConnectionContext(ctx)
	if err != nil {
		return nil, fmt.Errorf("connecting to systemd: %w", err)
	}
	w := &watching{conn, make(chan *dbus.PropertiesUpdate, 256), make(chan error, 1)}
	conn.SetPropertiesSubscriber(w.changes, w.missed)
	return w, nil
}

// follow tells out of changes of a unit until ctx ends.
func (w *watching) follow(ctx context.Context, unit string, out chan<- struct{}) {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	defer func() { w.conn.Close() }() // the one of then
	for {
		select {
		case <-ctx.Done():
			return
		case c := <-w.changes:
			if _, ok := c.Changed["ActiveState"]; !ok || c.UnitName != unit {
				continue
			}
		case <-w.missed:
		case <-look.C:
			if w.conn.Connected() || !w.again(ctx) {
				continue
			}
		}
		select {
		case out <- struct{}{}:
		default: // the last one has not been looked at yet
		}
	}
}

// again connects once more.
func (w *watching) again(ctx context.Context) bool {
	next, err := watchUnits(ctx)
	if err != nil {
		return false // later
	}
	w.conn.Close()
	*w = *next
	return true
}
