// Package task runs work that takes longer than a request.
//
// The one who asks gets an api.Task back at once and looks at it later, or has
// it cancelled. What is worth knowing after a power cut is on disk before it is
// true: a task before it starts, and each phase before it begins. How far a
// phase is stays in memory.
//
//	task.go      a Manager: starting, cancelling and waiting
//	record.go    the file of a task, and reading them all again
//	progress.go  what a running task says about itself
//
// A task lives in /var/lib/incus-os/tasks/ID.json. One that ran when the machine
// stopped is run again if its kind says that it may be; the others are reported
// as interrupted. What a kind does is the business of the area that has it;
// documents, which are what the operator wants, are in package store beside this
// one.
package task

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys"
)

// A Kind is a sort of task.
type Kind struct {
	Name string // such as "storage.scrub"

	// Key says what a task works on, such as "application/incus": at most one
	// task with the same key runs. Nil: the name of the kind.
	Key func(arg json.RawMessage) string

	// Resume says that Run, started again from the beginning with the same
	// arg, finishes what was cut anywhere. Progress.Resumed tells where.
	Resume bool

	// Cancel says that a person may stop it half way. Run then has to leave
	// the machine fit for use.
	Cancel bool

	// Run does the work. It returns soon after ctx ends.
	Run func(ctx context.Context, arg json.RawMessage, p *Progress) error
}

func (k Kind) key(arg json.RawMessage) string {
	if k.Key == nil {
		return k.Name
	}
	return k.Key(arg)
}

// kept is how many tasks that have ended are kept.
const kept = 50

// Why the context of a task ended.
var (
	errCancelled = errors.New("it was cancelled")
	errStopping  = errors.New("the machine is stopping")
)

// A Manager runs the tasks of a machine. Its methods may be called from several
// goroutines. It implements rest.Tasks.
type Manager struct {
	files sys.Dir
	kinds map[string]Kind
	show  func(api.Task)
	ctx   context.Context //nolint:containedctx // of all tasks; ends with Close
	stop  context.CancelCauseFunc
	alive sync.WaitGroup // tasks that run

	writing sync.Mutex // held while a file changes; taken before mu

	mu     sync.Mutex // guards what follows; never held while waiting
	jobs   map[int]*job
	last   int // the newest number in use
	closed bool
}

// A job is a task of this Manager, running or not.
type job struct {
	record  record
	key     string                  // "" once it has ended
	cancel  context.CancelCauseFunc // nil once it has ended
	resumed string                  // the phase that it was cut in
	ended   chan struct{}
}

// Open returns the tasks of a machine and goes on with those that were cut and
// may be resumed. Show is told whenever a task changes, and must not wait; it may
// be nil. The Manager can be used even if there is an error, which says what of
// the past could not be read.
func Open(files sys.Dir, show func(api.Task), kinds ...Kind) (*Manager, error) {
	if show == nil {
		show = func(api.Task) {}
	}
	m := &Manager{files: files, show: show, kinds: make(map[string]Kind), jobs: make(map[int]*job)}
	m.ctx, m.stop = context.WithCancelCause(context.Background())
	for _, k := range kinds {
		m.kinds[k.Name] = k
	}
	err := m.load()
	m.writing.Lock()
	defer m.writing.Unlock()
	m.settle()
	m.prune()
	return m, err
}

// Start starts a task of a kind and returns at once. Arg is what its Run is told,
// as JSON. Another task at work on the same thing is an api.Conflict.
func (m *Manager) Start(kind, description string, arg any) (api.Task, error) {
	k, ok := m.kinds[kind]
	if !ok {
		return api.Task{}, fmt.Errorf("there is no kind of task %q", kind)
	}
	raw, err := json.Marshal(arg)
	if err != nil {
		return api.Task{}, fmt.Errorf("starting %q: %w", description, err)
	}
	m.writing.Lock()
	defer m.writing.Unlock()
	j, err := m.admit(k, description, raw)
	if err != nil {
		return api.Task{}, err
	}
	if err := m.write(j.record); err != nil {
		err = fmt.Errorf("starting %q: %w", description, err)
		return api.Task{}, errors.Join(err, m.erase(j.record.ID)) // else it could be run after a restart
	}
	if !m.launch(j, k) {
		return api.Task{}, errors.Join(errClosed(), m.erase(j.record.ID))
	}
	return j.record.Task, nil
}

// admit returns a job for a new task, unless it cannot run now.
func (m *Manager) admit(k Kind, description string, arg json.RawMessage) (*job, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, errClosed()
	}
	key := k.key(arg)
	if err := m.busy(key); err != nil {
		return nil, err
	}
	return newJob(record{Schema: schema, Arg: arg, Task: api.Task{
		ID: strconv.Itoa(m.last + 1), Kind: k.Name, Description: description, Status: api.TaskRunning,
		Started: time.Now().UTC().Truncate(time.Millisecond), CanCancel: k.Cancel,
	}}, key), nil
}

// Busy returns the api.Conflict that Start would, if a task with this key runs.
func (m *Manager) Busy(key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.busy(key)
}

// busy is Busy for one who holds mu.
func (m *Manager) busy(key string) error {
	for _, j := range m.jobs {
		if j.key == key {
			return api.Errorf(api.Conflict, "task %s is at work on the same: %s; wait until it has ended or cancel it", j.record.ID, j.record.Description)
		}
	}
	return nil
}

func newJob(r record, key string) *job { return &job{record: r, key: key, ended: make(chan struct{})} }

func errClosed() error {
	return api.Errorf(api.Unavailable, "the machine is stopping; try again once it is up")
}

// launch runs a job whose file is written. The caller holds writing.
func (m *Manager) launch(j *job, k Kind) bool {
	ctx, cancel := context.WithCancelCause(m.ctx)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		cancel(nil)
		return false
	}
	j.cancel = cancel
	n := j.record.number()
	m.jobs[n], m.last = j, max(m.last, n)
	m.alive.Add(1)
	go func() {
		defer m.alive.Done()
		defer cancel(nil)
		err := k.Run(ctx, j.record.Arg, &Progress{m: m, job: j})
		m.end(j, err, context.Cause(ctx))
	}()
	return true
}

// end notes how a task fared. One that the machine's stopping cut is left on disk
// as running, which is what the next start looks for.
func (m *Manager) end(j *job, err, cause error) {
	m.writing.Lock()
	defer m.writing.Unlock()
	r := m.snapshot(j)
	now := time.Now().UTC().Truncate(time.Millisecond)
	r.Ended, r.CanCancel = &now, false
	switch {
	case err == nil:
		r.Status, r.Arg = api.TaskDone, nil
	case errors.Is(cause, errStopping) && !r.CancelAsked:
		r.Status = api.TaskInterrupted
	case r.CancelAsked:
		r.Status, r.Arg = api.TaskCancelled, nil
	default:
		r.Status, r.Error, r.Arg = api.TaskFailed, err.Error(), nil
	}
	if r.Status != api.TaskInterrupted {
		if err := m.write(r); err != nil {
			slog.Error("Cannot write down how a task ended", "task", r.ID, "err", err)
		}
	}
	m.log(r)
	m.mu.Lock()
	j.record, j.key, j.cancel = r, "", nil
	m.mu.Unlock()
	m.show(r.Task)
	if r.Status != api.TaskInterrupted { // it may run again, and then others are not too many
		m.prune()
	}
	close(j.ended)
}

func (m *Manager) log(r record) {
	if r.Status == api.TaskFailed {
		slog.Error("Task failed", "task", r.ID, "kind", r.Kind, "phase", r.Phase, "err", r.Error)
		return
	}
	slog.Info("Task ended", "task", r.ID, "kind", r.Kind, "status", r.Status)
}

func (m *Manager) snapshot(j *job) record {
	m.mu.Lock()
	defer m.mu.Unlock()
	return j.record
}

// List returns all tasks, newest first.
func (m *Manager) List() []api.Task {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]api.Task, 0, len(m.jobs))
	for _, j := range m.newest() {
		all = append(all, j.record.Task)
	}
	return all
}

// newest returns the jobs, newest first. The caller holds mu.
func (m *Manager) newest() []*job {
	all := make([]*job, 0, len(m.jobs))
	for _, j := range m.jobs {
		all = append(all, j)
	}
	slices.SortFunc(all, func(a, b *job) int { return b.record.number() - a.record.number() })
	return all
}

// Get returns one task.
func (m *Manager) Get(id string) (api.Task, error) {
	j, err := m.find(id)
	if err != nil {
		return api.Task{}, err
	}
	return m.snapshot(j).Task, nil
}

func (m *Manager) find(id string) (*job, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := strconv.Atoi(id)
	if j := m.jobs[n]; err == nil && j != nil && j.record.ID == id {
		return j, nil
	}
	return nil, api.Errorf(api.NotFound, "task %q: not found; /1.0/tasks lists those that are known", id)
}

// Cancel asks a task to stop and does not wait. The wish is on disk before the
// task hears of it, so that a task which was cancelled is not resumed.
func (m *Manager) Cancel(id string) error {
	j, err := m.find(id)
	if err != nil {
		return err
	}
	m.writing.Lock()
	defer m.writing.Unlock()
	r := m.snapshot(j)
	switch {
	case r.Status != api.TaskRunning:
		return api.Errorf(api.Conflict, "task %s has ended already: it is %s", id, r.Status)
	case !r.CanCancel:
		return api.Errorf(api.Conflict, "task %s cannot be stopped half way; wait until it has ended", id)
	case r.CancelAsked:
		return nil
	}
	r.CancelAsked = true
	if err := m.write(r); err != nil {
		return fmt.Errorf("cancelling task %s: %w", id, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	j.record.CancelAsked = true
	j.cancel(errCancelled)
	return nil
}

// Wait returns a task once it has ended.
func (m *Manager) Wait(ctx context.Context, id string) (api.Task, error) {
	j, err := m.find(id)
	if err != nil {
		return api.Task{}, err
	}
	select {
	case <-j.ended:
		return m.snapshot(j).Task, nil
	case <-ctx.Done():
		return m.snapshot(j).Task, ctx.Err()
	}
}

// Close stops all tasks and waits until they have, or until ctx ends. Those that
// may be resumed are, by the next Open.
func (m *Manager) Close(ctx context.Context) error {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.stop(errStopping)
	done := make(chan struct{})
	go func() { m.alive.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for tasks to stop: %w", ctx.Err())
	}
}
