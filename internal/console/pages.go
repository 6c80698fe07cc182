package console

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/incusos/incusos/internal/sys"
)

const (
	// pageRows is how many lines of a page the screen has room for, between a
	// title with a rule and a line that says which keys there are.
	pageRows = screenHeight - 4
	// maxRows is how long a page may be; of a longer one the end is shown.
	maxRows = 1000
	// pageTime is how long a page may take to be read.
	pageTime = 15 * time.Second
	// attention is how long the screen shows a page after the last key. Who
	// comes by later wants to see how the machine is.
	attention = 2 * time.Minute
	// reopen is how soon a terminal that was hung up is listened to again; it
	// has no way to say that it is back.
	reopen = 10 * time.Second
)

// A Page is what can be looked at on a console beside how the machine is. It
// shows things and takes nothing: there is nobody to tell who types.
type Page struct {
	Key  byte   // the small letter that is typed to see it; not b, q or s
	Name string // such as "log"
	End  bool   // its end matters most
	Read func(context.Context) []string
}

// Listen lets whoever types the key of a page on a console see it there, until
// ctx ends. It is called once.
func (c *Console) Listen(ctx context.Context, pages ...Page) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.view.pages = pages
	c.listen = func(name string) (stop func()) {
		ctx, cancel := context.WithCancel(ctx)
		k := &keyboard{console: c, name: name, pages: pages}
		go k.run(ctx)
		return cancel
	}
	for _, name := range c.names {
		c.listen(name)
	}
	for name := range c.also {
		c.deaf[name] = c.listen(name)
	}
	c.redraw()
}

// A keyboard is where one console is typed on.
type keyboard struct {
	console *Console
	name    string // of the console
	pages   []Page
	shown   *shown      // nil: the status
	timer   *time.Timer // ends shown; nil on a serial console
}

// run listens until ctx ends. A console that cannot be typed on needs nobody to.
func (k *keyboard) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := sys.ReadKeys(ctx, k.console.files, k.name, func(typed []byte) { k.press(ctx, lastKey(typed)) })
		if errors.Is(err, sys.ErrNoTerminal) || errors.Is(err, fs.ErrNotExist) {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(reopen):
		}
	}
}

func (k *keyboard) press(ctx context.Context, pressed key) {
	i := slices.IndexFunc(k.pages, func(p Page) bool { return key(p.Key) == pressed })
	switch {
	case i >= 0:
		k.open(ctx, k.pages[i])
	case pressed == toStatus:
		k.status()
	case pressed == toOlder && k.shown != nil:
		k.shown.move(-pageRows)
		k.present()
	case pressed == toNewer && k.shown != nil:
		k.shown.move(pageRows)
		k.present()
	}
}

// open reads a page and shows it.
func (k *keyboard) open(ctx context.Context, p Page) {
	ctx, cancel := context.WithTimeout(ctx, pageTime)
	defer cancel()
	if k.name == screenDevice {
		k.shown = newShown(Page{Name: p.Name}, []string{"looking ..."})
		k.present()
	}
	k.shown = newShown(p, p.Read(ctx))
	k.present()
}

// present puts what is shown where it was asked for.
func (k *keyboard) present() {
	c := k.console
	c.mu.Lock()
	defer c.mu.Unlock()
	if k.name != screenDevice {
		c.tellOne(k.name, k.shown.lines(c.view.pages)...)
		return
	}
	if k.timer != nil {
		k.timer.Stop()
	}
	page := *k.shown
	c.view.page = &page
	k.timer = time.AfterFunc(attention, func() { c.leave(&page) })
	c.redraw()
}

// leave takes a page off the screen, unless it is another one by now.
func (c *Console) leave(page *shown) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.view.page == page {
		c.view.page = nil
		c.redraw()
	}
}

// status shows how the machine is.
func (k *keyboard) status() {
	c := k.console
	c.mu.Lock()
	defer c.mu.Unlock()
	k.shown = nil
	if k.name != screenDevice {
		c.tellOne(k.name, facts(c.view.status)...)
		return
	}
	c.view.page = nil
	c.redraw()
}

// tellOne tells one serial console. The caller holds mu.
func (c *Console) tellOne(name string, lines ...string) {
	for _, d := range c.serials {
		if d.name == name {
			d.write([]byte(serial(lines)))
		}
	}
}

// A shown is a page as it was read, and the part of it that is seen.
type shown struct {
	name string
	rows []string // at most screenWidth-2 wide, safe to show
	at   int      // the first that is seen
}

func newShown(p Page, lines []string) *shown {
	s := &shown{name: p.Name}
	for _, line := range lines {
		s.rows = append(s.rows, wrap(clean(line), screenWidth-2)...)
	}
	s.rows = s.rows[max(0, len(s.rows)-maxRows):]
	if p.End {
		s.move(len(s.rows))
	}
	return s
}

// move shows another part, as far as there is one.
func (s *shown) move(by int) {
	s.at = max(0, min(s.at+by, len(s.rows)-pageRows))
}

func (s *shown) seen() []string { return s.rows[s.at:min(len(s.rows), s.at+pageRows)] }

// title says what part of what is seen.
func (s *shown) title() string {
	if len(s.rows) <= pageRows {
		return s.name
	}
	return fmt.Sprintf("%s, lines %d to %d of %d", s.name, s.at+1, s.at+len(s.seen()), len(s.rows))
}

// lines is the page for a serial console.
func (s *shown) lines(pages []Page) []string {
	out := append([]string{"--- " + s.title()}, s.seen()...)
	return append(out, "--- "+hint(pages, len(s.rows) > pageRows))
}

// hint says which keys there are.
func hint(pages []Page, more bool) string {
	words := string(toStatus) + " status, " + offer(pages)
	if more {
		words += ", " + string(toOlder) + " older, space newer"
	}
	return words
}

// offer says which pages there are.
func offer(pages []Page) string {
	var words []string
	for _, p := range pages {
		words = append(words, string(rune(p.Key))+" "+p.Name)
	}
	return strings.Join(words, ", ")
}
