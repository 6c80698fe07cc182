package console_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/incusos/incusos/internal/console"
	"github.com/incusos/incusos/internal/sys"
)

// Somebody types on the screen and on a serial line; each gets what was asked for
// there, and the serial line as lines like all others.
func TestKeysOnBothKindsOfConsoles(t *testing.T) {
	files := sys.NewDir(t.TempDir())
	screen, line := seat{t, terminal(t, files, "tty1")}, seat{t, terminal(t, files, "ttyS0")}
	c := consoleOn(t, files, "tty0 ttyS0")
	c.Show(console.Status{Name: "IncusOS", Version: "1"})
	entries := func(context.Context) []string {
		var lines []string
		for i := range 50 {
			lines = append(lines, fmt.Sprintf("entry %d", i+1))
		}
		return lines
	}
	c.Listen(t.Context(), console.Page{Key: 'l', Name: "log", End: true, Read: entries}, console.Page{Key: 'n', Name: "network", Read: entries})
	screen.until("l", "log, lines 30 to 50 of 50")
	screen.until("b", "log, lines 1 to 21 of 50")
	screen.until("\x1b[[A", "State       ready")
	screen.until("n", "network, lines 1 to 21 of 50")
	shown := line.until("\x1bOQ", "incus-os: --- s status, l log, n network, b older, space newer\r")
	if !strings.Contains(shown, "incus-os: --- log, lines 30 to 50 of 50\r") || !strings.Contains(shown, "incus-os: entry 50\r") {
		t.Errorf("the serial line showed %q", shown)
	}
	if strings.Contains(shown, "OQ") {
		t.Errorf("the serial line shows what is typed: %q", shown)
	}
	line.until("s", "incus-os: IncusOS 1 is ready")
	c.Fail("cannot install", "there is no drive") // an alarm takes the place of a page
	if shown := screen.until("", "CANNOT INSTALL"); strings.HasSuffix(shown, "newer") {
		t.Errorf("the screen showed %q", shown)
	}
	screen.until("l", "log, lines 30 to 50 of 50") // and can be looked into
}

// A seat is the end of a terminal where a person sits.
type seat struct {
	t      *testing.T
	person *os.File
}

// until types keys, again and again since a terminal that nobody listens to yet
// forgets them, until text is shown, and returns what was shown.
func (s seat) until(keys, text string) (shown string) {
	s.t.Helper()
	buf := make([]byte, 8192)
	for end := time.Now().Add(10 * time.Second); !strings.Contains(shown, text); {
		if time.Now().After(end) {
			s.t.Fatalf("the terminal showed %q, not %q", shown, text)
		}
		if _, err := s.person.WriteString(keys); err != nil {
			s.t.Fatal(err)
		}
		if err := s.person.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
			s.t.Fatal(err)
		}
		for !strings.Contains(shown, text) {
			n, err := s.person.Read(buf)
			shown += string(buf[:n])
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				s.t.Fatal(err)
			}
		}
	}
	return shown
}
