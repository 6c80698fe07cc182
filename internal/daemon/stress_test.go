package daemon_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/client"
	"github.com/incusos/incusos/internal/daemon"
	"github.com/incusos/incusos/internal/rest"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/sys/systest"
)

// Each of the two lives of the daemon takes stressTime, and longer on a busy host
// until something has happened, up to longest.
const (
	stressTime = time.Second
	longest    = 15 * time.Second
)

// TestStress has everybody at the daemon at once: clients that read every route,
// clients that change, try and confirm, deadlines that pass, areas that are
// reconciled, addresses that change, an Incus that comes and goes, and in the
// end a shutdown in the middle of it. It is for the race detector, and for what
// must hold afterwards: what is saved was asked for, and survives the restart.
func TestStress(t *testing.T) {
	rig := machine(t)
	for _, life := range []string{"first", "second"} {
		t.Run(life+" start", func(t *testing.T) { newStress(t, rig).live() })
	}
}

// A stress is one life of the daemon.
type stress struct {
	t    *testing.T
	rig  *systest.Rig
	m    *running
	wake chan struct{}

	stopping atomic.Bool // requests may be cut off now
	reads    atomic.Int64
	writes   atomic.Int64
}

func newStress(t *testing.T, rig *systest.Rig) *stress {
	s := &stress{t: t, rig: rig}
	s.m = start(t, rig, func(o *daemon.Options) { s.wake = o.Wake })
	s.m.waitFor(readyLine)
	return s
}

func (s *stress) live() {
	before, err := s.m.api.Kernel().Get(s.t.Context())
	if err != nil || !asked(before.Config) {
		s.t.Errorf("the machine starts with %+v, %v", before.Config, err)
	}
	began := time.Now()
	goOn := func() bool {
		took := time.Since(began)
		return took < stressTime || took < longest && !s.enough()
	}
	var wg sync.WaitGroup
	for _, work := range []func(context.Context){s.read, s.read, s.change, s.change, s.confirm, s.plan, s.archive, s.disturb} {
		wg.Go(func() {
			for goOn() {
				work(s.t.Context())
			}
		})
	}
	wg.Wait()
	s.settle()

	// The end of it, with requests in flight.
	for _, work := range []func(context.Context){s.read, s.change, s.change} {
		wg.Go(func() {
			for !s.stopping.Load() {
				work(s.t.Context())
			}
		})
	}
	time.Sleep(20 * time.Millisecond)
	s.stopping.Store(true)
	s.m.stop(nil)
	wg.Wait()
	if !s.enough() {
		s.t.Errorf("%d requests were answered and %d changes made; that is no stress", s.reads.Load(), s.writes.Load())
	}
}

func (s *stress) enough() bool { return s.reads.Load() >= 50 && s.writes.Load() >= 5 }

// settle looks at what must hold once nobody changes anything.
func (s *stress) settle() {
	trial := func() *api.Trial {
		tr, err := s.m.api.Trial(s.t.Context())
		if err != nil {
			s.t.Fatal(err)
		}
		return tr
	}
	for deadline := time.Now().Add(10 * time.Second); trial() != nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatal("a change stays on trial after its deadline")
		}
	}
	s.named()
	kernel, err := s.m.api.Kernel().Get(s.t.Context())
	if err != nil || !asked(kernel.Config) {
		s.t.Errorf("the machine ends up with %+v, %v", kernel.Config, err)
	}
	var saved struct{ Config api.SystemKernelConfig }
	b, err := s.rig.Host.Files.ReadFile("/var/lib/incus-os/kernel.json")
	if err == nil {
		err = json.Unmarshal(b, &saved)
	}
	if err != nil || backlog(saved.Config) != backlog(kernel.Config) {
		s.t.Errorf("saved is %s, %v; in force is %+v", b, err, kernel.Config)
	}
}

// named waits until the machine is called what the network's document says. The
// loop may have begun with another one, and is told of each change.
func (s *stress) named() {
	network, err := s.m.api.Network().Get(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	want := network.Config.DNS.Hostname
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		name, err := s.rig.Host.Files.ReadFile("/etc/hostname")
		if err == nil && (want == "" || strings.TrimSpace(string(name)) == want) {
			return
		}
		if time.Now().After(deadline) {
			s.t.Errorf("the machine is called %q, %v; want %q", name, err, want)
			return
		}
	}
}

// wanted is what the clients below ask for.
func wanted(n int) api.SystemKernelConfig {
	return api.SystemKernelConfig{Network: &api.KernelNetwork{NetdevMaxBacklog: 1000 + n}}
}

// asked reports whether somebody asked for a configuration, or nobody for any.
func asked(c api.SystemKernelConfig) bool {
	n := backlog(c)
	return n == 0 || n >= 1000 && n < 1010
}

func backlog(c api.SystemKernelConfig) int {
	if c.Network == nil {
		return 0
	}
	return c.Network.NetdevMaxBacklog
}

// read asks every route that only reads.
func (s *stress) read(ctx context.Context) {
	for _, r := range rest.Routes(rest.Machine{}) {
		if r.Method != http.MethodGet || r.Stream != "" || r.Path == "/1.0/system/security/attestation" { // wants a nonce
			continue
		}
		name := "incus"
		if strings.HasPrefix(r.Path, "/1.0/services") {
			name = "iscsi"
		}
		_, err := client.At[json.RawMessage, json.RawMessage](s.m.api, strings.Replace(r.Path, "{name}", name, 1)).Get(ctx)
		if s.check(r.Path, err, http.StatusNotFound, http.StatusNotImplemented) {
			s.reads.Add(1)
		}
	}
}

// change changes the kernel's settings: at once, or on trial for a moment.
func (s *stress) change(ctx context.Context) {
	within := time.Duration(rand.IntN(3)) * 2 * time.Millisecond
	err := s.m.api.Kernel().Put(ctx, wanted(rand.IntN(10)), client.TryOptions{Within: within})
	if s.check("a change", err, http.StatusConflict) && err == nil {
		s.writes.Add(1)
	}
	logging := api.SystemLoggingConfig{Journal: api.LoggingJournal{MaxSize: fmt.Sprintf("%dMiB", 64+rand.IntN(10))}}
	err = s.m.api.Logging().Put(ctx, logging, client.TryOptions{Within: within})
	if s.check("a change of the log", err, http.StatusConflict) && err == nil {
		s.writes.Add(1)
	}
	network := api.NetworkConfig{DNS: api.NetworkDNS{Hostname: fmt.Sprintf("node%d", rand.IntN(10))}}
	err = s.m.api.Network().Put(ctx, network, client.TryOptions{Within: within})
	if s.check("a change of the network", err, http.StatusConflict) && err == nil {
		s.writes.Add(1)
	}
}

func (s *stress) confirm(ctx context.Context) {
	s.check("a confirmation", s.m.api.Kernel().Confirm(ctx), http.StatusBadRequest)
	s.check("a confirmation of the network", s.m.api.Network().Confirm(ctx), http.StatusBadRequest)
	s.check("keys", s.m.api.KeysRetrieved(ctx))
}

func (s *stress) plan(ctx context.Context) {
	_, err := s.m.api.Kernel().Plan(ctx, wanted(rand.IntN(10)))
	s.check("a plan", err)
	_, tag, err := s.m.api.Kernel().Tagged(ctx)
	s.check("a tag", err)
	err = s.m.api.Kernel().Put(ctx, wanted(0), client.TryOptions{IfMatch: tag})
	s.check("a change of what was read", err, http.StatusConflict, http.StatusPreconditionFailed)
}

// archive has the daemon read everything that is saved, while it is changed.
func (s *stress) archive(ctx context.Context) {
	s.check("a bundle", s.m.api.Bundle(ctx, io.Discard), http.StatusNotImplemented)
	s.check("a backup", s.m.api.Backup(ctx, io.Discard), http.StatusNotImplemented)
}

// disturb is the rest of the world.
func (s *stress) disturb(ctx context.Context) {
	s.rig.Links.Set(sys.Link{Name: "enp1s0", Physical: true, Addresses: []string{fmt.Sprintf("192.0.2.%d/24", 1+rand.IntN(200))}})
	select {
	case s.wake <- struct{}{}:
	default:
	}
	if rand.IntN(4) == 0 {
		if err := errors.Join(s.rig.Units.Stop(ctx, "incus.service"), s.rig.Units.Start(ctx, "incus.service")); err != nil {
			s.t.Error(err)
		}
	}
	time.Sleep(time.Millisecond)
}

// check reports whether a request was answered, and complains about an answer
// that it may not get.
func (s *stress) check(what string, err error, allowed ...int) bool {
	e, refused := errors.AsType[*client.Error](err)
	switch {
	case err == nil:
		return true
	case refused && slices.Contains(allowed, e.Status):
		return true
	case s.stopping.Load():
		return false
	}
	s.t.Errorf("%s: %v", what, err)
	return false
}
