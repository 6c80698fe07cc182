// Package change makes changes of configuration safe: plan, try, then confirm
// or roll back, for one document each.
//
// The rule that makes it safe is that saving comes last. While a change is on
// trial the saved document is still the old one, so that a power cut, a crash or
// a restart of the daemon is a roll-back and needs no code of its own. There is
// no "previous configuration" anywhere.
//
//	change.go  a Manager, which owns one document
//	gate.go    at most one change at a time on a machine
//
// What a configuration means is the business of an area, which a Manager knows
// as a Target; where it is saved, of package store. Package daemon has managers
// reconciled, package rest passes requests on.
package change

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/incusos/incusos/api"
)

// A Target is what can be brought to a configuration: an area.
type Target[T any] interface {
	// Plan says what Apply would do. It changes nothing.
	Plan(ctx context.Context, config T) (api.Plan, error)
	// Apply makes the machine match. It does nothing to what already does,
	// and after an error it can be called again, with any configuration.
	Apply(ctx context.Context, config T) error
}

// A Document is where a configuration is saved. Set is durable when it returns.
type Document[T any] interface {
	Get() T
	Set(T) error
}

// ErrNoTrial reports that there is nothing to confirm.
var ErrNoTrial = errors.New("no change is waiting to be confirmed")

// A Manager owns the configuration of one resource. Its methods may be called
// from several goroutines.
type Manager[T any] struct {
	name   string
	saved  Document[T]
	target Target[T]
	gate   *Gate
	turn   turn // held while the machine is brought to a configuration of this resource

	mu    sync.Mutex // guards trial; never held while the machine changes
	trial *trial[T]
}

// A trial is a configuration that is in force until its deadline.
type trial[T any] struct {
	config   T
	deadline time.Time
	timer    *time.Timer
}

// New returns the manager of the resource name, such as "system/network". All
// managers of a machine share one gate.
func New[T any](name string, saved Document[T], target Target[T], gate *Gate) *Manager[T] {
	return &Manager[T]{name: name, saved: saved, target: target, gate: gate, turn: newTurn()}
}

// Config returns the configuration in force: the one on trial, else the saved.
func (m *Manager[T]) Config() T {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.trial != nil {
		return m.trial.config
	}
	return m.saved.Get()
}

// Trial returns when the change on trial will be undone; false if there is none.
func (m *Manager[T]) Trial() (deadline time.Time, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.trial == nil {
		return time.Time{}, false
	}
	return m.trial.deadline, true
}

// Plan says what a change to config would do, now. It changes nothing.
func (m *Manager[T]) Plan(ctx context.Context, config T) (api.Plan, error) {
	return m.target.Plan(ctx, config)
}

// Reconcile brings the machine to the configuration in force. It waits for a
// change of this resource in progress, and for no other.
func (m *Manager[T]) Reconcile(ctx context.Context) error {
	if err := m.turn.enter(ctx); err != nil {
		return err
	}
	defer m.turn.leave()
	return m.target.Apply(ctx, m.Config())
}

// enter waits until neither this resource nor any other is being changed. The
// order matters: whoever waits for a resource must not keep the others waiting.
func (m *Manager[T]) enter(ctx context.Context) error {
	if err := m.turn.enter(ctx); err != nil {
		return err
	}
	if err := m.gate.turn.enter(ctx); err != nil {
		m.turn.leave()
		return err
	}
	return nil
}

func (m *Manager[T]) leave() {
	m.gate.turn.leave()
	m.turn.leave()
}

// Try applies config. With within zero it is saved at once; otherwise it is
// undone unless Confirm is called within that time. If applying or saving fails,
// the saved configuration is applied again before Try returns, with a *Failure.
// While another change waits to be confirmed it is refused with a *PendingError.
//
// The context should outlive the request: the change may cut the connection
// that asked for it.
func (m *Manager[T]) Try(ctx context.Context, config T, within time.Duration) error {
	if within < 0 {
		return fmt.Errorf("the time to confirm in is %v; want more than 0, or 0 to save at once", within)
	}
	if err := m.enter(ctx); err != nil {
		return err
	}
	defer m.leave()
	if err := m.gate.free(); err != nil {
		return err
	}
	err := m.target.Apply(ctx, config)
	if err == nil && within == 0 {
		err = m.saved.Set(config)
	}
	if err != nil {
		return &Failure{Resource: m.name, Err: err, Back: m.back(ctx)}
	}
	if within > 0 {
		m.begin(config, within)
	}
	m.gate.changed()
	return nil
}

// begin puts config, which is applied, on trial.
func (m *Manager[T]) begin(config T, within time.Duration) {
	tr := &trial[T]{config: config, deadline: time.Now().Add(within)}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.trial = tr
	m.gate.hold(m.name, tr.deadline)
	tr.timer = time.AfterFunc(within, func() { m.expire(tr) })
	slog.Info("Change is on trial", "resource", m.name, "until", tr.deadline)
}

// Confirm saves the change that is on trial. If that fails it stays on trial and
// the deadline stands.
func (m *Manager[T]) Confirm(ctx context.Context) error {
	if err := m.enter(ctx); err != nil {
		return err
	}
	defer m.leave()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.trial == nil {
		return ErrNoTrial
	}
	if err := m.saved.Set(m.trial.config); err != nil {
		return err
	}
	m.end()
	return nil
}

// end forgets the trial. The caller holds mu.
func (m *Manager[T]) end() {
	m.trial.timer.Stop()
	m.trial = nil
	m.gate.release()
}

// expire undoes the change tr unless it was confirmed meanwhile.
func (m *Manager[T]) expire(tr *trial[T]) {
	ctx := context.Background() // nobody waits for it
	if err := m.enter(ctx); err != nil {
		return
	}
	defer m.leave()
	if !m.forget(tr) {
		return
	}
	slog.Warn("Change was not confirmed in time and is undone", "resource", m.name)
	if err := m.back(ctx); err != nil {
		slog.Error("Cannot undo the change; it is tried again with the next reconciliation", "resource", m.name, "err", err)
	}
	m.gate.changed()
}

func (m *Manager[T]) forget(tr *trial[T]) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.trial != tr {
		return false // confirmed while the timer fired
	}
	m.end()
	return true
}

// back applies what is saved.
func (m *Manager[T]) back(ctx context.Context) error {
	return m.target.Apply(ctx, m.saved.Get())
}

// A Failure reports a change that could not be made, and what became of the
// machine.
type Failure struct {
	Resource string // such as "system/network"
	Err      error  // why the change could not be made
	Back     error  // why the machine is not as it was; nil if it is
}

func (f *Failure) Error() string {
	if f.Back == nil {
		return fmt.Sprintf("cannot change %s: %v; the machine is back on the saved configuration", f.Resource, f.Err)
	}
	return fmt.Sprintf("cannot change %s: %v; going back to the saved configuration did not work either: %v; it is tried again by itself",
		f.Resource, f.Err, f.Back)
}

func (f *Failure) Unwrap() error { return f.Err }
