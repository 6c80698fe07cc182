package console_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/incusos/incusos/internal/console"
	"github.com/incusos/incusos/internal/sys"
)

func TestAsk(t *testing.T) {
	files := sys.NewDir(t.TempDir())
	first, second := terminal(t, files, "ttyS0"), terminal(t, files, "hvc0")
	c := consoleOn(t, files, "ttyS0 hvc0")
	answer := make(chan string, 1)
	go func() {
		line, err := c.Ask(t.Context(), "Recovery key:")
		answer <- fmt.Sprint(line, err)
	}()
	expect(t, first, "incus-os: Recovery key:\r")
	expect(t, second, "incus-os: Recovery key:\r")
	if _, err := second.WriteString("hunter2\r"); err != nil {
		t.Fatal(err)
	}
	if got, want := <-answer, "hunter2<nil>"; got != want {
		t.Errorf("Ask() = %q, want %q", got, want)
	}
	c.Say("done")
	if shown := expect(t, second, "done"); strings.Contains(shown, "hunter2") {
		t.Errorf("the terminal showed %q", shown)
	}
}

func TestAskEndsWithItsContext(t *testing.T) {
	files := sys.NewDir(t.TempDir())
	terminal(t, files, "ttyS0")
	c := consoleOn(t, files, "ttyS0")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Ask(ctx, "Recovery key:"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Ask() = %v, want the deadline", err)
	}
}

func TestAskNobody(t *testing.T) {
	c := consoleOn(t, sys.NewDir(t.TempDir()), "ttyS0")
	if _, err := c.Ask(t.Context(), "Recovery key:"); !errors.Is(err, console.ErrNobodyToAsk) {
		t.Errorf("Ask() = %v, want %v", err, console.ErrNobodyToAsk)
	}
}

func consoleOn(t *testing.T, files sys.Dir, active string) *console.Console {
	t.Helper()
	if err := files.WriteFile("/sys/class/tty/console/active", []byte(active), 0o600); err != nil {
		t.Fatal(err)
	}
	c := console.New(files)
	t.Cleanup(c.Close)
	return c
}

// terminal makes a pseudoterminal the console of that name, and returns its
// other end, where a person would sit.
func terminal(t *testing.T, files sys.Dir, name string) *os.File {
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
		err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0)
		number, _ = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
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
	return person
}

// expect reads what a terminal shows until text is in it.
func expect(t *testing.T, person *os.File, text string) (shown string) {
	t.Helper()
	if err := person.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	for !strings.Contains(shown, text) {
		n, err := person.Read(buf)
		if err != nil {
			t.Fatalf("the terminal showed %q, not %q: %v", shown, text, err)
		}
		shown += string(buf[:n])
	}
	return shown
}
