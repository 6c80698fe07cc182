package sys

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ReadKeys hands what is typed on a terminal to press, as it comes: a key that
// has no character sends several bytes at once. Nothing typed is shown. It
// returns when ctx ends or the terminal goes away; what is no terminal is
// ErrNoTerminal.
func ReadKeys(ctx context.Context, d Dir, name string, press func([]byte)) (err error) {
	fd, err := unix.Open(d.Path(name), unix.O_RDONLY|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("opening %s: %w", name, err)
	}
	t := &terminal{file: os.NewFile(uintptr(fd), name)} //nolint:gosec // a file descriptor
	mode, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return errors.Join(fmt.Errorf("%w: %s", ErrNoTerminal, name), t.file.Close())
	}
	t.mode = *mode
	defer t.close()
	if err := unix.IoctlSetTermios(fd, unix.TCSETSF, keyMode(*mode)); err != nil {
		return fmt.Errorf("setting up %s: %w", name, err)
	}
	defer context.AfterFunc(ctx, func() { _ = t.file.SetReadDeadline(time.Unix(1, 0)) })()
	buf := make([]byte, 64)
	for {
		n, err := t.file.Read(buf)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("reading %s: %w", name, err)
		}
		press(buf[:n])
	}
}

// keyMode is mode without lines, echo, signals, and a key that stops the output;
// a port goes on without a carrier.
func keyMode(mode unix.Termios) *unix.Termios {
	mode.Lflag &^= unix.ECHO | unix.ICANON | unix.ISIG | unix.IEXTEN
	mode.Iflag &^= unix.IXON
	mode.Cflag |= unix.CLOCAL | unix.CREAD
	mode.Cc[unix.VMIN], mode.Cc[unix.VTIME] = 1, 0
	return &mode
}
