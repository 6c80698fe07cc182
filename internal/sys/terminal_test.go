package sys_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/incusos/incusos/internal/sys"
)

// A pty is a terminal, and the end of it where a person would sit.
type pty struct {
	name   string
	person *os.File
	keep   *os.File // while nobody has it open, it throws away what it was given
}

func newPTY(t *testing.T) pty {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudoterminals: %v", err)
	}
	number, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err := errors.Join(err, unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0)); err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("/dev/pts/%d", number)
	keep, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudoterminals: %v", err)
	}
	t.Cleanup(func() { keep.Close(); person.Close() })
	return pty{name, person, keep}
}

// echoes reports whether what is typed is shown.
func (p pty) echoes(t *testing.T) bool {
	t.Helper()
	mode, err := unix.IoctlGetTermios(int(p.keep.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return mode.Lflag&unix.ECHO != 0
}

// waitQuiet waits until what is typed is not shown.
func (p pty) waitQuiet(t *testing.T) {
	t.Helper()
	for began := time.Now(); p.echoes(t); time.Sleep(time.Millisecond) {
		if time.Since(began) > 10*time.Second {
			t.Fatal("the terminal goes on showing what is typed")
		}
	}
}

func TestReadSecret(t *testing.T) {
	p, other := newPTY(t), newPTY(t)
	answer := make(chan string, 1)
	go func() {
		line, err := sys.ReadSecret(t.Context(), sys.NewDir("/"), []string{"/dev/null", other.name, "/no/such/terminal", p.name}, func() {})
		answer <- fmt.Sprint(line, " ", err)
	}()
	p.waitQuiet(t)
	other.waitQuiet(t)
	if _, err := p.person.WriteString("  secret key \rmore"); err != nil {
		t.Fatal(err)
	}
	if got, want := <-answer, "secret key <nil>"; got != want {
		t.Errorf("ReadSecret() = %q, want %q", got, want)
	}
	if !p.echoes(t) || !other.echoes(t) {
		t.Error("the terminals do not show what is typed any more")
	}
}

func TestReadSecretEndsWithItsContext(t *testing.T) {
	p := newPTY(t)
	ctx, cancel := context.WithCancel(t.Context())
	end := make(chan error, 1)
	go func() {
		_, err := sys.ReadSecret(ctx, sys.NewDir("/"), []string{p.name}, func() {})
		end <- err
	}()
	p.waitQuiet(t)
	cancel()
	if err := <-end; !errors.Is(err, context.Canceled) {
		t.Errorf("ReadSecret() = %v, want the end of its context", err)
	}
	if !p.echoes(t) {
		t.Error("the terminal does not show what is typed any more")
	}
}

func TestReadSecretWithoutTerminal(t *testing.T) {
	_, err := sys.ReadSecret(t.Context(), sys.NewDir("/"), []string{"/dev/null", "/no/such/terminal"}, func() {})
	if !errors.Is(err, sys.ErrNoTerminal) {
		t.Errorf("ReadSecret() = %v, want %v", err, sys.ErrNoTerminal)
	}
}

func TestReadKeys(t *testing.T) {
	p := newPTY(t)
	ctx, cancel := context.WithCancel(t.Context())
	keys, end := make(chan string, 8), make(chan error, 1)
	go func() {
		end <- sys.ReadKeys(ctx, sys.NewDir("/"), p.name, func(b []byte) { keys <- string(b) })
	}()
	p.waitQuiet(t)
	for _, key := range []string{"l", "\x1b[12~", "\x13", "\x03"} { // the last two would stop the output, and a program
		if _, err := p.person.WriteString(key); err != nil {
			t.Fatal(err)
		}
		if got := <-keys; got != key {
			t.Errorf("typed %q, read %q", key, got)
		}
	}
	cancel()
	if err := <-end; !errors.Is(err, context.Canceled) {
		t.Errorf("ReadKeys() = %v, want the end of its context", err)
	}
	if !p.echoes(t) {
		t.Error("the terminal is not as it was")
	}
}

func TestReadKeysOfATerminalThatGoesAway(t *testing.T) {
	p := newPTY(t)
	end := make(chan error, 1)
	go func() { end <- sys.ReadKeys(t.Context(), sys.NewDir("/"), p.name, func([]byte) {}) }()
	p.waitQuiet(t)
	if err := errors.Join(p.keep.Close(), p.person.Close()); err != nil {
		t.Fatal(err)
	}
	if err := <-end; err == nil || errors.Is(err, sys.ErrNoTerminal) {
		t.Errorf("ReadKeys() = %v, want that it cannot be read", err)
	}
	if err := sys.ReadKeys(t.Context(), sys.NewDir("/"), "/dev/null", nil); !errors.Is(err, sys.ErrNoTerminal) {
		t.Errorf("ReadKeys(/dev/null) = %v, want %v", err, sys.ErrNoTerminal)
	}
}
