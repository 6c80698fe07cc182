package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
)

// A Monitor is the way to a running QEMU beside its guest: the machine
// protocol QMP (QEMU documentation, interop/qmp-spec).
type Monitor struct {
	conn io.ReadWriteCloser

	mu      sync.Mutex
	replies map[int]chan message
	last    int // id of the last command
	events  []Event
	passed  int // events that Wait has passed
	err     error
	changed chan struct{}
}

// An Event is something that happened to the machine: SHUTDOWN, RESET,
// DEVICE_DELETED, STOP and so on.
type Event struct {
	Name string         `json:"event"`
	Data map[string]any `json:"data"`
}

// A message is any of the things QEMU says.
type message struct {
	Greeting json.RawMessage `json:"QMP"`
	ID       int             `json:"id"`
	Return   json.RawMessage `json:"return"`
	Error    *struct {
		Class string `json:"class"`
		Text  string `json:"desc"`
	} `json:"error"`
	Event
}

// newMonitor greets QEMU and makes it accept commands.
func newMonitor(ctx context.Context, conn io.ReadWriteCloser) (*Monitor, error) {
	q := &Monitor{conn: conn, replies: make(map[int]chan message), changed: make(chan struct{})}
	go q.read()
	if err := q.Execute(ctx, "qmp_capabilities", nil, nil); err != nil {
		return nil, err
	}
	return q, nil
}

func (q *Monitor) read() {
	d := json.NewDecoder(q.conn)
	for {
		var m message
		if err := d.Decode(&m); err != nil {
			q.end(err)
			return
		}
		q.take(m)
	}
}

// take hands a reply to the one that waits for it and keeps an event.
func (q *Monitor) take(m message) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case m.Event.Name != "":
		q.events = append(q.events, m.Event)
		close(q.changed)
		q.changed = make(chan struct{})
	case q.replies[m.ID] != nil:
		q.replies[m.ID] <- m
		delete(q.replies, m.ID)
	}
}

func (q *Monitor) end(err error) {
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		err = ErrEnded
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.err = err
	for _, reply := range q.replies {
		close(reply)
	}
	clear(q.replies)
	close(q.changed)
	q.changed = make(chan struct{})
}

// Execute runs a command of QEMU and stores its answer in result, unless that
// is nil.
func (q *Monitor) Execute(ctx context.Context, command string, arguments, result any) error {
	reply, err := q.send(command, arguments)
	if err != nil {
		return fmt.Errorf("asking QEMU for %s: %w", command, err)
	}
	select {
	case m, ok := <-reply:
		switch {
		case !ok:
			return fmt.Errorf("asking QEMU for %s: %w", command, ErrEnded)
		case m.Error != nil:
			return fmt.Errorf("asking QEMU for %s: %s: %s", command, m.Error.Class, m.Error.Text)
		case result == nil:
			return nil
		}
		return json.Unmarshal(m.Return, result)
	case <-ctx.Done():
		return fmt.Errorf("asking QEMU for %s: %w", command, context.Cause(ctx))
	}
}

func (q *Monitor) send(command string, arguments any) (<-chan message, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return nil, q.err
	}
	q.last++
	line, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
		ID        int    `json:"id"`
	}{command, arguments, q.last})
	if err != nil {
		return nil, err
	}
	reply := make(chan message, 1)
	q.replies[q.last] = reply
	_, err = q.conn.Write(append(line, '\n'))
	return reply, err
}

// Wait waits for the next event of one of the names and passes it. Events that
// came before the call are not missed.
func (q *Monitor) Wait(ctx context.Context, names ...string) (Event, error) {
	for {
		e, found, changed, err := q.next(names)
		if found || err != nil {
			return e, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Event{}, fmt.Errorf("waiting for QEMU to report %q: %w", names, context.Cause(ctx))
		}
	}
}

func (q *Monitor) next(names []string) (e Event, found bool, changed <-chan struct{}, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.passed < len(q.events) {
		e = q.events[q.passed]
		q.passed++
		if slices.Contains(names, e.Name) {
			return e, true, nil, nil
		}
	}
	if q.err != nil {
		err = fmt.Errorf("waiting for QEMU to report %q: %w", names, q.err)
	}
	return Event{}, false, q.changed, err
}

// PowerButton presses the power button, which asks the guest to switch off.
func (q *Monitor) PowerButton(ctx context.Context) error {
	return q.Execute(ctx, "system_powerdown", nil, nil)
}

// Reset presses the reset button, which does not ask.
func (q *Monitor) Reset(ctx context.Context) error { return q.Execute(ctx, "system_reset", nil, nil) }

// Quit pulls the plug.
func (q *Monitor) Quit(ctx context.Context) error {
	err := q.Execute(ctx, "quit", nil, nil)
	if errors.Is(err, ErrEnded) {
		return nil // it went before it could answer
	}
	return err
}

// Unplug takes out the install medium and waits until it is gone.
func (q *Monitor) Unplug(ctx context.Context) error {
	err := q.Execute(ctx, "device_del", map[string]string{"id": medium}, nil)
	if err != nil {
		return err
	}
	_, err = q.Wait(ctx, "DEVICE_DELETED")
	return err
}

// Screenshot writes what the screen shows to a PNG file.
func (q *Monitor) Screenshot(ctx context.Context, name string) error {
	return q.Execute(ctx, "screendump", map[string]string{"filename": name, "format": "png"}, nil)
}
