package service

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/change"
	"github.com/incusos/incusos/internal/store"
	"github.com/incusos/incusos/internal/sys"
)

const (
	// patience is how long one service may take to be brought to its document,
	// so that a target that is gone does not hold up the rest of the machine.
	patience = 30 * time.Second
	// quick is how long programs may take to tell the state.
	quick = 5 * time.Second
)

// A kind is what there is to know about a service beforehand.
type kind struct {
	name     string
	app      string   // the application that brings its programs
	programs []string // that it cannot do without
	absent   string   // what Debian has no package of; "" if it has all
	optional bool     // left out of lists where its programs are not there
}

// An instance is a service of a machine with its document.
type instance[C config] struct {
	kind
	service service[C]
	machine machine
	manager *change.Manager[C]
	saved   *store.Document[C]
	damage  error         // why the document cannot be read
	turn    chan struct{} // held while the machine is being changed

	mu      sync.Mutex
	problem string // why the service is not as it should be
}

func newInstance[C config](host sys.Host, gate *change.Gate, k kind, s service[C]) *instance[C] {
	i := &instance[C]{kind: k, service: s, machine: machine{host, k.name}, turn: make(chan struct{}, 1)}
	i.saved, i.damage = store.Open[C](host.Files, "service-"+k.name)
	if i.damage == nil {
		i.manager = change.New[C]("services/"+k.name, i.saved, i, gate)
	}
	return i
}

func (i *instance[C]) label() string { return i.name }

func (i *instance[C]) listed() bool { return !i.optional || i.lacking() == nil }

func (i *instance[C]) empty() any { return new(C) }

// on reports whether the service is enabled, as far as anybody knows.
func (i *instance[C]) on() bool { return i.damage != nil || i.manager.Config().On() }

func (i *instance[C]) extension() string { return i.app }

// lacking says what is missing to enable the service.
func (i *instance[C]) lacking() error {
	if i.absent != "" {
		return api.Errorf(api.Unsupported, "Debian has no package of %s, and this image is made of Debian's packages only; leave the service %s off", i.absent, i.name)
	}
	for _, p := range i.programs {
		if !i.machine.has(p) {
			return api.Errorf(api.Unsupported, "the service %s needs the application %s, which has the program %s and is not installed; add it first, by `incus admin os application add %s`", i.name, i.app, p, i.app)
		}
	}
	return nil
}

// get returns the document. It waits for nothing but files.
func (i *instance[C]) get() (any, error) {
	if i.damage != nil {
		return nil, i.damage
	}
	i.mu.Lock()
	state := api.ServiceState{Error: i.problem}
	i.mu.Unlock()
	return i.service.document(i.manager.Config(), state), nil
}

func (i *instance[C]) current() (any, error) {
	if i.damage != nil {
		return nil, i.damage
	}
	return i.manager.Config(), nil
}

// accept returns the configuration in a value that a client sent, if this
// machine can have it.
func (i *instance[C]) accept(value any) (c C, err error) {
	if i.damage != nil {
		return c, i.damage
	}
	p, ok := value.(*C)
	if !ok {
		return c, fmt.Errorf("the service %s takes a %T, not a %T", i.name, p, value)
	}
	if (*p).On() {
		if err := i.lacking(); err != nil {
			return c, err
		}
	}
	return *p, i.service.check(*p)
}

func (i *instance[C]) plan(ctx context.Context, value any) (api.Plan, error) {
	c, err := i.accept(value)
	if err != nil {
		return api.Plan{}, err
	}
	return i.manager.Plan(ctx, c)
}

func (i *instance[C]) try(ctx context.Context, value any, within time.Duration) error {
	c, err := i.accept(value)
	if err != nil {
		return err
	}
	return i.manager.Try(ctx, c, within)
}

// Confirm keeps the change that is on trial.
func (i *instance[C]) Confirm(ctx context.Context) error {
	if i.damage != nil {
		return i.damage
	}
	return i.manager.Confirm(ctx)
}

// seed saves a configuration unless there is one.
func (i *instance[C]) seed(value any) error {
	p, ok := value.(*C)
	if i.damage != nil || !ok || p == nil || i.saved.Saved() {
		return nil // the area reports a damaged document
	}
	return i.saved.Set(*p)
}

// reconcile brings the machine to the document. Afterwards it complains about
// what the machine lacks, which must not undo a change.
func (i *instance[C]) reconcile(ctx context.Context) error {
	if i.damage != nil {
		return i.damage
	}
	if err := i.manager.Reconcile(ctx); err != nil {
		return err
	}
	c, ok := i.service.(interface{ complain(C) error })
	if !ok || !i.manager.Config().On() {
		return nil
	}
	err := c.complain(i.manager.Config())
	i.note(err)
	return err
}

// Plan implements change.Target.
func (i *instance[C]) Plan(ctx context.Context, c C) (api.Plan, error) {
	steps, err := i.service.steps(ctx, c, c.On())
	return planOf(steps), err
}

// Apply implements change.Target.
func (i *instance[C]) Apply(ctx context.Context, c C) error {
	if err := i.enter(ctx); err != nil {
		return err
	}
	defer i.leave()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := i.apply(ctx, c, c.On())
	i.note(err)
	i.look(ctx, c)
	return err
}

func (i *instance[C]) apply(ctx context.Context, c C, on bool) error {
	if on {
		if err := i.lacking(); err != nil {
			return err
		}
	}
	steps, err := i.service.steps(ctx, c, on)
	if err != nil {
		return err
	}
	return take(ctx, steps)
}

// look refreshes the state. It has time of its own: after a change that took too
// long the state is what tells why.
func (i *instance[C]) look(ctx context.Context, c C) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), quick)
	defer cancel()
	i.service.refresh(ctx, c)
}

// reset takes the service down whole and brings it up again.
func (i *instance[C]) reset(ctx context.Context) error {
	if i.damage != nil {
		return i.damage
	}
	if i.absent != "" {
		return i.lacking()
	}
	if err := i.enter(ctx); err != nil {
		return err
	}
	defer i.leave()
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	c := i.manager.Config()
	if r, ok := i.service.(interface{ force(context.Context) error }); ok && c.On() {
		if err := r.force(ctx); err != nil {
			return err
		}
	}
	err := i.apply(ctx, c, false)
	if err == nil && c.On() {
		err = i.apply(ctx, c, true)
	}
	i.note(err)
	i.look(ctx, c)
	return err
}

// enter waits until nobody else changes the machine for this service. Reset is
// not a change of the document, so that its manager does not know of it.
func (i *instance[C]) enter(ctx context.Context) error {
	select {
	case i.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for the service %s: %w", i.name, context.Cause(ctx))
	}
}

func (i *instance[C]) leave() { <-i.turn }

// note keeps why the service is not as it should be.
func (i *instance[C]) note(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.problem = ""
	if err != nil {
		i.problem = err.Error()
	}
}

// several is errors in one sentence.
type several []error

func (s several) Error() string {
	var words []string
	for _, err := range s {
		words = append(words, err.Error())
	}
	return strings.Join(words, "; ")
}

func (s several) Unwrap() []error { return s }

// together returns errs as one; nil if there are none.
func together(errs []error) error {
	switch len(errs) {
	case 0:
		return nil
	case 1:
		return errs[0]
	}
	return several(errs)
}
