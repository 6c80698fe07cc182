package sys

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// WaitFor returns when name exists in d, or when ctx ends. Its directory is
// watched rather than asked again and again (inotify(7)).
func WaitFor(ctx context.Context, d Dir, name string) error {
	return waitUntil(ctx, d, name, func() bool { return d.Exists(name) })
}

// WaitGone returns when name does not exist in d, or when ctx ends.
func WaitGone(ctx context.Context, d Dir, name string) error {
	return waitUntil(ctx, d, name, func() bool { return !d.Exists(name) })
}

func waitUntil(ctx context.Context, d Dir, name string, done func() bool) error {
	for !done() {
		dir := existing(d, filepath.Dir(name))
		changed, stop, err := watch(d.Path(dir))
		if err != nil {
			return fmt.Errorf("watching %s: %w", dir, err)
		}
		// It may have happened between the look and the watch, and so may have
		// the making of a directory closer to it, in which it will happen.
		if done() {
			return stop()
		}
		if existing(d, filepath.Dir(name)) != dir {
			if err := stop(); err != nil {
				return err
			}
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("waiting for a change of %s: %w", name, ctx.Err()), stop())
		}
		if err := stop(); err != nil {
			return err
		}
	}
	return nil
}

// existing returns dir, or the closest of its parents that is there.
func existing(d Dir, dir string) string {
	for dir != "/" && !d.Exists(dir) {
		dir = filepath.Dir(dir)
	}
	return dir
}

// watch returns a channel that is closed once something is added to or taken
// from dir. The caller ends it with stop.
func watch(dir string) (changed <-chan struct{}, stop func() error, err error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, nil, err
	}
	f := os.NewFile(uintptr(fd), "inotify") //nolint:gosec // a file descriptor
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_DELETE|unix.IN_MOVED_TO|unix.IN_MOVED_FROM); err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	c := make(chan struct{})
	go func() {
		defer close(c)
		var buf [4096]byte
		_, _ = f.Read(buf[:]) // ends with an event, or when stop closes f
	}()
	return c, f.Close, nil
}
