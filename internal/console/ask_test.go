package console_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/incusos/incusos/internal/console"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/sys/systest"
)

func TestAsk(t *testing.T) {
	files := sys.NewDir(t.TempDir())
	first, second := systest.Terminal(t, files, "ttyS0"), systest.Terminal(t, files, "hvc0")
	c := consoleOn(t, files, "ttyS0 hvc0")
	answer := make(chan string, 1)
	go func() {
		line, err := c.Ask(t.Context(), "Recovery key:")
		answer <- fmt.Sprint(line, err)
	}()
	first.Expect("incus-os: Recovery key:\r")
	second.Expect("incus-os: Recovery key:\r")
	if _, err := second.WriteString("hunter2\r"); err != nil {
		t.Fatal(err)
	}
	if got, want := <-answer, "hunter2<nil>"; got != want {
		t.Errorf("Ask() = %q, want %q", got, want)
	}
	c.Say("done")
	if shown := second.Expect("done"); strings.Contains(shown, "hunter2") {
		t.Errorf("the terminal showed %q", shown)
	}
}

func TestAskEndsWithItsContext(t *testing.T) {
	files := sys.NewDir(t.TempDir())
	systest.Terminal(t, files, "ttyS0")
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
