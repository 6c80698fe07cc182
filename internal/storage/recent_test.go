package storage_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/incusos/incusos/internal/storage"
)

// Pages that watch a machine ask every few seconds, and each answer took three
// programs.
func TestAskingOftenRunsNoPrograms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rig, _ := start(t)
		s := storage.New(rig.Host)
		must(t, s.Reconcile(t.Context()))
		look := func() int {
			before := len(rig.Programs.Ran())
			for range 5 {
				if _, err := s.State(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			return len(rig.Programs.Ran()) - before
		}
		first := look()
		if first == 0 || first > 3 {
			t.Errorf("asking ran %d programs", first)
		}
		if n := look(); n != 0 {
			t.Errorf("asking again ran %d programs", n)
		}
		must(t, rig.Host.Files.WriteFile("/proc/spl/kstat/zfs/local/state", []byte("DEGRADED\n"), 0o444))
		if n := look(); n != first {
			t.Errorf("after a pool got into trouble, asking ran %d programs, want %d", n, first)
		}
		must(t, rig.Host.Files.WriteFile("/dev/disk/by-id/usb-new", nil, 0o444))
		if n := look(); n != first {
			t.Errorf("after a drive came, asking ran %d programs, want %d", n, first)
		}
		time.Sleep(11 * time.Second)
		if n := look(); n != first {
			t.Errorf("after a while, asking ran %d programs, want %d", n, first)
		}
	})
}
