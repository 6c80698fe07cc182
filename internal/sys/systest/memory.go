package systest

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	memory = "/dev/shm"
	// roomy is how much memory must be free for it: containers often have little.
	roomy = 1 << 30
)

// InMemory returns a temporary directory in memory if this system has one with
// room, else one on a disk. Flushing takes no time there, which is most of what
// tests of a daemon that flushes everything would wait for; what is flushed and
// what is not is the affair of a Platter.
func InMemory(t testing.TB) string {
	t.Helper()
	var fs unix.Statfs_t
	if err := unix.Statfs(memory, &fs); err != nil || fs.Type != unix.TMPFS_MAGIC || fs.Bavail*uint64(fs.Bsize) < roomy { //nolint:gosec // no negative sizes
		return t.TempDir()
	}
	dir, err := os.MkdirTemp(memory, "systest") //nolint:usetesting // t.TempDir is on a disk
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}
