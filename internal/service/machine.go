package service

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"time"

	"github.com/incusos/incusos/internal/sys"
)

// A machine is the host as a service sees it.
type machine struct {
	sys.Host
	name string // of the service
}

// has reports whether a program is in the image.
func (m machine) has(program string) bool {
	return m.Files.Exists("/usr/sbin/"+program) || m.Files.Exists("/usr/bin/"+program)
}

// run runs a program that belongs to a service and returns what it printed. Its
// arguments are not repeated in errors.
func (m machine) run(ctx context.Context, program string, args ...string) ([]byte, error) {
	out, err := m.Exec.Run(ctx, sys.Command(program, args...))
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%s did not end in time: %w", program, err)
	}
	return out, err
}

// Services give what is reached over the network some time: right after the
// start of a machine an address may be missing for another second.
const (
	tries = 10
	pause = 500 * time.Millisecond
)

// insist calls do until it works, a few times.
func insist(ctx context.Context, do func(context.Context) error) error {
	err := do(ctx)
	for i := 1; err != nil && i < tries; i++ {
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
		err = do(ctx)
	}
	return err
}

// read returns the content of a file, and whether it is there.
func (m machine) read(name string) (content string, there bool, err error) {
	b, err := m.Files.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	return string(b), err == nil, err
}

// attribute returns the content of a small file of the kernel; "" if it is not
// there: not every device has every attribute.
func (m machine) attribute(name string) string {
	b, err := m.Files.ReadFile(name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// list returns the names in a directory, sorted; none if it is not there.
func (m machine) list(dir string) []string {
	entries, err := m.Files.ReadDir(dir)
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// identity returns bytes that are this machine's alone, others for each purpose.
// They are made of the machine-id, so that a plan can tell what would be written.
func (m machine) identity(purpose string) (string, error) {
	id, err := m.Files.ReadFile("/etc/machine-id")
	if err != nil {
		return "", fmt.Errorf("looking for the id of this machine: %w", err)
	}
	h := hmac.New(sha256.New, []byte(strings.TrimSpace(string(id))))
	h.Write([]byte("incus-os service " + purpose))
	return hex.EncodeToString(h.Sum(nil)), nil
}

// factory is where the image keeps its own version of files in /etc.
const factory = "/usr/share/factory"

// own reports whether a file says something about this very machine. Packages
// make such files when they are installed, which is when the image is built: that
// one is the same on all machines.
func (m machine) own(name, valid string) bool {
	now, there, err := m.read(name)
	if err != nil {
		return true // nothing is overwritten by mistake
	}
	theirs, built, err := m.read(factory + name)
	return there && strings.Contains(now, valid) && (err != nil || !built || theirs != now)
}

// A cache is what a program said, and when.
type cache[T any] struct {
	mu    sync.Mutex
	value T
	at    time.Time
}

func (c *cache[T]) put(v T) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.value, c.at = v, time.Now()
}

// get returns the value and its age as documents have it; "" is never.
func (c *cache[T]) get() (v T, observed string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at.IsZero() {
		return c.value, ""
	}
	return c.value, c.at.UTC().Format(time.RFC3339)
}
