package sys

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// A Cmd is a program to run.
type Cmd struct {
	Name   string   // looked up in PATH unless it has a slash
	Args   []string // without the name
	Dir    string   // working directory; "" is the caller's
	Env    []string // added to the caller's environment, "KEY=value"
	Stdin  io.Reader
	Stdout io.Writer // nil: returned by Run
	Stderr io.Writer // nil: the last lines go into the ExecError
}

// Command returns the Cmd for name and args.
func Command(name string, args ...string) Cmd { return Cmd{Name: name, Args: args} }

// A Runner runs other programs.
type Runner interface {
	// Run runs c to its end and returns what it printed. A program that ran
	// and failed is reported as an *ExecError.
	Run(ctx context.Context, c Cmd) (stdout []byte, err error)
	// Start starts c and returns at once. The process is asked to end when
	// ctx does (SIGTERM, then SIGKILL after ten seconds).
	Start(ctx context.Context, c Cmd) (Process, error)
}

// A Process is a running program.
type Process interface {
	// Wait waits for its end. It must be called exactly once.
	Wait() error
	// Signal sends a signal to it.
	Signal(os.Signal) error
	// PID is its process id.
	PID() int
}

// An ExecError reports a program that ran and failed.
type ExecError struct {
	Name   string // the program, without its path's directories
	Code   int    // exit status; -1 when a signal ended it
	Stderr string // the last lines it printed, trimmed; Error repeats the last one
}

func (e *ExecError) Error() string {
	s := fmt.Sprintf("%s exited with status %d", e.Name, e.Code)
	if e.Stderr != "" {
		s += ": " + e.Stderr[strings.LastIndexByte(e.Stderr, '\n')+1:]
	}
	return s
}

// ErrNoProgram is a program that this machine does not have.
var ErrNoProgram = exec.ErrNotFound

// stderrTail is how much of a failed program's last words an error repeats.
const stderrTail = 2048

type programs struct{}

func (programs) Run(ctx context.Context, c Cmd) ([]byte, error) {
	var out bytes.Buffer
	if c.Stdout == nil {
		c.Stdout = &out
	}
	p, err := start(ctx, c)
	if err != nil {
		return nil, err
	}
	err = p.Wait()
	return out.Bytes(), err
}

func (programs) Start(ctx context.Context, c Cmd) (Process, error) { return start(ctx, c) }

func start(ctx context.Context, c Cmd) (*process, error) {
	cmd := exec.CommandContext(ctx, c.Name, c.Args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	cmd.Dir, cmd.Stdin, cmd.Stdout = c.Dir, c.Stdin, c.Stdout
	cmd.Env = append(os.Environ(), c.Env...)
	p := &process{cmd: cmd}
	cmd.Stderr = &p.tail
	if c.Stderr != nil {
		cmd.Stderr = io.MultiWriter(c.Stderr, &p.tail)
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return p, nil
}

type process struct {
	cmd  *exec.Cmd
	tail tail
}

func (p *process) PID() int                 { return p.cmd.Process.Pid }
func (p *process) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

func (p *process) Wait() error {
	err := p.cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		name := p.cmd.Args[0]
		name = name[strings.LastIndexByte(name, '/')+1:]
		return &ExecError{name, exit.ExitCode(), strings.TrimSpace(string(p.tail.b))}
	}
	return err
}

// tail keeps the last stderrTail bytes written to it.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if over := len(t.b) - stderrTail; over > 0 {
		t.b = t.b[over:]
	}
	return len(p), nil
}
