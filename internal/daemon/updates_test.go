package daemon

import (
	"bytes"
	"context"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/apps"
	"github.com/incusos/incusos/internal/publish"
	"github.com/incusos/incusos/internal/publish/publishtest"
	"github.com/incusos/incusos/internal/repo"
	"github.com/incusos/incusos/internal/sets"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/sys/systest"
	"github.com/incusos/incusos/internal/task"
	"github.com/incusos/incusos/internal/update"
	"github.com/incusos/incusos/internal/verity"
)

// Versions that the tests go from and to.
const older, newer = "202601010000", "202602010000"

const slotTable = `label: gpt
size=32MiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name="esp", uuid=AAAAAAAA-0000-0000-0000-000000000001
size=1MiB, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name="seed-data"
size=16KiB, type=E7BB33FB-06CF-4E81-8273-E543B413E2E2, name="IncusOS_202601010000_verity_sig"
size=1MiB, type=77FF5F63-E7B6-4633-ACF4-1565B864C0E6, name="IncusOS_202601010000_verity"
size=4MiB, type=8484680C-9521-48C6-9C11-B0720656F69E, name="IncusOS_202601010000"
size=16KiB, type=E7BB33FB-06CF-4E81-8273-E543B413E2E2, name="_empty"
size=1MiB, type=77FF5F63-E7B6-4633-ACF4-1565B864C0E6, name="_empty"
size=4MiB, type=8484680C-9521-48C6-9C11-B0720656F69E, name="_empty"
`

// A site is a repository with the newer version. While it is slow, images trickle.
type site struct {
	root    []byte
	address string
	slow    atomic.Bool
}

func newSite(t *testing.T) *site {
	t.Helper()
	dir, with := publishtest.New(t)
	built := t.TempDir()
	buildInto(t, built)
	build, err := publish.FindBuild(built)
	must(t, err)
	must(t, publish.Change(t.Context(), dir, with, func(a *repo.Author) error {
		return publish.Publish(t.Context(), dir, a, build, publish.Terms{Channel: "stable", Percent: 100, Severity: "none"}, time.Now())
	}))
	contents, err := publish.Show(t.Context(), dir)
	must(t, err)
	files, err := os.OpenRoot(dir)
	must(t, err)
	s := &site{root: contents.Root}
	serve := publish.Handler(files, "")
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.slow.Load() && r.Header.Get("Range") != "" && strings.Contains(r.URL.Path, "usr.raw") {
			<-r.Context().Done() // until somebody gives up
			return
		}
		serve.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { web.Close(); files.Close() }) //nolint:errcheck // a test
	s.address = web.URL
	return s
}

// buildInto writes what a build of the newer version leaves.
func buildInto(t *testing.T, dir string) {
	t.Helper()
	usr := make([]byte, 300*verity.BlockSize)
	mathrand.NewChaCha8([32]byte{7}).Read(usr) //nolint:errcheck // never fails
	tree, err := verity.Build(t.Context(), verity.Superblock{Blocks: 300, Salt: []byte("salt")}, bytes.NewReader(usr))
	must(t, err)
	base := "IncusOS_" + newer
	for name, content := range map[string][]byte{
		"version":                             []byte(newer + "\n"),
		base + ".usr-x86-64.0.raw":            usr,
		base + ".usr-x86-64-verity.0.raw":     tree.Bytes(),
		base + ".usr-x86-64-verity-sig.0.raw": fmt.Appendf(nil, `{"rootHash":"%v","signature":"YQ=="}`, tree.Root),
		base + ".efi":                         fmt.Appendf(nil, "kernel usrhash=%v quiet", tree.Root),
		"incus.raw":                           []byte("an image of Incus"),
	} {
		must(t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
	}
}

// slotted is a machine with two slots, of which the first has the older version, and
// what the daemon has about updates of it. It runs the version that running holds.
func slotted(t *testing.T, s *site) (u *updates, running *atomic.Value, restarts *atomic.Int64) {
	t.Helper()
	rig := systest.New(t, systest.Sensible())
	systest.AddDiskTools(rig)
	systest.NewJournal(rig)
	c := sys.Command("sfdisk", "/dev/vda")
	c.Stdin = strings.NewReader(slotTable)
	_, err := rig.Host.Exec.Run(t.Context(), c)
	must(t, err)
	value := []byte{6, 0, 0, 0}
	for _, c := range "aaaaaaaa-0000-0000-0000-000000000001\x00" {
		value = append(value, byte(c), 0)
	}
	must(t, rig.Host.Files.WriteFile("/sys/firmware/efi/efivars/LoaderDevicePartUUID-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f", value, 0o644))
	_, err = rig.Host.Exec.Run(t.Context(), sys.Command("mkfs.vfat", "/dev/vda1"))
	must(t, err)
	must(t, os.Truncate(rig.Host.Files.Path("/dev/vda5"), 4<<20))
	esp := update.ESP{Host: rig.Host, Device: "/dev/vda1"}
	must(t, esp.Add(older, 1, []byte("the old kernel")))
	must(t, esp.Bless(update.Entry{Version: older}))

	config, provider := load[api.SystemUpdateConfig](rig.Host.Files, "update"), load[api.SystemProviderConfig](rig.Host.Files, "provider")
	must(t, provider.saved.Set(api.SystemProviderConfig{Config: api.ProviderSettings{ServerURL: s.address, Root: string(s.root)}}))
	appsDoc, belongs := load[apps.Saved](rig.Host.Files, "applications"), sets.Open(rig.Host.Files)
	must(t, appsDoc.saved.Set(apps.Saved{Installed: []string{"incus"}}))
	u = newUpdates(rig.Host, config, provider, installed{appsDoc, apps.New(rig.Host, appsDoc.saved, apps.Options{Sets: belongs}), belongs})
	running, restarts = new(atomic.Value), new(atomic.Int64)
	running.Store(older)
	u.machine = func(context.Context) (api.Environment, error) {
		version, _ := running.Load().(string)
		return api.Environment{OSVersion: version, MachineID: "a machine"}, nil
	}
	u.bind = func(context.Context, io.ReaderAt, int64) error { return nil }
	u.unlocks = func(io.ReaderAt, int64) error { return nil }
	u.agent.Restart = func(context.Context) error { restarts.Add(1); return nil }
	u.agent.Healthy = func(context.Context) error { return nil }
	u.tasks, err = task.Open(rig.Host.Files, nil, u.kinds()...)
	must(t, err)
	t.Cleanup(func() { must(t, u.tasks.Close(context.Background())) })
	return u, running, restarts
}

// ended waits for the newest task, and returns it.
func ended(t *testing.T, u *updates) api.Task {
	t.Helper()
	all := u.tasks.List()
	if len(all) == 0 {
		t.Fatal("there is no task")
	}
	end, err := u.tasks.Wait(t.Context(), all[0].ID)
	must(t, err)
	return end
}

// From a look by itself to the version after, a repair of that, and back.
func TestUpdateAndBack(t *testing.T) {
	u, running, restarts := slotted(t, newSite(t))
	must(t, u.agent.Look(t.Context()))
	if end := ended(t, u); end.Kind != stageTask || end.Status != api.TaskDone || end.Description != "update to version "+newer || end.Phase != "fetching the kernel" {
		t.Errorf("the task is %+v", end)
	}
	state, err := u.state(t.Context())
	if err != nil || state.Phase != "staged" || state.Version != newer || !state.NeedsReboot || state.Progress != (api.UpdateProgress{}) {
		t.Errorf("it is %+v (%v)", state, err)
	}
	running.Store(newer)
	must(t, u.agent.Settle(t.Context()))

	must(t, u.repair())
	if end := ended(t, u); end.Status != api.TaskDone {
		t.Errorf("the repair is %+v", end)
	}
	must(t, os.WriteFile(u.host.Files.Path("/dev/vda8"), make([]byte, 4<<20), 0o600))
	must(t, u.repair())
	if end := ended(t, u); end.Status != api.TaskDone || u.agent.Status().Text != "Mended of version "+newer+": the file system" {
		t.Errorf("the repair is %+v, and it says %q", end, u.agent.Status().Text)
	}

	act := u.actions(nil)
	must(t, act["/1.0/system/update/:rollback"](t.Context(), []byte(`{"reboot": true}`)))
	if restarts.Load() != 1 {
		t.Errorf("the machine was restarted %d times", restarts.Load())
	}
	running.Store(older)
	must(t, u.agent.Settle(t.Context()))
	state, err = u.state(t.Context())
	if err != nil || len(state.Failed) != 1 || state.Failed[0].Version != newer || state.Failed[0].Reason != update.Asked {
		t.Errorf("it is %+v (%v)", state, err)
	}
	if got := u.warnings(); len(got) != 0 {
		t.Errorf("it warns of what somebody asked for: %q", got)
	}
	must(t, act["/1.0/system/update/:forgive"](t.Context(), nil))
	must(t, u.check(t.Context(), api.UpdateCheck{}))
	must(t, u.check(t.Context(), api.UpdateCheck{})) // whether or not the first has ended
	if end := ended(t, u); end.Kind != checkTask || end.Status != api.TaskDone || !u.agent.Status().NeedsReboot {
		t.Errorf("after it was forgiven: %+v", end)
	}
}

// A machine that restarts by itself does so though the task that staged the version has
// ended by then, and not while updates are paused.
func TestRestartsByItself(t *testing.T) {
	u, _, restarts := slotted(t, newSite(t))
	u.member.Power = func(ctx context.Context) error {
		time.Sleep(100 * time.Millisecond) // as Incus takes to move instances
		if ctx.Err() == nil {
			restarts.Add(1)
		}
		return ctx.Err()
	}
	must(t, u.config.saved.Set(api.SystemUpdateConfig{AutoReboot: true}))
	must(t, u.agent.Look(t.Context()))
	if end := ended(t, u); end.Status != api.TaskDone {
		t.Errorf("the task is %+v", end)
	}
	for end := time.Now().Add(20 * time.Second); restarts.Load() == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it does not restart; it says %q", u.agent.Status().Text)
		}
	}
	must(t, u.config.saved.Set(api.SystemUpdateConfig{AutoReboot: true, Paused: true}))
	if why := u.hold(false); why != update.ErrPaused.Error() {
		t.Errorf("paused, it is held by %q", why)
	}
}

// Who cancels the task, or pauses updates, stops what is fetched at once.
func TestStagingIsStopped(t *testing.T) {
	tests := map[string]struct {
		stop   func(*updates, api.Task) error
		status string
	}{
		"cancelled": {func(u *updates, running api.Task) error { return u.tasks.Cancel(running.ID) }, "it was cancelled"},
		"paused":    {func(u *updates, _ api.Task) error { return u.config.saved.Set(api.SystemUpdateConfig{Paused: true}) }, update.ErrPaused.Error()},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.slow.Store(true)
			u, _, _ := slotted(t, s)
			looked := make(chan error, 1)
			go func() { looked <- u.agent.Look(t.Context()) }()
			for end := time.Now().Add(20 * time.Second); len(u.tasks.List()) == 0; time.Sleep(5 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("no task begins")
				}
			}
			must(t, tt.stop(u, u.tasks.List()[0]))
			if end := ended(t, u); end.Status != api.TaskCancelled {
				t.Errorf("the task is %+v", end)
			}
			if err := <-looked; err == nil || !strings.Contains(err.Error(), tt.status) {
				t.Errorf("the look ends with %v; want %q", err, tt.status)
			}
			s.slow.Store(false)
			must(t, u.config.saved.Set(api.SystemUpdateConfig{}))
			if err := u.agent.Look(t.Context()); err != nil || !u.agent.Status().NeedsReboot {
				t.Errorf("the next look: %+v (%v)", u.agent.Status(), err)
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
