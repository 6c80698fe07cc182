package sys_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/incusos/incusos/internal/sys"
)

// sh is a command for the shell.
func sh(script string) sys.Cmd { return sys.Command("/bin/sh", "-c", script) }

func TestExecError(t *testing.T) {
	tests := map[string]struct{ script, want string }{
		"the last words":    {"echo out; echo '  why' >&2; exit 3", "sh exited with status 3: why"},
		"nothing to say":    {"exit 1", "sh exited with status 1"},
		"ended by a signal": {"kill -KILL $$", "sh exited with status -1"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := sys.Real().Exec.Run(t.Context(), sh(tt.script))
			if exit, ok := errors.AsType[*sys.ExecError](err); !ok || exit.Error() != tt.want {
				t.Errorf("Run() = %v, want an ExecError %q", err, tt.want)
			}
		})
	}
}

func TestExecErrorKeepsTheEnd(t *testing.T) {
	var all bytes.Buffer
	c := sh("i=0; while [ $i -lt 1000 ]; do echo line $i >&2; i=$((i+1)); done; echo the end >&2; exit 1")
	c.Stderr = &all
	_, err := sys.Real().Exec.Run(t.Context(), c)
	exit, ok := errors.AsType[*sys.ExecError](err)
	if !ok || len(exit.Stderr) > 2048 || !strings.HasSuffix(exit.Stderr, "line 999\nthe end") {
		t.Errorf("Run() = %v, want the last 2048 bytes", err)
	}
	if !strings.HasPrefix(all.String(), "line 0\n") || !strings.HasSuffix(all.String(), "the end\n") {
		t.Errorf("the writer got %d bytes, want all of it", all.Len())
	}
}

func TestRunHandsOverWhatItIsGiven(t *testing.T) {
	dir := t.TempDir()
	c := sh(`read -r line; echo "$line $WORD"; pwd`)
	c.Dir, c.Env, c.Stdin = dir, []string{"WORD=world"}, strings.NewReader("hello\n")
	out, err := sys.Real().Exec.Run(t.Context(), c)
	if want := "hello world\n" + dir + "\n"; err != nil || string(out) != want {
		t.Errorf("Run() = %q, %v; want %q", out, err, want)
	}
}

func TestProgramThatIsNotThere(t *testing.T) {
	for _, name := range []string{"/no/such/program", "no-such-program"} {
		_, err := sys.Real().Exec.Run(t.Context(), sys.Command(name))
		if _, ran := errors.AsType[*sys.ExecError](err); ran || err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("Run() = %v, want that it did not run", err)
		}
	}
	if _, err := sys.Real().Exec.Run(t.Context(), sys.Command("/no/such/program")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Run() = %v, want that it does not exist", err)
	}
}

func TestProgramsEndWithTheContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := sys.Real().Exec.Run(ctx, sh("exec sleep 60"))
	if err == nil || time.Since(began) > 5*time.Second {
		t.Errorf("Run() = %v after %v, want that it was asked to end", err, time.Since(began))
	}
}

func TestStartedProgramIsSignalled(t *testing.T) {
	p, err := sys.Real().Exec.Start(t.Context(), sh("exec sleep 60"))
	if err != nil {
		t.Fatal(err)
	}
	if p.PID() <= 1 {
		t.Errorf("PID() = %d", p.PID())
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if exit, ok := errors.AsType[*sys.ExecError](p.Wait()); !ok || exit.Code != -1 {
		t.Errorf("Wait() = %v, want that a signal ended it", exit)
	}
}
