package daemon_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/incusos/incusos/client"
	"github.com/incusos/incusos/internal/console"
	"github.com/incusos/incusos/internal/daemon"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/sys/systest"
)

const readyLine = "incus-os: IncusOS 202601010000 is ready: "

func TestBoot(t *testing.T) {
	rig := machine(t)
	if err := rig.Host.Files.WriteFile("/run/incus-os/early.json", []byte(`{"mode":"run"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	m := start(t, rig, func(*daemon.Options) {})
	m.waitFor(readyLine + "https://192.0.2.10:8443\r\n")
	server, err := m.api.Server(t.Context())
	if err != nil || !server.Environment.SystemIsReady || server.Environment.Hostname == "" {
		t.Errorf("environment is %+v, %v; want a ready one", server.Environment, err)
	}
	if fi, err := os.Stat(m.socket); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v; want mode 0600", fi.Mode(), err)
	}
	if fi, err := os.Stat(filepath.Dir(m.socket)); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("directory of the socket: %v, %v; want mode 0700", fi.Mode(), err)
	}
	m.stop(nil)
}

// incusd asks the API while it starts, which is when areas are brought up.
func TestAPIAnswersWhileAreasAreBroughtUp(t *testing.T) {
	slow := area{"slow", make(chan struct{})}
	m := start(t, machine(t), func(o *daemon.Options) { o.Areas = []daemon.Area{slow} })
	m.waitFor("incus-os: starting: slow")
	server, err := m.api.Server(t.Context())
	if err != nil || server.Environment.SystemIsReady {
		t.Errorf("environment is %+v, %v; want one not ready", server.Environment, err)
	}
	if _, err := m.api.Service("iscsi").Get(t.Context()); err != nil {
		t.Error(err)
	}
	close(slow.release)
	m.waitFor(readyLine)
	m.stop(nil)
}

func TestConsoleFollowsAddressesAndIncus(t *testing.T) {
	rig := machine(t)
	m := start(t, rig, func(*daemon.Options) {})
	m.waitFor(readyLine + "https://192.0.2.10:8443\r\n")
	if err := rig.Units.Stop(t.Context(), "incus.service"); err != nil {
		t.Fatal(err)
	}
	rig.Links.Set(sys.Link{Name: "enp1s0", Physical: true, Addresses: []string{"192.0.2.11/24"}})
	m.waitFor(readyLine + "192.0.2.11 (Incus is not running)")
	if err := rig.Units.Start(t.Context(), "incus.service"); err != nil {
		t.Fatal(err)
	}
	rig.Links.Set(
		sys.Link{Name: "enp1s0", Physical: true, Addresses: []string{"198.51.100.7/24", "2001:db8::7/64"}},
		sys.Link{Name: "incusbr0", Addresses: []string{"10.0.0.1/24"}})
	m.waitFor(readyLine + "https://198.51.100.7:8443, https://[2001:db8::7]:8443\r\n")
	m.stop(nil)
}

func TestDamagedDocumentDegradesItsAreaOnly(t *testing.T) {
	rig := machine(t)
	const content = "{\"schema\": 1,\n oops"
	if err := rig.Host.Files.WriteFile("/var/lib/incus-os/storage.json", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	m := start(t, rig, func(*daemon.Options) {})
	const want = "/var/lib/incus-os/storage.json: line 2, column 2: invalid character 'o' looking for beginning of object key string"
	m.waitFor("incus-os: IncusOS 202601010000 is degraded: storage: " + want)
	_, err := m.api.Storage().Get(t.Context())
	if e, ok := errors.AsType[*client.Error](err); !ok || e.Status != 500 || !strings.Contains(e.Message, want) {
		t.Errorf("GET storage: %v, want 500 with %q", err, want)
	}
	if _, err := m.api.Network().Get(t.Context()); err != nil {
		t.Error(err)
	}
	if b, err := rig.Host.Files.ReadFile("/var/lib/incus-os/storage.json"); err != nil || string(b) != content {
		t.Errorf("the damaged document is now %q, %v", b, err)
	}
	m.stop(nil)
}

func TestEarlyBoot(t *testing.T) {
	tests := map[string]struct {
		early   string
		install func(context.Context, *console.Console) error
		line    string // on the console
		err     string // from Run; "" for none
	}{
		"a machine that runs": {`{"mode":"run","warnings":["unlocked by a recovery key"]}`, nil,
			"warning: unlocked by a recovery key", ""},
		"an install": {`{"mode":"install"}`, func(_ context.Context, c *console.Console) error { c.Say("writing"); return nil },
			"writing", ""},
		"an install that cannot be": {`{"mode":"install"}`, func(context.Context, *console.Console) error { return errors.New("there is no drive") },
			"cannot install: there is no drive", "there is no drive"},
		"an install without installer": {`{"mode":"install"}`, nil, "cannot install: this build has no installer", "no installer"},
		"an unknown mode":              {`{"mode":"dance"}`, nil, `cannot start: reading /run/incus-os/early.json: mode "dance"; want "run" or "install"`, "dance"},
		"damage":                       {`{`, nil, "cannot start: reading /run/incus-os/early.json: unexpected end", "early.json"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			rig := machine(t)
			if err := rig.Host.Files.WriteFile("/run/incus-os/early.json", []byte(tt.early), 0o600); err != nil {
				t.Fatal(err)
			}
			m := start(t, rig, func(o *daemon.Options) { o.Install = tt.install })
			m.waitFor("incus-os: " + tt.line)
			err := m.end()
			if (tt.err == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("Run() = %v, want %q", err, tt.err)
			}
		})
	}
}

func TestSocketInUseIsNotTakenOver(t *testing.T) {
	rig := machine(t)
	first := start(t, rig, func(*daemon.Options) {})
	first.waitFor(readyLine)
	second := start(t, rig, func(*daemon.Options) {})
	if err := second.wait(); err == nil || !strings.Contains(err.Error(), "is in use; is another incus-osd running?") {
		t.Errorf("a second daemon: %v", err)
	}
	first.stop(nil)
}

func TestSocketOfACrashIsTakenOver(t *testing.T) {
	rig := machine(t)
	if err := rig.Host.Files.MkdirAll("/run/incus-os", 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: rig.Host.Files.Path("/run/incus-os/unix.socket")})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	m := start(t, rig, func(*daemon.Options) {})
	m.waitFor(readyLine)
	m.stop(nil)
}

// machine returns a sensible machine with the programs and the service that
// areas need, and an image of Incus.
func machine(t *testing.T) *systest.Rig {
	t.Helper()
	rig := systest.New(t, systest.Sensible())
	systest.NewZFS(rig)
	systest.NewSysext(rig)
	t.Cleanup(systest.NewIncus(rig).Close)
	if err := rig.Host.Files.WriteFile("/var/lib/incus-os-extensions/202601010000/incus.raw", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return rig
}

// A running is a daemon on a pretend machine.
type running struct {
	t      *testing.T
	socket string
	api    *client.Client
	out    *output
	cancel context.CancelFunc
	ended  chan error
}

func start(t *testing.T, rig *systest.Rig, adjust func(*daemon.Options)) *running {
	t.Helper()
	out := &output{}
	o := daemon.Wire(rig.Host, console.New(rig.Host.Files, out), func() (daemon.First, error) { return daemon.First{}, nil })
	adjust(&o)
	ctx, cancel := context.WithCancel(t.Context())
	m := &running{t: t, out: out, cancel: cancel, ended: make(chan error, 1)}
	m.socket = rig.Host.Files.Path("/run/incus-os/unix.socket")
	m.api = client.New(m.socket)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		m.ended <- daemon.New(o).Run(ctx)
	}()
	t.Cleanup(func() { // before the directory of the machine goes
		cancel()
		select {
		case <-gone:
		case <-time.After(20 * time.Second):
			t.Error("the daemon does not end")
		}
	})
	return m
}

// waitFor waits until the console has shown text.
func (m *running) waitFor(text string) {
	m.t.Helper()
	deadline := time.After(20 * time.Second)
	for !strings.Contains(m.out.String(), text) {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-deadline:
			m.t.Fatalf("the console never showed %q but:\n%s", text, m.out)
		}
	}
}

func (m *running) wait() error {
	m.t.Helper()
	select {
	case err := <-m.ended:
		return err
	case <-time.After(20 * time.Second):
		m.t.Fatal("the daemon does not end")
		return nil
	}
}

func (m *running) end() error {
	m.t.Helper()
	m.cancel()
	return m.wait()
}

func (m *running) stop(want error) {
	m.t.Helper()
	if err := m.end(); !errors.Is(err, want) {
		m.t.Errorf("Run() = %v, want %v", err, want)
	}
}

// area is one that is brought up when it is released.
type area struct {
	name    string
	release chan struct{}
}

func (a area) Name() string { return a.name }

func (a area) Reconcile(ctx context.Context) error {
	select {
	case <-a.release:
	case <-ctx.Done():
	}
	return ctx.Err()
}

// output is a buffer for several goroutines.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}
