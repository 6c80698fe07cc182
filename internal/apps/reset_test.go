package apps_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/apps"
	"github.com/incusos/incusos/internal/sys/systest"
)

const instance = "/var/lib/incus/storage-pools/local/web"

func TestReset(t *testing.T) {
	w, o := ready(t)
	w.incus.Configure("user.color", "red")
	w.incus.Put("/1.0/networks/mine", map[string]any{"name": "mine"})
	ran := len(w.rig.Programs.Ran())
	must(t, o.Reset(t.Context(), "incus"))
	o.done(t)
	w.check(t, "after a reset")
	if w.incus.Object("/1.0/networks/mine") != nil {
		t.Error("a network outlived the reset")
	}
	if got := w.rig.Programs.Ran()[ran:]; !slices.Contains(got, "zfs destroy -r -f local/incus") {
		t.Errorf("ran %q, want among it the end of the dataset", got)
	}
}

// TestPowerIsCutWhileResetting cuts the power at each effect once the request
// was answered, starts again and expects Incus as new.
func TestPowerIsCutWhileResetting(t *testing.T) {
	first, _ := ready(t)
	first.off(t)
	for step := 1; ; step++ {
		when := fmt.Sprintf("effect %d was cut", step)
		w, _ := first.copy(t)
		w.incus.Configure("user.color", "red")
		cut := &systest.Cutter{At: step, Power: true}
		w.incus.Fault(cut.Fault)
		broken := w.open(t, cut.Host(w.rig.Host))
		asked := broken.Reset(t.Context(), "incus")
		broken.idle(t)
		must(t, broken.tasks.Close(t.Context()))
		w.incus.Fault(nil)
		w.reboot(t)
		w.off(t)
		again := w.open(t, w.rig.Host)
		again.idle(t)
		must(t, again.apps.Reconcile(t.Context()))
		if asked == nil {
			w.check(t, when)
		} else if got := w.incus.Config()["user.color"]; got != "red" {
			t.Fatalf("%s (%v): the color is %v, want it as it was", when, asked, got)
		}
		if w.rig.Host.Files.Exists("/var/lib/incus.gone") {
			t.Errorf("%s: something is left over", when)
		}
		must(t, again.tasks.Close(t.Context()))
		if t.Failed() || cut.Over() {
			return
		}
	}
}

func TestResetNeedsItsSeed(t *testing.T) {
	w, _ := ready(t)
	w.options.Seed = func() (apps.Source, *api.SeedIncus, error) { return nil, nil, errors.New("the drive is gone") }
	o := w.open(t, w.rig.Host)
	must(t, o.Reset(t.Context(), "incus"))
	if end := o.idle(t); end.Status != api.TaskFailed || !strings.Contains(end.Error, "nothing was reset: the drive is gone") {
		t.Errorf("the task ended as %+v", end)
	}
	w.check(t, "after that")
}

// What is mounted in the directory of Incus is data of instances: removing the
// one must not remove the other.
func TestWhatIsMountedIsNotRemoved(t *testing.T) {
	const mounted = "36 35 98:0 / " + instance + " rw,noatime shared:1 - zfs local/incus/web rw\n"
	tests := map[string]bool{"one that can be unmounted": true, "one that is in use": false}
	for name, free := range tests {
		t.Run(name, func(t *testing.T) {
			w, o := ready(t)
			must(t, w.rig.Host.Files.WriteFile("/proc/self/mountinfo", []byte(mounted), 0o444))
			must(t, w.rig.Host.Files.MkdirAll(instance, 0o755))
			w.incus.Configure("user.color", "red")
			if free {
				must(t, w.rig.Host.Mounts.Mount("local/incus/web", instance, "zfs"))
			}
			must(t, o.Reset(t.Context(), "incus"))
			end := o.idle(t)
			if free {
				// The table is a file that does not change when something is
				// unmounted, so that only the first look finds it.
				if len(w.rig.Mounts.Table()) != 0 {
					t.Errorf("still mounted: %q", w.rig.Mounts.Table())
				}
				return
			}
			if end.Status != api.TaskFailed || !strings.Contains(end.Error, instance+" is in use") {
				t.Errorf("the task ended as %+v, want it to name the mount", end)
			}
			if w.incus.Config()["user.color"] != "red" || !w.rig.Host.Files.Exists(instance) {
				t.Error("something was removed")
			}
		})
	}
}

func TestLogs(t *testing.T) {
	w, o := ready(t)
	files := w.rig.Host.Files
	must(t, files.WriteFile("/var/log/incus/web/lxc.log", []byte("hello"), 0o600))
	must(t, files.WriteFile("/run/incus/web/lxc.conf", []byte("conf"), 0o600))
	must(t, files.Symlink("/etc/machine-id", "/var/log/incus/link"))
	must(t, files.WriteFile("/var/log/incus/long.log", append(bytes.Repeat([]byte("x"), 17<<20), "end"...), 0o600))
	write, err := o.Logs("incus", "get-logs")
	must(t, err)
	var b bytes.Buffer
	must(t, write(&b))
	got := entries(t, b.Bytes())
	if got["var/log/incus/web/lxc.log"] != "hello" || got["run/incus/web/lxc.conf"] != "conf" {
		t.Errorf("the archive lacks a log: %d entries", len(got))
	}
	if long := got["var/log/incus/long.log"]; len(long) != 16<<20 || !strings.HasSuffix(long, "end") {
		t.Errorf("of a long log there are %d bytes, want its end", len(long))
	}
	if _, ok := got["var/log/incus/link"]; ok {
		t.Error("a link was packed")
	}
}
