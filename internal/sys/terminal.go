package sys

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrNoTerminal reports that there is nothing to type on.
var ErrNoTerminal = errors.New("there is no terminal to type on")

// maxSecret limits what is read from a terminal, bytes. A recovery key has 71.
const maxSecret = 1024

// ReadSecret returns the first line that is typed on any of the terminals, which
// do not show it. It calls prompt once they are ready: what was typed before
// that does not count, and nothing typed after it is shown. Names that are no
// terminals, or cannot be opened, are left out; with none left it is
// ErrNoTerminal.
func ReadSecret(ctx context.Context, d Dir, names []string, prompt func()) (string, error) {
	lines := make(chan string)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var ready []*terminal
	for _, name := range names {
		t, err := openTerminal(d.Path(name))
		if err != nil {
			continue
		}
		defer t.close()
		ready = append(ready, t)
	}
	prompt()
	for _, t := range ready {
		go t.read(ctx, lines)
	}
	if len(ready) == 0 {
		return "", fmt.Errorf("%w among %s", ErrNoTerminal, strings.Join(names, ", "))
	}
	select {
	case line := <-lines:
		return line, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// A terminal is one that does not echo until it is closed.
type terminal struct {
	file *os.File
	mode unix.Termios // as it was
}

func openTerminal(name string) (*terminal, error) {
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	t := &terminal{file: os.NewFile(uintptr(fd), name)} //nolint:gosec // a file descriptor
	mode, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, errors.Join(err, t.file.Close())
	}
	t.mode = *mode
	quiet := *mode
	quiet.Lflag = quiet.Lflag&^unix.ECHO | unix.ICANON
	quiet.Iflag |= unix.ICRNL
	if err := unix.IoctlSetTermios(fd, unix.TCSETSF, &quiet); err != nil {
		return nil, errors.Join(err, t.file.Close())
	}
	return t, nil
}

// read sends each line until ctx ends; closing the file ends its wait.
func (t *terminal) read(ctx context.Context, lines chan<- string) {
	s := bufio.NewScanner(t.file)
	s.Buffer(make([]byte, maxSecret), maxSecret)
	for s.Scan() {
		select {
		case lines <- strings.TrimSpace(s.Text()):
		case <-ctx.Done():
			return
		}
	}
}

func (t *terminal) close() {
	// A terminal that went away meanwhile needs no restoring.
	_ = unix.IoctlSetTermios(int(t.file.Fd()), unix.TCSETS, &t.mode) //nolint:gosec // a file descriptor
	_ = t.file.Close()
}

// IsTerminal reports whether f is a terminal, on which lines can be drawn over.
func IsTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS) //nolint:gosec // a file descriptor
	return err == nil
}
