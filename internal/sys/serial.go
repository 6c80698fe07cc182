package sys

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Speed returns the speed of a serial port in bits a second, and 0 for what is no
// terminal.
func Speed(d Dir, name string) (int, error) {
	bits := 0
	err := onTerminal(d, name, func(_ int, mode *unix.Termios) error {
		bits = int(mode.Ospeed)
		return nil
	})
	if errors.Is(err, unix.ENOTTY) {
		return 0, nil
	}
	return bits, err
}

// SetSpeed sets the speed of a serial port in bits a second, in both directions.
func SetSpeed(d Dir, name string, bits int) error {
	if err := d.check("write", name); err != nil {
		return err
	}
	return onTerminal(d, name, func(fd int, mode *unix.Termios) error {
		// Any number instead of the few that have a name (termbits.h: BOTHER).
		mode.Cflag = mode.Cflag&^(unix.CBAUD|unix.CBAUD<<unix.IBSHIFT) | unix.BOTHER
		mode.Ispeed, mode.Ospeed = uint32(bits), uint32(bits) //nolint:gosec // at most some millions
		return unix.IoctlSetTermios(fd, unix.TCSETS2, mode)
	})
}

// onTerminal does something with a terminal that is not waited for: a port that
// nobody is on has no carrier.
func onTerminal(d Dir, name string, do func(fd int, mode *unix.Termios) error) (err error) {
	fd, err := unix.Open(d.Path(name), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("opening %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	mode, err := unix.IoctlGetTermios(fd, unix.TCGETS2)
	if err != nil {
		return fmt.Errorf("asking %s for its speed: %w", name, err)
	}
	if err := do(fd, mode); err != nil {
		return fmt.Errorf("setting the speed of %s: %w", name, err)
	}
	return nil
}
