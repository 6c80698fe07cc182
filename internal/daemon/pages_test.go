package daemon_test

import (
	"testing"

	"github.com/incusos/incusos/internal/daemon"
	"github.com/incusos/incusos/internal/sys/systest"
)

// Somebody at the serial line of a machine without a network sees its log, and how
// far packets get.
func TestPagesOnTheConsole(t *testing.T) {
	rig := machine(t)
	systest.NewJournal(rig)
	line := systest.Terminal(t, rig.Host.Files, "ttyS0")
	if err := rig.Host.Files.WriteFile("/sys/class/tty/console/active", []byte("ttyS0"), 0o644); err != nil {
		t.Fatal(err)
	}
	rig.Links.Set()
	m := start(t, rig, func(*daemon.Options) {})
	line.TypeUntil("l", "12:00:03 incusd: Incus is starting")
	line.TypeUntil("n", "gateway: none; only what is on the same network can be reached")
	line.TypeUntil("s", "no network address yet")
	m.stop(nil)
}
