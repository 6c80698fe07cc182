package install_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/incusos/incusos/internal/sys/systest"
)

func TestCutAnywhereInstallsAgain(t *testing.T) {
	effects := 0
	for at := 1; cutAt(t, at, false); at++ {
		effects = at
	}
	// Programs, mounts and writes of an install. Fewer would be effects that this
	// test does not see.
	if effects != 14 {
		t.Errorf("%d effects were seen, want 14", effects)
	}
	// A cut after an effect is one before the next, but for the last.
	if !cutAt(t, effects, true) {
		t.Error("the last effect was not cut")
	}
}

// cutAt installs with a cut and then without, and reports whether it came to
// the cut.
func cutAt(t *testing.T, at int, late bool) bool {
	t.Helper()
	b := newBench(t)
	whole := b.Host
	c := &systest.Cutter{At: at, Power: true, Late: late}
	b.Host = c.Host(whole)
	err := b.run(t)
	b.Host = whole
	if err == nil {
		return false
	}
	if !errors.Is(err, systest.ErrCut) {
		t.Fatalf("cut at effect %d: %v, want the cut", at, err)
	}
	b.again(t, at)
	return true
}

// again asserts that after a cut the disk is untouched, marked, or complete,
// and that the next run makes it complete or says that it is.
func (b bench) again(t *testing.T, at int) {
	t.Helper()
	name := "untouched"
	if table := b.disks.Table("nvme0n1"); len(table) > 0 {
		name = table[0].Name
	}
	err := b.run(t)
	switch name {
	case "untouched", "incusos-incomplete":
		if err != nil {
			t.Errorf("cut at effect %d, then again: %v", at, err)
		}
	case "esp":
		if err == nil || !strings.Contains(err.Error(), "already installed") {
			t.Errorf("cut after the last effect, then again: %v, want that it is installed", err)
		}
	default:
		t.Errorf("cut at effect %d: the first partition is named %q", at, name)
	}
	b.check(t)
}
