package apps_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/incusos/incusos/internal/sets"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/sys/systest"
)

// update stores a newer image of Incus, as an update of applications does.
func (w *world) update(t *testing.T) sets.Set {
	t.Helper()
	next := sets.Set{"incus": newer}
	must(t, sets.Open(w.rig.Host.Files).Coming(version, next))
	must(t, w.rig.Host.Files.WriteFile(sets.Path("incus", newer), []byte("newer"), 0o644))
	return next
}

// counted counts how often Incus was stopped.
func (w *world) counted() *int {
	n := new(int)
	w.rig.Units.Model("incus.service", nil, func() error { *n++; return nil })
	return n
}

func (w *world) system(t *testing.T) sets.System {
	t.Helper()
	of, err := sets.Open(w.rig.Host.Files).Of(version)
	must(t, err)
	return of
}

func TestAdopt(t *testing.T) {
	w, _ := ready(t)
	next := w.update(t)
	o := w.open(t, w.rig.Host)
	stops := w.counted()
	must(t, o.apps.Adopt(t.Context(), next))
	if got := w.sysext.Merged()["incus"]; got != sets.Path("incus", newer) || *stops != 1 {
		t.Errorf("merged is %q and Incus was stopped %d times, want the newer one and once", got, *stops)
	}
	if got, want := w.system(t), (sets.System{Now: next, Before: sets.Set{"incus": version}}); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("written down is %+v, want %+v", got, want)
	}
	must(t, o.apps.Reconcile(t.Context()))
	if p, err := o.apps.Plan(t.Context()); err != nil || !p.Empty() || *stops != 1 {
		t.Errorf("stopped %d times; to do: %v\n%s", *stops, err, p)
	}
	must(t, o.Switch(t.Context(), "incus", "")) // the one before is kept
	o.done(t)
	w.check(t, "back on the one before")
}

// Images that do not work are not kept, and not taken again by themselves.
func TestAdoptGoesBack(t *testing.T) {
	tests := map[string]struct {
		prepare func(*world)
		says    string
		refused bool
	}{
		"not accepted": {func(w *world) { w.sysext.Refuse(sets.Path("incus", newer)) }, "was not accepted", true},
		"it does not come up": {func(w *world) {
			w.rig.Units.Model("incus-startup.service", func() error {
				if w.sysext.Merged()["incus"] != image {
					return errors.New("Incus crashed")
				}
				return nil
			}, nil)
		}, "Incus crashed", true},
		"no room": {func(w *world) {
			full := true
			w.rig.Programs.Model("systemd-sysusers", func(context.Context, sys.Cmd) ([]byte, error) {
				if full {
					full = false
					return nil, errors.New("no space left on device")
				}
				return nil, nil
			})
		}, "no space left", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w, _ := ready(t)
			next := w.update(t)
			must(t, w.rig.Units.Stop(t.Context(), "incus-startup.service"))
			tt.prepare(w)
			o := w.open(t, w.rig.Host)
			err := o.apps.Adopt(t.Context(), next)
			if err == nil || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), "it is back on version "+version) {
				t.Errorf("Adopt() = %v, want %q", err, tt.says)
			}
			must(t, o.apps.Reconcile(t.Context()))
			w.check(t, "after that")
			of := w.system(t)
			if got := of.Refused["incus"] == newer; got != tt.refused || !maps.Equal(of.Now, sets.Set{"incus": version}) {
				t.Errorf("written down is %+v, want it refused: %t", of, tt.refused)
			}
			if w.rig.Host.Files.Exists(sets.Path("incus", newer)) == tt.refused {
				t.Errorf("its image is stored: %t", !tt.refused)
			}
		})
	}
}

// udev reads its rules again once those of the new image are there.
func TestUdevReadsTheRulesOfAnImage(t *testing.T) {
	w, _ := ready(t)
	next := w.update(t)
	read := ""
	w.rig.Programs.Model("udevadm", func(_ context.Context, c sys.Cmd) ([]byte, error) {
		if slices.Equal(c.Args, []string{"control", "--reload"}) {
			read = w.sysext.Merged()["incus"]
		}
		return nil, nil
	})
	must(t, w.open(t, w.rig.Host).apps.Adopt(t.Context(), next))
	if read != sets.Path("incus", newer) {
		t.Errorf("udev has the rules of %q, want those of %q", read, sets.Path("incus", newer))
	}
}

// TestAdoptionIsCut cuts each effect, starts the daemon or the machine again, and
// expects one of the two sets whole, with an Incus that runs from what is merged.
func TestAdoptionIsCut(t *testing.T) {
	first, _ := ready(t)
	next := first.update(t)
	first.off(t)
	for _, reboot := range []bool{false, true} {
		for step := 1; ; step++ {
			when := fmt.Sprintf("reboot %t, effect %d was cut", reboot, step)
			w, _ := first.copy(t)
			runs := "" // what Incus runs from
			w.rig.Units.Model("incus.service", func() error { runs = w.sysext.Merged()["incus"]; return nil }, nil)
			must(t, w.rig.Units.Stop(t.Context(), "incus.service"))
			must(t, w.rig.Units.Start(t.Context(), "incus.service"))
			cut := &systest.Cutter{At: step, Power: true}
			broken := w.open(t, cut.Host(w.rig.Host))
			err := broken.apps.Adopt(t.Context(), next)
			must(t, broken.tasks.Close(t.Context()))
			if reboot {
				w.off(t)
				of := w.system(t)
				_, err := sets.Point(w.rig.Host.Files, of.Now) // as the early boot does
				must(t, err)
				w.reboot(t)
			}
			again := w.open(t, w.rig.Host)
			must(t, again.apps.Reconcile(t.Context()))
			must(t, again.tasks.Close(t.Context()))
			got := w.sysext.Merged()["incus"]
			if now := sets.Path("incus", w.system(t).Now["incus"]); got != now || runs != got {
				t.Fatalf("%s (%v): Incus runs from %q, merged is %q, written down %q", when, err, runs, got, now)
			}
			if err == nil && got != sets.Path("incus", newer) {
				t.Fatalf("%s: it was adopted, and merged is %q", when, got)
			}
			if p, err := again.apps.Plan(t.Context()); err != nil || !p.Empty() {
				t.Fatalf("%s: to do: %v\n%s", when, err, p)
			}
			if cut.Over() {
				break
			}
		}
	}
}
