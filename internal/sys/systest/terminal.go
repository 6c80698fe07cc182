package systest

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/incusos/incusos/internal/sys"
)

// A Seat is the end of a terminal where a person would sit.
type Seat struct {
	*os.File
	t testing.TB
}

// Terminal makes a pseudoterminal the terminal of that name, such as "ttyS0".
func Terminal(t testing.TB, files sys.Dir, name string) Seat {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudoterminals: %v", err)
	}
	conn, err := person.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	number := 0
	err = errors.Join(conn.Control(func(fd uintptr) {
		err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0) //nolint:gosec // a file descriptor
		number, _ = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)       //nolint:gosec // as above
	}), err)
	if err != nil {
		t.Fatal(err)
	}
	pts := fmt.Sprintf("/dev/pts/%d", number)
	// While nobody has it open, a terminal throws away what it was given.
	keep, err := os.OpenFile(pts, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudoterminals: %v", err)
	}
	t.Cleanup(func() { keep.Close(); person.Close() })
	if err := errors.Join(files.MkdirAll("/dev", 0o755), files.Symlink(pts, "/dev/"+name)); err != nil {
		t.Fatal(err)
	}
	return Seat{person, t}
}

// Expect reads what the terminal shows until text is in it, and returns that.
func (s Seat) Expect(text string) (shown string) {
	s.t.Helper()
	return s.TypeUntil("", text)
}

// TypeUntil types keys, again and again since a terminal that nobody listens to
// yet forgets them, until text is shown, and returns what was shown.
func (s Seat) TypeUntil(keys, text string) (shown string) {
	s.t.Helper()
	buf := make([]byte, 8192)
	for end := time.Now().Add(10 * time.Second); !strings.Contains(shown, text); {
		if time.Now().After(end) {
			s.t.Fatalf("the terminal showed %q, not %q", shown, text)
		}
		if _, err := s.WriteString(keys); err != nil {
			s.t.Fatal(err)
		}
		if err := s.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
			s.t.Fatal(err)
		}
		for !strings.Contains(shown, text) {
			n, err := s.Read(buf)
			shown += string(buf[:n])
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				s.t.Fatalf("the terminal showed %q, not %q: %v", shown, text, err)
			}
		}
	}
	return shown
}
