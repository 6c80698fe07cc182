package apps_test

import (
	"testing"
)

// TestFirstStartThatWasCut: Incus does not start on a key that a power cut has
// emptied, and what it kept by then is nobody's.
func TestFirstStartThatWasCut(t *testing.T) {
	const key, mine = "/var/lib/incus/server.key", "/var/lib/incus/database/mine"
	for name, tt := range map[string]struct {
		before func(t *testing.T, w *world) // the machine is cut
		kept   bool
	}{
		"in its first start": {func(*testing.T, *world) {}, false},
		"after it answered": {func(t *testing.T, w *world) {
			must(t, w.rig.Host.Files.RemoveAll(poolSign))
			if err := w.start(t, w.rig.Host).Reconcile(t.Context()); err == nil {
				t.Fatal("Incus was set up without a pool")
			}
			must(t, w.rig.Host.Files.MkdirAll(poolSign, 0o755))
		}, true},
		"when it was set up": {func(t *testing.T, w *world) { must(t, w.start(t, w.rig.Host).Reconcile(t.Context())) }, true},
		"in its restore": {func(t *testing.T, w *world) {
			must(t, w.rig.Host.Files.WriteFile("/var/lib/incus/.restored-by-incus-os", nil, 0o600))
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, seeded())
			tt.before(t, w)
			must(t, w.rig.Host.Files.WriteFile(key, nil, 0o600))
			must(t, w.rig.Host.Files.WriteFile(mine, []byte("something"), 0o600))
			w.reboot(t)
			a := w.start(t, w.rig.Host)
			must(t, a.Reconcile(t.Context()))
			if got := w.rig.Host.Files.Exists(mine); got != tt.kept {
				t.Errorf("what Incus kept is there: %t, want %t", got, tt.kept)
			}
			w.check(t, "after the next start")
			must(t, w.rig.Host.Files.WriteFile(mine, []byte("something"), 0o600))
			must(t, a.Reconcile(t.Context()))
			if !w.rig.Host.Files.Exists(mine) {
				t.Error("what Incus keeps was removed later")
			}
		})
	}
}
