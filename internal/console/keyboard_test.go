package console_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/incusos/incusos/internal/console"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/sys/systest"
)

// Somebody types on the screen and on a serial line; each gets what was asked for
// there, and the serial line as lines like all others.
func TestKeysOnBothKindsOfConsoles(t *testing.T) {
	files := sys.NewDir(t.TempDir())
	screen, line := systest.Terminal(t, files, "tty1"), systest.Terminal(t, files, "ttyS0")
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
	screen.TypeUntil("l", "log, lines 30 to 50 of 50")
	screen.TypeUntil("b", "log, lines 1 to 21 of 50")
	screen.TypeUntil("\x1b[[A", "State       ready")
	screen.TypeUntil("n", "network, lines 1 to 21 of 50")
	shown := line.TypeUntil("\x1bOQ", "incus-os: --- s status, l log, n network, b older, space newer\r")
	if !strings.Contains(shown, "incus-os: --- log, lines 30 to 50 of 50\r") || !strings.Contains(shown, "incus-os: entry 50\r") {
		t.Errorf("the serial line showed %q", shown)
	}
	if strings.Contains(shown, "OQ") {
		t.Errorf("the serial line shows what is typed: %q", shown)
	}
	line.TypeUntil("s", "incus-os: IncusOS 1 is ready")
	c.Fail("cannot install", "there is no drive") // an alarm takes the place of a page
	if shown := screen.Expect("CANNOT INSTALL"); strings.HasSuffix(shown, "newer") {
		t.Errorf("the screen showed %q", shown)
	}
	screen.TypeUntil("l", "log, lines 30 to 50 of 50") // and can be looked into
}
