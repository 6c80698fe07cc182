package debian

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/incusos/incusos/internal/sys"
)

//go:embed enter.sh
var enterScript string

// A Server is the incusd of a tree, in namespaces of its own, where it reaches nothing
// of this host. It ends with this process, and its mounts and processes end with it.
type Server struct {
	Tree    Tree
	Dir     string   // holds "var", which is its /var, "os", where incus-osd has its socket, and "pid"
	Network string   // file of the network namespace that it is in; "" for a new one
	Log     *os.File // what it says

	process sys.Process
	pid     int // of its first process, as this host sees it
}

// Start starts the server and returns once it has namespaces; it answers later.
func (s *Server) Start(ctx context.Context) error {
	pidFile := filepath.Join(s.Dir, "pid")
	if err := os.Remove(pidFile); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	line := []string{"setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--uts", "--ipc", "--cgroup", "--fork", "--kill-child", "--propagation", "private"}
	if s.Network == "" {
		line = append(line, "--net")
	} else {
		line = append([]string{"nsenter", "--net=" + s.Network}, line...)
	}
	line = append(line, "sh", "-c", enterScript, "enter", string(s.Tree), filepath.Join(s.Dir, "var"), filepath.Join(s.Dir, "os"), pidFile)
	c := sys.Command(line[0], line[1:]...)
	c.Stdout, c.Stderr = s.Log, s.Log
	var err error
	if s.process, err = sys.Real().Exec.Start(context.WithoutCancel(ctx), c); err != nil {
		return err
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		text, err := os.ReadFile(pidFile)
		if err == nil {
			s.pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
		}
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			return errors.Join(fmt.Errorf("starting incusd: %w", err), s.Kill())
		}
	}
}

// Inside is what runs a program in the network of the server.
func (s *Server) Inside() []string {
	return []string{"nsenter", "--target", strconv.Itoa(s.pid), "--net", "--"}
}

// Socket is where the server is reached on this host.
func (s *Server) Socket() string { return filepath.Join(s.Dir, "var/lib/incus/unix.socket") }

// Stop has the server end as a machine does that is turned off, and kills it when that
// takes longer than patience.
func (s *Server) Stop(patience time.Duration) error {
	if err := unix.Kill(s.pid, unix.SIGTERM); err != nil {
		return s.Kill()
	}
	late := time.AfterFunc(patience, func() { _ = unix.Kill(s.pid, unix.SIGKILL) })
	defer late.Stop()
	_ = s.process.Wait() // how it ends tells nothing
	return nil
}

// Kill ends the server at once.
func (s *Server) Kill() error {
	if s.pid == 0 {
		return s.process.Signal(os.Kill)
	}
	_ = unix.Kill(s.pid, unix.SIGKILL) // the first process of its namespace: all others end with it
	_ = s.process.Wait()               // it was killed
	return nil
}
