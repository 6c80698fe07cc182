package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
	"time"
)

// A Console is the serial port of a running machine. It keeps all that was
// printed, so that Expect never misses what came before it was called.
type Console struct {
	conn  io.ReadWriteCloser
	times io.Writer // gets each line with the time since the start
	scale Scale
	began time.Time
	over  chan struct{} // closed when all that was printed is kept

	mu      sync.Mutex
	lines   []Line
	raw     []byte // what came after the last end of a line
	row     int    // first line that Expect has not passed
	column  int    // bytes of that line it has passed, when it was a prompt
	ended   bool
	changed chan struct{} // closed and replaced when anything of the above changes
}

// A Line is what the machine printed, without control sequences.
type Line struct {
	At   time.Duration // since the start
	Text string
}

// A Match is what Expect found.
type Match struct {
	Line
	Pattern int      // which of the patterns
	Groups  []string // the whole match and its submatches
}

// ErrEnded reports that a machine was switched off while something was
// expected of it.
var ErrEnded = errors.New("the machine has ended")

// newConsole reads from conn until that ends.
func newConsole(conn io.ReadWriteCloser, times io.Writer, scale Scale) *Console {
	c := &Console{conn: conn, times: times, scale: scale, began: time.Now(), over: make(chan struct{}), changed: make(chan struct{})}
	go c.read()
	return c
}

func (c *Console) read() {
	defer close(c.over)
	buf := make([]byte, 4096)
	for {
		n, err := c.conn.Read(buf)
		c.add(buf[:n], err != nil)
		if err != nil {
			return
		}
	}
}

// lineEnd is what starts a new line: firmware moves the cursor instead of
// printing a newline, and progress bars return to the first column.
var lineEnd = regexp.MustCompile(`[\r\n]|\x1b\[[0-9;]*[Hf]`)

func (c *Console) add(b []byte, last bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.raw = append(c.raw, b...)
	for {
		end := lineEnd.FindIndex(c.raw)
		if end == nil {
			break
		}
		c.endLine(c.raw[:end[0]])
		c.raw = c.raw[end[1]:]
	}
	if last {
		c.endLine(c.raw)
		c.raw, c.ended = nil, true
	}
	close(c.changed)
	c.changed = make(chan struct{})
}

// endLine keeps a line unless it is empty. A prompt that Expect has passed in
// part stays on its row.
func (c *Console) endLine(raw []byte) {
	text := clean(raw)
	if strings.TrimSpace(text) == "" {
		return
	}
	l := Line{time.Since(c.began), text}
	c.lines = append(c.lines, l)
	fmt.Fprintf(c.times, "%8.1f %s\n", l.At.Seconds(), l.Text)
}

// control is what a terminal obeys and does not show: strings for the terminal,
// sequences, one of either that has not come to its end, and single characters
// (ECMA-48).
var control = regexp.MustCompile(`\x1b[P\]_^][^\x07\x1b]*(?:\x07|\x1b\\)` +
	`|\x1b\[[0-9;?<=>]*[ -/]*[@-~]` +
	`|(?:\x1b[P\]_^][^\x07\x1b]*\x1b?|\x1b(?:\[[0-9;?<=>]*[ -/]*)?)$` +
	`|\x1b[()].|\x1b.|[\x00-\x08\x0b-\x1a\x7f]`)

func clean(raw []byte) string {
	return strings.ToValidUTF8(string(control.ReplaceAll(raw, nil)), "\uFFFD")
}

// Expect waits for a line that matches one of the patterns and passes it: the
// next call sees what comes after. The unfinished line is looked at too, since
// a prompt has no end. The timeout is that of a machine with KVM; it is scaled.
func (c *Console) Expect(ctx context.Context, timeout time.Duration, patterns ...*regexp.Regexp) (Match, error) {
	timeout = c.scale.Of(timeout)
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for {
		m, found, ended, changed := c.look(patterns)
		switch {
		case found:
			return m, nil
		case ended:
			return Match{}, c.missed(patterns, ErrEnded)
		}
		select {
		case <-changed:
		case <-timer.C:
			return Match{}, c.missed(patterns, fmt.Errorf("not seen within %v", timeout))
		case <-ctx.Done():
			return Match{}, c.missed(patterns, context.Cause(ctx))
		}
	}
}

// look tries the patterns on all that was not passed yet.
func (c *Console) look(patterns []*regexp.Regexp) (m Match, found, ended bool, changed <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.row < len(c.lines) {
		l := c.lines[c.row]
		l.Text = l.Text[min(c.column, len(l.Text)):]
		c.row, c.column = c.row+1, 0
		if m, _, ok := match(l, patterns); ok {
			return m, true, c.ended, c.changed
		}
	}
	prompt := clean(c.raw)
	passed := min(c.column, len(prompt))
	m, end, ok := match(Line{time.Since(c.began), prompt[passed:]}, patterns)
	if ok {
		c.column = passed + end
	}
	return m, ok, c.ended, c.changed
}

func match(l Line, patterns []*regexp.Regexp) (m Match, end int, ok bool) {
	for i, p := range patterns {
		at := p.FindStringSubmatchIndex(l.Text)
		if at == nil {
			continue
		}
		return Match{l, i, p.FindStringSubmatch(l.Text)}, at[1], true
	}
	return Match{}, 0, false
}

// missed explains what was expected and shows what was there instead.
func (c *Console) missed(patterns []*regexp.Regexp, cause error) error {
	var want []string
	for _, p := range patterns {
		want = append(want, "`"+p.String()+"`")
	}
	return fmt.Errorf("waiting for %s on the serial port: %w; it last printed:\n%s",
		strings.Join(want, " or "), cause, c.Tail(30))
}

// Tail returns the last n lines with the times they came at.
func (c *Console) Tail(n int) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b bytes.Buffer
	for _, l := range c.lines[max(0, len(c.lines)-n):] {
		fmt.Fprintf(&b, "%8.1f %s\n", l.At.Seconds(), l.Text)
	}
	if prompt := clean(c.raw); prompt != "" {
		fmt.Fprintf(&b, "         %s\n", prompt)
	}
	return b.String()
}

// Seen reports whether any line so far matches, whether passed or not.
func (c *Console) Seen(pattern *regexp.Regexp) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.lines {
		if pattern.MatchString(l.Text) {
			return true
		}
	}
	return pattern.MatchString(clean(c.raw))
}

// Ended reports whether the machine was switched off.
func (c *Console) Ended() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended
}

// Follow calls f with each line until the machine ends, from the first on and
// apart from what Expect has passed.
func (c *Console) Follow(ctx context.Context, f func(Line)) {
	for row := 0; ; {
		c.mu.Lock()
		fresh, ended, changed := c.lines[row:], c.ended, c.changed
		c.mu.Unlock()
		for _, l := range fresh {
			f(l)
		}
		row += len(fresh)
		if ended {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// Type sends text as if it were typed; "\r" is the return key.
func (c *Console) Type(text string) error {
	if _, err := io.WriteString(c.conn, text); err != nil {
		return fmt.Errorf("typing on the serial port: %w", err)
	}
	return nil
}

// Elapsed is the time since the machine was started.
func (c *Console) Elapsed() time.Duration { return time.Since(c.began) }
