package console

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/incusos/incusos/internal/sys"
)

const (
	// screenDevice is the virtual terminal that is in front.
	screenDevice = "/dev/tty1"
	// active lists the consoles the kernel was told to use (kernel
	// documentation, ABI/testing/sysfs-tty).
	active = "/sys/class/tty/console/active"
	// backlog is how many bytes wait for a slow serial console at most.
	backlog = 64 << 10
)

// names returns the consoles the machine has: the screen and what the kernel
// was told to use. To the kernel, tty0 is whichever terminal is in front.
func names(files sys.Dir) []string {
	found := []string{screenDevice}
	b, _ := files.ReadFile(active) // a machine without it has no others
	for name := range strings.FieldsSeq(string(b)) {
		if name != "tty0" {
			found = append(found, "/dev/"+name)
		}
	}
	found = slices.DeleteFunc(found, func(name string) bool { return !files.Exists(name) })
	slices.Sort(found)
	return slices.Compact(found)
}

// A device is written to by a goroutine of its own. Consoles are opened for
// each write, and for writing only: a terminal that is kept open goes dead when
// somebody hangs it up, and one that can be read from becomes the controlling
// terminal of the daemon, which would then die with it.
type device struct {
	name    string
	replace bool // only the newest output matters
	kept    bool // what it gets is kept somewhere: it gets no secrets
	put     func([]byte) error

	mu      sync.Mutex
	waiting []byte
	wake    chan struct{} // closed to end
	ended   chan struct{}
}

func open(name string, replace bool, put func([]byte) error) *device {
	d := &device{name: name, replace: replace, put: put, wake: make(chan struct{}, 1), ended: make(chan struct{})}
	go d.run()
	return d
}

// write hands over b and does not wait.
func (d *device) write(b []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.replace:
		d.waiting = b
	case len(d.waiting)+len(b) <= backlog:
		d.waiting = append(d.waiting, b...)
	}
	select {
	case d.wake <- struct{}{}:
	default: // it knows already
	}
}

func (d *device) run() {
	defer close(d.ended)
	worked := true
	for range d.wake {
		err := d.flush()
		if err != nil && worked {
			slog.Warn("Cannot write to a console; others go on", "console", d.name, "err", err)
		}
		worked = err == nil
	}
	if err := d.flush(); err != nil && worked {
		slog.Warn("Cannot write to a console", "console", d.name, "err", err)
	}
}

func (d *device) flush() error {
	d.mu.Lock()
	b := d.waiting
	d.waiting = nil
	d.mu.Unlock()
	if len(b) == 0 {
		return nil
	}
	return d.put(b)
}

// close lets what is waiting be written, until ctx ends. There must be no write
// after it.
func (d *device) close(ctx context.Context) {
	close(d.wake)
	select {
	case <-d.ended:
	case <-ctx.Done():
	}
}
