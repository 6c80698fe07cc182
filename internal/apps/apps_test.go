package apps_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/apps"
	"github.com/incusos/incusos/internal/incus"
	"github.com/incusos/incusos/internal/sets"
	"github.com/incusos/incusos/internal/store"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/sys/systest"
)

const (
	version  = "202601010000"
	image    = "/var/lib/incus-os-extensions/" + version + "/incus.raw"
	link     = "/var/lib/extensions/incus.raw"
	poolSign = "/proc/spl/kstat/zfs/local"
)

// pemText is no certificate, which nobody here looks into. Its object in Incus
// is named by the SHA-256 of the three bytes.
const (
	pemText = "-----BEGIN CERTIFICATE-----\nAAEC\n-----END CERTIFICATE-----\n"
	admin   = "/1.0/certificates/ae4b3280e56e2faf83f414a6e3dabe9d5fbe18976544c05fed121accb85b53fc"
)

type source struct{ images map[string][]byte }

func (s source) Applications() []apps.Image {
	var list []apps.Image
	for name, b := range s.images {
		list = append(list, apps.Image{Name: name, Version: version, Size: uint64(len(b))})
	}
	return list
}

func (s source) OpenApplication(name string) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(s.images[name])), nil
}

// A world is a pretend machine with an application, a pool and Incus.
type world struct {
	rig     *systest.Rig
	sysext  *systest.Sysext
	incus   *systest.Incus
	options apps.Options
}

func newWorld(t *testing.T, seed *api.SeedIncus) *world {
	t.Helper()
	rig := systest.New(t, systest.Sensible())
	must(t, rig.Host.Files.MkdirAll(poolSign, 0o755))
	incus := systest.NewIncus(rig)
	t.Cleanup(incus.Close)
	return &world{
		rig: rig, sysext: systest.NewSysext(rig), incus: incus,
		options: apps.Options{Source: source{map[string][]byte{"incus": []byte("signed bytes")}}, Incus: seed},
	}
}

// start is the area as after a start of the daemon.
func (w *world) start(t *testing.T, host sys.Host) *apps.Apps {
	t.Helper()
	doc, err := store.Open[apps.Saved](host.Files, "applications")
	must(t, err)
	return apps.New(host, doc, w.options)
}

func (w *world) reboot(t *testing.T) {
	t.Helper()
	must(t, w.rig.Host.Files.RemoveAll("/run/incus-os"))
	must(t, w.sysext.Boot())
}

func seeded() *api.SeedIncus {
	return &api.SeedIncus{ApplyDefaults: true, Preseed: map[string]any{
		"config":       map[string]any{"images.auto_update_interval": float64(15)},
		"certificates": []any{map[string]any{"name": "admin", "certificate": pemText}},
	}}
}

// check expects a machine on which everything is done.
func (w *world) check(t *testing.T, when string) {
	t.Helper()
	if got := w.sysext.Merged()["incus"]; got != image {
		t.Errorf("%s: merged %q, want %q", when, got, image)
	}
	if b, err := w.rig.Host.Files.ReadFile(image); err != nil || string(b) != "signed bytes" {
		t.Errorf("%s: image %q, %v", when, b, err)
	}
	for _, unit := range []string{"lxcfs.service", "incus.socket", "incus.service", "incus-startup.service"} {
		if s, _ := w.rig.Units.State(t.Context(), unit); s != "active" {
			t.Errorf("%s: %s is %s, want active", when, unit, s)
		}
	}
	if want := map[string]any{"core.https_address": ":8443", "images.auto_update_interval": "15"}; !reflect.DeepEqual(w.incus.Config(), want) {
		t.Errorf("%s: config %v, want %v", when, w.incus.Config(), want)
	}
	for path, want := range map[string]map[string]any{
		"/1.0/storage-pools/local": {"driver": "zfs", "config": map[string]any{"source": "local/incus"}},
		"/1.0/networks/incusbr0":   {"type": "bridge", "config": map[string]any{"ipv4.address": "auto", "ipv6.address": "auto"}},
		"/1.0/profiles/default": {"devices": map[string]any{
			"root": map[string]any{"type": "disk", "path": "/", "pool": "local"},
			"eth0": map[string]any{"type": "nic", "name": "eth0", "network": "incusbr0"},
		}},
		admin: {"name": "admin", "type": "client", "certificate": "AAEC"},
	} {
		for field, value := range want {
			if got := w.incus.Object(path)[field]; !reflect.DeepEqual(got, value) {
				t.Errorf("%s: %s of %s is %v, want %v", when, field, path, got, value)
			}
		}
	}
}

func TestFirstBoot(t *testing.T) {
	w := newWorld(t, seeded())
	var progress []string
	w.options.Progress = func(name string, done, total uint64) {
		progress = append(progress, fmt.Sprintf("%s %d/%d", name, done, total))
	}
	a := w.start(t, w.rig.Host)
	must(t, a.Reconcile(t.Context()))
	w.check(t, "after the first boot")
	if len(progress) == 0 || progress[0] != "incus 12/12" {
		t.Errorf("progress %q, want it to begin with all 12 bytes", progress)
	}
	if got := a.Warnings(); len(got) != 0 {
		t.Errorf("warnings %q, want none", got)
	}
	if want := "systemd-sysext refresh --image-policy=root=signed+absent:usr=signed+absent"; !slices.Contains(w.rig.Programs.Ran(), want) {
		t.Errorf("ran %q, want among it %q: unsigned images must not be merged", w.rig.Programs.Ran(), want)
	}
	docs, err := a.Documents()
	must(t, err)
	want := map[string]api.Application{"incus": {State: api.ApplicationState{
		IsPrimary: true, Initialized: true, FriendlyVersion: "7.0.2 [" + version + "]", Version: version, AvailableVersions: []string{version},
	}, Config: api.ApplicationConfig{LXCFS: &api.ApplicationLXCFS{}}}}
	if !reflect.DeepEqual(docs, want) {
		t.Errorf("documents:\n%+v\nwant:\n%+v", docs, want)
	}
}

func TestLaterReconcilesChangeNothing(t *testing.T) {
	w := newWorld(t, seeded())
	a := w.start(t, w.rig.Host)
	must(t, a.Reconcile(t.Context()))
	changes := w.incus.Changes()
	w.options.Source = nil // the medium is gone
	for _, reboot := range []bool{false, true} {
		if reboot {
			w.reboot(t)
		}
		ran := len(w.rig.Programs.Ran())
		a = w.start(t, w.rig.Host)
		must(t, a.Reconcile(t.Context()))
		if got := w.rig.Programs.Ran()[ran:]; !slices.Equal(got, []string{"systemd-sysext status --json=short"}) {
			t.Errorf("reboot %t: ran %q, want only a look", reboot, got)
		}
	}
	if w.incus.Changes() != changes {
		t.Errorf("Incus was changed %d times more", w.incus.Changes()-changes)
	}
	w.check(t, "after two more reconciles")
}

// Whatever a link leads to: the set of the running system says which image it is.
func TestSetOfTheRunningSystemDecides(t *testing.T) {
	w := newWorld(t, seeded())
	must(t, w.start(t, w.rig.Host).Reconcile(t.Context()))
	const newer = "/var/lib/incus-os-extensions/202602020000/incus.raw"
	must(t, w.rig.Host.Files.WriteFile(newer, []byte("newer"), 0o644))
	must(t, w.rig.Host.Files.Symlink("../incus-os-extensions/202602020000/incus.raw", link))
	w.reboot(t)
	must(t, w.start(t, w.rig.Host).Reconcile(t.Context()))
	w.check(t, "after a link was led elsewhere")
	// Another version of the system, which an update has staged with its own.
	all := sets.Open(w.rig.Host.Files)
	must(t, all.Stage(version, "202602020000", sets.Set{"incus": "202602020000"}))
	w.runs(t, "202602020000")
	a := w.start(t, w.rig.Host)
	must(t, a.Reconcile(t.Context()))
	if got := w.sysext.Merged()["incus"]; got != newer {
		t.Errorf("the new version has merged %q, want %q", got, newer)
	}
	if p, err := a.Plan(t.Context()); err != nil || !p.Empty() {
		t.Errorf("to do: %v\n%s", err, p)
	}
	// And back.
	w.runs(t, version)
	must(t, w.start(t, w.rig.Host).Reconcile(t.Context()))
	w.check(t, "after a roll-back")
}

// runs is a start of the machine with another version of the system.
func (w *world) runs(t *testing.T, version string) {
	t.Helper()
	must(t, w.rig.Host.Files.WriteFile("/usr/lib/os-release", []byte("IMAGE_VERSION="+version+"\n"), 0o644))
	w.reboot(t)
}

func TestDamagedSets(t *testing.T) {
	w := newWorld(t, seeded())
	must(t, w.start(t, w.rig.Host).Reconcile(t.Context()))
	must(t, w.rig.Host.Files.WriteFile("/var/lib/incus-os/application-sets.json", []byte("{"), 0o600))
	err := w.start(t, w.rig.Host).Reconcile(t.Context())
	if err == nil || !strings.Contains(err.Error(), "which applications belong to which version") {
		t.Errorf("Reconcile() = %v, want it to say that it does not know", err)
	}
	if got := w.sysext.Merged()["incus"]; got != image {
		t.Errorf("merged %q, want %q still", got, image)
	}
}

func TestImageIsChosen(t *testing.T) {
	tests := map[string]struct {
		stored []string
		want   string
	}{
		"that of the running system": {[]string{"202512310000", version, "202602020000"}, version},
		"the newest there is":        {[]string{"202512310000", "202602020000"}, "202602020000"},
		"that of the source":         {nil, version},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, seeded())
			for _, v := range tt.stored {
				must(t, w.rig.Host.Files.WriteFile("/var/lib/incus-os-extensions/"+v+"/incus.raw", nil, 0o644))
			}
			must(t, w.start(t, w.rig.Host).Reconcile(t.Context()))
			if got := w.sysext.Merged()["incus"]; got != "/var/lib/incus-os-extensions/"+tt.want+"/incus.raw" {
				t.Errorf("merged %q, want version %s", got, tt.want)
			}
		})
	}
}

// TestAlsoWantedIfThereIsAnImage: a service of the seed needs an application that the
// medium may not carry. Incus starts all the same.
func TestAlsoWantedIfThereIsAnImage(t *testing.T) {
	for name, images := range map[string]map[string][]byte{
		"on the medium": {"incus": []byte("a"), "storage": []byte("b")},
		"nowhere":       {"incus": []byte("a")},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.options.Source, w.options.Also = source{images}, []string{"storage"}
			must(t, w.start(t, w.rig.Host).Reconcile(t.Context()))
			if got := len(w.sysext.Merged()); got != len(images) {
				t.Errorf("%d images are merged, want %d", got, len(images))
			}
			w.options.Source, w.options.Also = nil, nil // the next boot, which has no seed
			must(t, w.start(t, w.rig.Host).Reconcile(t.Context()))
			if got := len(w.sysext.Merged()); got != len(images) {
				t.Errorf("later %d images are merged, want %d", got, len(images))
			}
		})
	}
}

func TestRefusedImages(t *testing.T) {
	tests := map[string]struct {
		prepare func(*world)
		says    string
	}{
		"there is none":   {func(w *world) { w.options.Source = nil }, `no image of application "incus"`},
		"it is cut short": {func(w *world) { w.options.Source = short{w.options.Source} }, "ends after 12 of 13 bytes"},
		"it is not signed for us": {func(w *world) {
			w.rig.Programs.Model("systemd-sysext", func(context.Context, sys.Cmd) ([]byte, error) {
				return []byte(`[{"hierarchy":"/usr","extensions":"none","since":null}]`), nil
			})
		}, "was not accepted"},
		"a name that leads away": {func(w *world) { w.options.Wanted = []string{"../incus"} }, "is no application name"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, seeded())
			tt.prepare(w)
			err := w.start(t, w.rig.Host).Reconcile(t.Context())
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("Reconcile() = %v, want it to say %q", err, tt.says)
			}
			if s, _ := w.rig.Units.State(t.Context(), "incus.service"); s == "active" {
				t.Error("Incus was started")
			}
		})
	}
}

type short struct{ apps.Source }

func (s short) Applications() []apps.Image {
	list := s.Source.Applications()
	list[0].Size++
	return list
}

// TestConvergence cuts each effect once, sometimes boots again, applies again
// and expects a machine on which everything is done, once.
func TestConvergence(t *testing.T) {
	for _, reboot := range []bool{false, true} {
		for step := 1; ; step++ {
			w := newWorld(t, seeded())
			cut := &systest.Cutter{At: step}
			w.incus.Fault(cut.Fault)
			host := cut.Host(w.rig.Host)
			err := w.start(t, host).Reconcile(t.Context())
			if cut.Over() {
				if err != nil {
					t.Fatal(err)
				}
				break
			}
			if err == nil {
				t.Fatalf("effect %d was cut and nobody noticed", step)
			}
			if reboot {
				w.reboot(t)
			}
			if err := w.start(t, host).Reconcile(t.Context()); err != nil {
				t.Fatalf("reboot %t, after effect %d was cut: %v", reboot, step, err)
			}
			w.check(t, fmt.Sprintf("reboot %t, after effect %d was cut", reboot, step))
			if p, err := w.start(t, host).Plan(t.Context()); err != nil || !p.Empty() {
				t.Fatalf("reboot %t, after effect %d was cut and applied again, to do: %v\n%s", reboot, step, err, p)
			}
			if t.Failed() {
				t.FailNow()
			}
		}
	}
}

func TestWithoutPoolTheRestIsDone(t *testing.T) {
	w := newWorld(t, seeded())
	must(t, w.rig.Host.Files.RemoveAll(poolSign))
	a := w.start(t, w.rig.Host)
	err := a.Reconcile(t.Context())
	if err == nil || !strings.Contains(err.Error(), `the ZFS pool "local" is not imported`) {
		t.Errorf("Reconcile() = %v, want it to name the pool", err)
	}
	if w.incus.Object(admin) == nil {
		t.Error("the certificate was not added: nobody can log in and look")
	}
	must(t, w.rig.Host.Files.MkdirAll(poolSign, 0o755))
	must(t, a.Reconcile(t.Context()))
	w.check(t, "once the pool is there")
}

func TestOperatorsChangesStay(t *testing.T) {
	w := newWorld(t, seeded())
	must(t, w.rig.Host.Files.RemoveAll(poolSign))
	a := w.start(t, w.rig.Host)
	if err := a.Reconcile(t.Context()); err == nil {
		t.Fatal("Reconcile succeeded without a pool")
	}
	w.incus.Configure("core.https_address", "192.0.2.1:443")
	must(t, w.rig.Host.Files.MkdirAll(poolSign, 0o755))
	must(t, a.Reconcile(t.Context()))
	if got := w.incus.Config()["core.https_address"]; got != "192.0.2.1:443" {
		t.Errorf("core.https_address is %v again; want what the operator set", got)
	}
}

func TestNoFreeSubnet(t *testing.T) {
	tests := map[string]struct{ families, ipv4, ipv6 string }{
		"IPv4 alone": {"IPv4", "10.102.39.1/24", "auto"},
		"IPv6 alone": {"IPv6", "auto", "fd"},
		"both":       {"IPv4 IPv6", "10.102.39.1/24", "fd"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, seeded())
			w.incus.NoSubnet(tt.families)
			w.rig.Links.Set(sys.Link{Name: "enp1s0", Physical: true, Addresses: []string{"10.101.37.200/16"}})
			must(t, w.start(t, w.rig.Host).Reconcile(t.Context()))
			config, _ := w.incus.Object("/1.0/networks/incusbr0")["config"].(map[string]any)
			ipv6, _ := config["ipv6.address"].(string)
			if config["ipv4.address"] != tt.ipv4 || !strings.HasPrefix(ipv6, tt.ipv6) {
				t.Errorf("the bridge has %v, want %s and %s", config, tt.ipv4, tt.ipv6)
			}
		})
	}
}

func TestWorkInTheBackgroundIsAwaited(t *testing.T) {
	w := newWorld(t, seeded())
	w.incus.FailWork("the disk is on fire")
	a := w.start(t, w.rig.Host)
	err := a.Reconcile(t.Context())
	if err == nil || !strings.Contains(err.Error(), `storage_pools "local": Incus says: the disk is on fire`) {
		t.Errorf("Reconcile() = %v, want how creating the pool ended", err)
	}
	w.incus.FailWork("")
	must(t, a.Reconcile(t.Context()))
	w.check(t, "once the fire is out")
}

// An Incus that waits for other members of its cluster answers nothing. That is said
// instead of waiting for an answer.
func TestIncusThatWaitsForOthers(t *testing.T) {
	w := newWorld(t, seeded())
	w.incus.WaitFor("node2", "node3")
	a := w.start(t, w.rig.Host)
	began := time.Now()
	err := a.Reconcile(t.Context())
	ahead, ok := errors.AsType[*incus.AheadError](err)
	if !ok || !slices.Equal(ahead.Of, []string{"node2", "node3"}) || time.Since(began) > time.Minute {
		t.Fatalf("after %v Reconcile() = %v, want whom Incus waits for", time.Since(began), err)
	}
	w.incus.WaitFor()
	must(t, a.Reconcile(t.Context()))
	w.check(t, "once all members have a new Incus")
}

func TestNobodyCanLogIn(t *testing.T) {
	w := newWorld(t, nil)
	a := w.start(t, w.rig.Host)
	must(t, a.Reconcile(t.Context()))
	if want := []string{"no client certificate was seeded; nobody can log in remotely"}; !slices.Equal(a.Warnings(), want) {
		t.Errorf("warnings %q, want %q", a.Warnings(), want)
	}
	w.incus.Put("/1.0/certificates/abc", map[string]any{})
	must(t, a.Reconcile(t.Context()))
	if got := a.Warnings(); len(got) != 0 {
		t.Errorf("warnings %q after a certificate was added, want none", got)
	}
}

func TestUnhandledKeyIsRefusedBeforeAnythingIsApplied(t *testing.T) {
	seed := seeded()
	seed.Preseed["cluster"] = map[string]any{}
	w := newWorld(t, seed)
	err := w.start(t, w.rig.Host).Reconcile(t.Context())
	field, _ := errors.AsType[*api.FieldError](err)
	if field == nil || field.Field != "preseed.cluster" {
		t.Errorf("Reconcile() = %v, want it to blame preseed.cluster", err)
	}
	if w.incus.Changes() != 0 {
		t.Errorf("Incus was changed %d times, want never", w.incus.Changes())
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
