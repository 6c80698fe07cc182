// Package console shows on the machine's own screens how it is doing.
//
// There are two kinds of them. The screen (tty1) is redrawn in place: a status
// block, what is in progress, the last messages, or in red what is wrong and
// what to do. Serial consoles, and whatever else the kernel was told to use,
// get one line for each thing that changed, each beginning with "incus-os: ",
// so that a person scrolling back and a program reading along can follow.
//
// On either kind, a key shows a page: the log, or what there is to say about the
// network. There is nothing that a key could change.
//
//	screen.go  what the screen looks like        (pure)
//	lines.go   what a serial console is told     (pure)
//	keys.go    which keys were typed             (pure)
//	pages.go   looking at pages
//	reveal.go  a secret for whoever is at the machine, as a QR code
//	device.go  which consoles there are, and writing to them
//	ask.go     a line typed on any of them
//
// Nothing waits for a console: one that is slow or gone only loses output.
// Nothing is decided here: package daemon says what to show, and package install
// beside this one how far it is.
package console

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys"
)

const (
	// serialEvery is how often a serial console hears of one phase's progress.
	serialEvery = 2 * time.Second
	// screenEvery is how often progress redraws the screen.
	screenEvery = 200 * time.Millisecond
)

// A Status is what there is to know about the machine at one moment.
type Status struct {
	Name      string        // of the system, "IncusOS"
	Version   string        // such as "202601010000"
	Mode      api.Mode      // a development build is marked as one
	Hostname  string        // of the machine
	Addresses []string      // IP addresses, without the length of the network
	IncusUp   bool          // Incus answers at these addresses
	Starting  string        // what is being brought up; "" when that is over
	Alarms    []string      // why the machine is not to be trusted like others
	Degraded  []string      // "area: what is wrong, what to do"; none: ready
	Warnings  []string      // what needs attention although it works
	Elapsed   time.Duration // since the system started
}

// A Console shows the same on all consoles of a machine. Its methods may be
// called from several goroutines, and return without waiting for output.
type Console struct {
	files sys.Dir
	names []string // of the consoles, such as "/dev/ttyS0"

	mu       sync.Mutex
	view     view
	progress map[string]*progress // by phase
	screens  []*device
	serials  []*device
	also     map[string]*device // of serials, those that Also was told
	listen   func(name string) (stop func())
	deaf     map[string]func() // ends listening to one of also
}

// A progress is how far a phase was when somebody was last told.
type progress struct {
	began, screen, serial time.Time
	complete              bool
}

// New returns the console of the machine with these files. Each writer of more
// is told what a serial console is told.
func New(files sys.Dir, more ...io.Writer) *Console {
	c := &Console{files: files, names: names(files), progress: make(map[string]*progress), also: make(map[string]*device), deaf: make(map[string]func())}
	for _, name := range c.names {
		put := func(b []byte) error { return files.PutFile(name, b) }
		if name == screenDevice {
			c.screens = append(c.screens, open(name, true, put))
		} else {
			c.serials = append(c.serials, open(name, false, put))
		}
	}
	for _, w := range more {
		put := func(b []byte) error { _, err := w.Write(b); return err }
		log := open("the log", false, put)
		log.kept = true
		c.serials = append(c.serials, log)
	}
	return c
}

// Show shows the status of the machine, and takes away what Fail showed.
func (c *Console) Show(s Status) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tell(news(c.view.status, s)...)
	c.view.status = s
	c.view.failure, c.view.progress = nil, ""
	c.redraw()
}

// Progress shows how far a phase is, such as "install: writing usr". Total is
// in the unit of done, bytes if it is not known and 0. It may be called often.
func (c *Console) Progress(phase string, done, total uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	complete := total > 0 && done >= total
	p := c.progress[phase]
	if p == nil || p.complete && !complete { // new, or once more
		p = &progress{began: now}
		c.progress[phase] = p
	}
	last := complete && !p.complete
	p.complete = complete
	text := amount(phase, done, total, now.Sub(p.began))
	if last || now.Sub(p.serial) >= serialEvery {
		p.serial = now
		c.tell(text)
	}
	if last || now.Sub(p.screen) >= screenEvery {
		p.screen = now
		c.view.progress, c.view.done, c.view.total = text, done, total
		c.redraw()
	}
}

// Say shows a message of one line.
func (c *Console) Say(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	c.tell(text)
	c.view.messages = append(c.view.messages, text)
	if over := len(c.view.messages) - screenHeight; over > 0 {
		c.view.messages = slices.Delete(c.view.messages, 0, over)
	}
	c.redraw()
}

// Fail shows what cannot be done and, in the lines, why and what to do about
// it. It stays on the screen until the next Show.
func (c *Console) Fail(title string, lines ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, line := range lines {
		c.tell(title + ": " + line)
	}
	if len(lines) == 0 {
		c.tell(title)
	}
	c.view.failure, c.view.page = append([]string{title}, lines...), nil
	c.redraw()
}

// Warn shows like Fail what somebody should read before it is gone past, for a time.
func (c *Console) Warn(ctx context.Context, d time.Duration, title string, lines ...string) error {
	lines = append(slices.Clone(lines), "This goes on in "+seconds(d)+"; to stop it, turn the machine off.")
	c.Fail(title, lines...)
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for left := d; left > 0; left -= time.Second {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
		lines[len(lines)-1] = "This goes on in " + seconds(left-time.Second) + "; to stop it, turn the machine off."
		c.mu.Lock()
		c.view.failure = append([]string{title}, lines...)
		c.redraw()
		c.mu.Unlock()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.view.failure = nil
	c.redraw()
	return nil
}

// Close ends the output once what is waiting was written, or after a second.
// What is shown later is not.
func (c *Console) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for _, d := range slices.Concat(c.screens, c.serials) {
		d.close(ctx)
	}
	c.screens, c.serials, c.also = nil, nil, nil
}

// Also has these serial ports show the same, and ports that it was told earlier
// no longer. One that the kernel was told to use does anyway.
func (c *Console) Also(names []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.also == nil {
		return // closed
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for name, d := range c.also {
		if !slices.Contains(names, name) {
			d.close(ctx)
			delete(c.also, name)
			if stop := c.deaf[name]; stop != nil {
				stop()
				delete(c.deaf, name)
			}
			c.serials = slices.DeleteFunc(c.serials, func(other *device) bool { return other == d })
		}
	}
	for _, name := range names {
		if c.also[name] != nil || slices.Contains(c.names, name) {
			continue
		}
		d := open(name, false, func(b []byte) error { return c.files.PutFile(name, b) })
		d.write([]byte(serial(facts(c.view.status))))
		c.serials = append(c.serials, d)
		c.also[name] = d
		if c.listen != nil {
			c.deaf[name] = c.listen(name)
		}
	}
}

func (c *Console) tell(lines ...string) {
	if len(lines) == 0 {
		return
	}
	text := []byte(serial(lines))
	for _, d := range c.serials {
		d.write(text)
	}
}

func (c *Console) redraw() {
	if len(c.screens) == 0 {
		return
	}
	frame := []byte(c.view.draw())
	for _, d := range c.screens {
		d.write(frame)
	}
}
