package apps_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/apps"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/sys/systest"
	"github.com/incusos/incusos/internal/task"
)

const newer = "202602020000"

// An office is the area after a start of the daemon, with its desk and tasks.
type office struct {
	*apps.Desk
	apps  *apps.Apps
	tasks *task.Manager
}

// open starts the daemon's part that is about applications on host.
func (w *world) open(t *testing.T, host sys.Host) office {
	t.Helper()
	w.options.Pause = time.Nanosecond
	a := w.start(t, host)
	tasks, err := task.Open(host.Files, nil, a.Kinds()...)
	must(t, err)
	return office{apps.NewDesk(a, tasks, nil), a, tasks}
}

// ready is a machine on which everything was done at its first start, and which
// has an image of the application debug in its seed.
func ready(t *testing.T) (*world, office) {
	t.Helper()
	w := newWorld(t, seeded())
	must(t, w.start(t, w.rig.Host).Reconcile(t.Context()))
	return w, w.later(t)
}

// later is a start of the daemon at which the seed is not read any more, unless
// it is asked for.
func (w *world) later(t *testing.T) office {
	t.Helper()
	w.options.Source = nil
	w.options.Seed = func() (apps.Source, *api.SeedIncus, error) {
		return source{map[string][]byte{"incus": []byte("signed bytes"), "debug": []byte("tools")}}, seeded(), nil
	}
	o := w.open(t, w.rig.Host)
	t.Cleanup(func() { _ = o.tasks.Close(context.Background()) })
	return o
}

// off turns Incus off, as the machine's going down does.
func (w *world) off(t *testing.T) {
	t.Helper()
	for _, unit := range []string{"incus-startup.service", "incus.service", "incus.socket", "lxcfs.service"} {
		must(t, w.rig.Units.Stop(t.Context(), unit))
	}
}

// copy is another machine with the same on its drives, started. Copying is much
// faster than coming to it, which flushes each step to disk.
func (w *world) copy(t *testing.T) (*world, office) {
	t.Helper()
	c := newWorld(t, seeded())
	c.options = w.options
	must(t, os.CopyFS(c.rig.Host.Files.Path("/var"), os.DirFS(w.rig.Host.Files.Path("/var"))))
	must(t, c.sysext.Boot())
	o := c.later(t)
	must(t, o.apps.Reconcile(t.Context()))
	return c, o
}

// idle waits for all tasks, and returns how the newest ended.
func (o office) idle(t *testing.T) api.Task {
	t.Helper()
	list := o.tasks.List()
	for i := range list {
		var err error
		list[i], err = o.tasks.Wait(t.Context(), list[i].ID)
		must(t, err)
	}
	if len(list) == 0 {
		return api.Task{}
	}
	return list[0]
}

// done expects that the newest task did what it was to do.
func (o office) done(t *testing.T) {
	t.Helper()
	if end := o.idle(t); end.Status != api.TaskDone {
		t.Fatalf("task %q ended as %s in phase %q: %s", end.Description, end.Status, end.Phase, end.Error)
	}
}

func (o office) names(t *testing.T) []string {
	t.Helper()
	names, err := o.Names(t.Context())
	must(t, err)
	return names
}

// refuses expects an error of a kind that says something.
func refuses(t *testing.T, err error, kind api.Kind, says string) {
	t.Helper()
	e, ok := errors.AsType[*api.Error](err)
	if !ok || e.Kind != kind || !strings.Contains(err.Error(), says) {
		t.Errorf("got %v, want %s with %q", err, kind, says)
	}
}

func TestAddAndRemove(t *testing.T) {
	w, o := ready(t)
	must(t, o.Add(t.Context(), "debug"))
	o.done(t)
	if got := o.names(t); !slices.Equal(got, []string{"debug", "incus"}) {
		t.Errorf("installed are %q, want debug and incus", got)
	}
	if merged := w.sysext.Merged(); merged["debug"] == "" || merged["incus"] == "" {
		t.Errorf("merged are %v, want both", merged)
	}
	refuses(t, o.Add(t.Context(), "debug"), api.Conflict, "is installed already")
	refuses(t, o.Add(t.Context(), "ceph"), api.NotFound, `no image of application "ceph"; it has those of debug, incus`)
	refuses(t, o.Remove(t.Context(), "ceph"), api.NotFound, "lists what is installed")
	refuses(t, o.Remove(t.Context(), "incus"), api.Invalid, "cannot be removed")
	refuses(t, o.Restart(t.Context(), "debug"), api.Unsupported, "has nothing that runs")

	w.reboot(t) // it stays
	o = w.open(t, w.rig.Host)
	must(t, o.apps.Reconcile(t.Context()))
	if got := o.names(t); !slices.Equal(got, []string{"debug", "incus"}) {
		t.Errorf("after a reboot %q are installed, want debug and incus", got)
	}
	w.options.Users = func(name string) []string { return []string{"the service " + name + "d", "others"} }
	refuses(t, w.later(t).Remove(t.Context(), "debug"), api.Conflict, `"debug" is needed by the service debugd, others; disable that first`)
	must(t, o.Remove(t.Context(), "debug"))
	if got := o.names(t); !slices.Equal(got, []string{"incus"}) || w.sysext.Merged()["debug"] != "" {
		t.Errorf("installed are %q, merged %v; want incus alone", got, w.sysext.Merged())
	}
	if w.rig.Host.Files.Exists("/var/lib/incus-os-extensions/" + version + "/debug.raw") {
		t.Error("the image of what was removed is still there")
	}
	must(t, o.apps.Reconcile(t.Context()))
	w.check(t, "at the end")
}

func TestImageThatIsNotAccepted(t *testing.T) {
	w, o := ready(t)
	w.sysext.Refuse("debug")
	must(t, o.Add(t.Context(), "debug"))
	end := o.idle(t)
	if end.Status != api.TaskFailed || !strings.Contains(end.Error, "was not accepted") {
		t.Errorf("the task ended as %+v, want it to say why", end)
	}
	if got := o.names(t); !slices.Equal(got, []string{"incus"}) {
		t.Errorf("installed are %q, want incus alone", got)
	}
	if w.rig.Host.Files.Exists("/var/lib/incus-os-extensions/" + version + "/debug.raw") {
		t.Error("the image that is no use was kept")
	}
	must(t, o.apps.Reconcile(t.Context()))
	w.check(t, "after that")
}

// TestPowerIsCutWhileAdding cuts the power at each effect of adding and removing,
// starts again and expects that what was begun is finished.
func TestPowerIsCutWhileAdding(t *testing.T) {
	for _, remove := range []bool{false, true} {
		first, o := ready(t)
		if remove {
			must(t, o.Add(t.Context(), "debug"))
			o.done(t)
		}
		first.off(t)
		for step := 1; ; step++ {
			when := fmt.Sprintf("remove %t, effect %d was cut", remove, step)
			w, o := first.copy(t)
			cut := &systest.Cutter{At: step, Power: true}
			broken := w.open(t, cut.Host(w.rig.Host))
			var asked error
			if remove {
				asked = broken.Remove(t.Context(), "debug")
			} else {
				asked = broken.Add(t.Context(), "debug")
			}
			begun := len(broken.tasks.List()) > len(o.tasks.List())
			broken.idle(t)
			must(t, broken.tasks.Close(t.Context()))
			w.reboot(t)

			again := w.open(t, w.rig.Host)
			again.idle(t)
			must(t, again.apps.Reconcile(t.Context()))
			if got, want := slices.Contains(again.names(t), "debug"), begun != remove; got != want {
				t.Fatalf("%s (%v): installed is %t, want %t", when, asked, got, want)
			}
			if p, err := again.apps.Plan(t.Context()); err != nil || !p.Empty() {
				t.Fatalf("%s: to do: %v\n%s", when, err, p)
			}
			w.check(t, when)
			must(t, again.tasks.Close(t.Context()))
			if cut.Over() {
				break
			}
		}
	}
}

func TestSwitch(t *testing.T) {
	w, o := ready(t)
	refuses(t, o.Switch(t.Context(), "incus", ""), api.Invalid, "has no version before "+version)
	const image = "/var/lib/incus-os-extensions/" + newer + "/incus.raw"
	must(t, w.rig.Host.Files.WriteFile(image, []byte("newer"), 0o644))
	for v, says := range map[string]string{"202001010000": "is not stored; want one of " + version + ", " + newer, version: "is what runs already"} {
		if err := o.Switch(t.Context(), "incus", v); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("Switch to %s: %v, want %q", v, err, says)
		}
	}
	must(t, o.Switch(t.Context(), "incus", newer))
	o.done(t)
	if got := w.sysext.Merged()["incus"]; got != image {
		t.Errorf("merged is %q, want %q", got, image)
	}
	w.reboot(t)
	o = w.open(t, w.rig.Host)
	must(t, o.apps.Reconcile(t.Context()))
	if got := w.sysext.Merged()["incus"]; got != image {
		t.Errorf("after a reboot, merged is %q, want %q", got, image)
	}
	must(t, o.Switch(t.Context(), "incus", "")) // the one before
	o.done(t)
	w.check(t, "back on the one before")
}

func TestSwitchToWhatIsNotAccepted(t *testing.T) {
	w, o := ready(t)
	bad := "/var/lib/incus-os-extensions/" + newer + "/incus.raw"
	must(t, w.rig.Host.Files.WriteFile(bad, []byte("damaged"), 0o644))
	w.sysext.Refuse(bad)
	must(t, o.Switch(t.Context(), "incus", newer))
	if end := o.idle(t); end.Status != api.TaskFailed || !strings.Contains(end.Error, "it is back on version "+version) {
		t.Errorf("the task ended as %+v, want it back", end)
	}
	w.check(t, "after that")
}

func TestRestartLeavesTheRest(t *testing.T) {
	w, o := ready(t)
	stopped := map[string]int{}
	for _, unit := range []string{"incus.socket", "incus-startup.service", "lxcfs.service"} {
		w.rig.Units.Model(unit, nil, func() error { stopped[unit]++; return nil })
	}
	changes := w.incus.Changes()
	must(t, o.Restart(t.Context(), "incus"))
	o.done(t)
	w.check(t, "after a restart")
	if len(stopped) > 0 || w.incus.Changes() != changes {
		t.Errorf("stopped %v, changed Incus %d times; want instances left alone", stopped, w.incus.Changes()-changes)
	}
}

func TestConfiguration(t *testing.T) {
	const dropIn = "/etc/systemd/system/lxcfs.service.d/50-incus-os.conf"
	w, o := ready(t)
	want := api.ApplicationConfig{PinCurrentVersions: true, LXCFS: &api.ApplicationLXCFS{CPUShares: true, LoadAverage: true}}
	starts := 0
	w.rig.Units.Model("lxcfs.service", func() error { starts++; return nil }, nil)

	plan, err := o.Plan(t.Context(), "incus", &want)
	must(t, err)
	if text := plan.String(); text != "write "+dropIn+"\nreload systemd\nrestart lxcfs.service\n" {
		t.Errorf("the plan is\n%s", text)
	}
	must(t, w.rig.Host.Files.MkdirAll("/sys/fs/cgroup/lxc.payload.web", 0o755))
	plan, err = o.Plan(t.Context(), "incus", &want)
	must(t, err)
	if text := plan.String(); !strings.Contains(text, "restart lxcfs.service (containers are running") {
		t.Errorf("the plan is\n%s\nwant it to say that containers run", text)
	}
	must(t, o.Try(t.Context(), "incus", &want, 0))
	b, err := w.rig.Host.Files.ReadFile(dropIn)
	if err != nil || !strings.Contains(string(b), "\nExecStart=\nExecStart=/usr/bin/lxcfs --enable-cfs --enable-loadavg /var/lib/lxcfs\n") {
		t.Errorf("the drop-in is %q, %v", b, err)
	}
	if starts != 0 {
		t.Error("lxcfs was restarted although containers use it")
	}
	must(t, w.rig.Host.Files.RemoveAll("/sys/fs/cgroup"))
	must(t, o.apps.Reconcile(t.Context()))
	if starts != 1 {
		t.Errorf("lxcfs was started %d times once no container ran, want once", starts)
	}
	o = w.open(t, w.rig.Host)
	got, err := o.Config("incus")
	must(t, err)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("after a start of the daemon it is %+v, want %+v", got, want)
	}
	w.reboot(t)
	reloads := w.rig.Units.Reloads()
	must(t, w.open(t, w.rig.Host).apps.Reconcile(t.Context()))
	if n := w.rig.Units.Reloads() - reloads; n != 0 || starts != 1 {
		t.Errorf("after a start of the machine, units were read %d times again and lxcfs started %d times more; want neither", n, starts-1)
	}
	o = w.open(t, w.rig.Host)
	must(t, o.Try(t.Context(), "incus", &api.ApplicationConfig{}, 0))
	if w.rig.Host.Files.Exists(dropIn) {
		t.Error("the drop-in is still there")
	}
	must(t, o.Add(t.Context(), "debug"))
	o.done(t)
	if err := o.Try(t.Context(), "debug", &want, 0); err == nil || !strings.HasPrefix(err.Error(), "config.lxcfs: belongs to Incus") {
		t.Errorf("Try of lxcfs for debug: %v", err)
	}
}

// TestConfigurationConverges cuts each effect of a change once, applies again and
// expects it made.
func TestConfigurationConverges(t *testing.T) {
	want := api.ApplicationConfig{LXCFS: &api.ApplicationLXCFS{CPUShares: true}}
	first, _ := ready(t)
	first.off(t)
	for step := 1; ; step++ {
		w, _ := first.copy(t)
		cut := &systest.Cutter{At: step}
		o := w.open(t, cut.Host(w.rig.Host))
		err := o.Try(t.Context(), "incus", &want, 0)
		if over := cut.Over(); over || err == nil {
			must(t, err)
			if over {
				return
			}
		}
		must(t, o.Try(t.Context(), "incus", &want, 0))
		if p, err := o.Plan(t.Context(), "incus", &want); err != nil || !p.Empty() {
			t.Fatalf("after effect %d was cut, to do: %v\n%s", step, err, p)
		}
	}
}

func TestTrialOfAConfigurationOutlivesReconcile(t *testing.T) {
	w, o := ready(t)
	must(t, o.Try(t.Context(), "incus", &api.ApplicationConfig{PinCurrentVersions: true}, time.Hour))
	must(t, o.apps.Reconcile(t.Context()))
	if got, _ := o.Config("incus"); !got.(api.ApplicationConfig).PinCurrentVersions {
		t.Error("what is on trial was undone before its time")
	}
	if got, _ := w.open(t, w.rig.Host).Config("incus"); got.(api.ApplicationConfig).PinCurrentVersions {
		t.Error("what was not confirmed outlived a start of the daemon")
	}
	must(t, o.Confirm(t.Context(), "incus"))
	if got, _ := w.open(t, w.rig.Host).Config("incus"); !got.(api.ApplicationConfig).PinCurrentVersions {
		t.Error("what was confirmed did not outlive a start of the daemon")
	}
}

func TestDocumentOfAnEarlierRelease(t *testing.T) {
	w, _ := ready(t)
	must(t, w.rig.Host.Files.WriteFile("/var/lib/incus-os/applications.json",
		[]byte(`{"schema":1,"config":{"initialized":true,"version":"`+version+`","populated":{"incus":"`+image+`"}}}`), 0o600))
	o := w.open(t, w.rig.Host)
	must(t, o.apps.Reconcile(t.Context()))
	if got := o.names(t); !slices.Equal(got, []string{"incus"}) {
		t.Errorf("installed are %q, want incus", got)
	}
	must(t, o.Add(t.Context(), "debug"))
	o.done(t)
	if got := o.names(t); !slices.Equal(got, []string{"debug", "incus"}) {
		t.Errorf("installed are %q, want debug and incus", got)
	}
}

func TestWhatThisReleaseDoesNotDo(t *testing.T) {
	_, o := ready(t)
	refuses(t, o.Act(t.Context(), "incus", api.ApplicationAction{Action: "dance"}), api.Unsupported, `no action "dance"`)
	_, err := o.Logs("incus", "dance")
	refuses(t, err, api.Unsupported, `want "get-logs"`)
}
