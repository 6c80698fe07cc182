package image

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// A Log tells a person how a build goes on, and keeps everything that the tools
// print in a file: a build prints thousands of lines, of which a dozen are steps.
// Its methods may be called from several goroutines, and on a nil Log. Nothing
// is buffered, and the file is closed with the process.
type Log struct {
	screen  io.Writer
	name    string // of the file
	verbose bool   // everything goes to the screen too
	began   time.Time

	mu   sync.Mutex
	file *os.File // nil until there is something to keep
	line []byte   // the beginning of a line
	last []string // the newest lines, oldest first
	err  error    // why the file could not be written
}

// NewLog returns a Log that shows steps on screen and keeps everything in the
// file name. Verbose shows everything.
func NewLog(screen io.Writer, name string, verbose bool) *Log {
	return &Log{screen: screen, name: name, verbose: verbose, began: time.Now()}
}

// tailLines is how many lines a failure repeats on the screen.
const tailLines = 25

// stepMark is what mkosi puts before a step of its own.
const stepMark = "‣"

// Write takes what a tool prints.
func (l *Log) Write(p []byte) (int, error) {
	if l == nil {
		return len(p), nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keep(p)
	l.line = append(l.line, p...)
	for {
		line, rest, ok := bytes.Cut(l.line, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		l.note(strings.TrimRight(string(line), "\r"))
		l.line = rest
	}
}

// note shows a whole line if it is a step, and remembers it.
func (l *Log) note(line string) {
	l.last = append(l.last, line)
	if over := len(l.last) - tailLines; over > 0 {
		l.last = l.last[over:]
	}
	step, isStep := strings.CutPrefix(line, stepMark)
	switch {
	case l.verbose:
		fmt.Fprintln(l.screen, line)
	case isStep && !strings.HasPrefix(strings.TrimSpace(step), `"`): // a quoted one is a whole command line
		l.show(strings.TrimSpace(step))
	}
}

// keep writes to the file, which is made when it is first needed: a build that
// is refused at once leaves none.
func (l *Log) keep(p []byte) {
	if l.err == nil && l.file == nil {
		if l.err = os.MkdirAll(filepath.Dir(l.name), 0o755); l.err == nil { //nolint:gosec // holds nothing secret
			l.file, l.err = os.Create(l.name)
		}
	}
	if l.err == nil {
		_, l.err = l.file.Write(p)
	}
}

// Step says what begins now.
func (l *Log) Step(format string, args ...any) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	l.keep([]byte(text + "\n"))
	l.show(text)
}

func (l *Log) show(text string) {
	fmt.Fprintf(l.screen, "%7.1fs  %s\n", time.Since(l.began).Seconds(), text)
}

// every is how often a step that takes long says that it is still at work.
const every = 30 * time.Second

// Follow says from time to time what the tools are at, until the function it
// returns is called.
func (l *Log) Follow() (end func()) {
	if l == nil || l.verbose {
		return func() {}
	}
	stop, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		for {
			select {
			case <-time.After(every):
				l.still()
			case <-stop:
				return
			}
		}
	}()
	return func() {
		close(stop)
		<-over
	}
}

// width is how much of a tool's line is shown.
const width = 70

func (l *Log) still() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.last) == 0 {
		return
	}
	line := strings.ToValidUTF8(l.last[len(l.last)-1], "")
	if len(line) > width {
		line = strings.ToValidUTF8(line[:width], "") + "..."
	}
	l.show("still at it: " + line)
}

// Failed shows the last lines that the tools printed and says where the rest is.
func (l *Log) Failed() {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.verbose {
		for _, line := range l.last {
			if len(line) > 5*width { // the command line of a tool
				line = strings.ToValidUTF8(line[:5*width], "") + "..."
			}
			fmt.Fprintln(l.screen, "  |", line)
		}
	}
	if l.err != nil {
		fmt.Fprintf(l.screen, "the log could not be kept: %v\n", l.err)
	}
}

// String is the name of the file.
func (l *Log) String() string { return l.name }
