//go:build vm

package vm_test

import (
	"regexp"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/vm"
	"github.com/incusos/incusos/test/vm/incus"
)

// A site is an installed machine that knows a repository, and is switched on and off
// as a scenario goes.
type site struct {
	t  *testing.T // how long machines live at the most
	u  *releases
	m  *vm.Machine
	id vm.Identity

	r       *vm.Running
	c       *incus.Client
	version string // the one that ran last
}

// Lines of a start, in their order.
var (
	loading = regexp.MustCompile(`BdsDxe: starting Boot`)
	readyAs = regexp.MustCompile(`\bincus-os: \S+ (\d{12}) is (?:ready|degraded)`)
)

// newSite installs a machine and tells it of a repository without a release.
func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, u: newReleases(t), m: newMachine(t), id: newIdentity(t)}
	r, ready := installed(t, s.m, newMedium(t, s.id, nil))
	s.on(r)
	s.version = ready.Groups[1]
	s.unlocked(t)
	trusted(t, s.r, s.c)
	s.u.announce(t, s.r, s.c)
	return s
}

func (s *site) on(r *vm.Running) {
	s.r, s.c = r, clientOf(r, s.id)
}

// start switches the machine on.
func (s *site) start() { s.on(start(s.t, s.m, vm.Boot{})) }

// cut takes the power away, as abruptly as there is.
func (s *site) cut(t *testing.T) {
	t.Helper()
	if err := unix.Kill(s.r.PIDs()[0], unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.r.Stop()
}

// up waits until the machine has come up by itself, and Incus answers.
func (s *site) up(t *testing.T) {
	t.Helper()
	ready, err := s.r.Ready(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.version = ready.Groups[1]
	s.unlocked(t)
	trusted(t, s.r, s.c)
}

// unlocked expects that the TPM alone opened the disk.
func (s *site) unlocked(t *testing.T) {
	t.Helper()
	if s.r.Console.Seen(says.askKey) || s.r.Console.Seen(says.byRecoveryKey) {
		t.Fatalf("the TPM did not unlock the disk:\n%s", s.r.Console.Tail(30))
	}
}

// check has the machine look for updates.
func (s *site) check(t *testing.T) {
	t.Helper()
	if err := s.c.Post(within(t, s.r, time.Minute), "/os/1.0/system/update/:check", map[string]any{}, nil); err != nil {
		t.Fatal(err)
	}
}

// stage has the newest release fetched, so that a restart tries it.
func (s *site) stage(t *testing.T) {
	t.Helper()
	s.check(t)
	reached(t, s.r, s.c, "a version that waits for a restart", s.staged)
}

func (s *site) staged(u api.SystemUpdateState) bool { return u.NeedsReboot && u.Version == s.u.next }

// restart asks for a restart, and returns when the firmware has come to the disk.
func (s *site) restart(t *testing.T) {
	t.Helper()
	if err := s.c.Post(within(t, s.r, time.Minute), "/os/1.0/system/:reboot", nil, nil); err != nil {
		t.Fatal(err)
	}
	s.loads(t)
}

// loads waits until the firmware has come to the disk.
func (s *site) loads(t *testing.T) {
	t.Helper()
	if _, err := s.r.Console.Expect(t.Context(), time.Minute, loading); err != nil {
		t.Fatal(err)
	}
}

// good expects that the newest release runs and was found good.
func (s *site) good(t *testing.T) {
	t.Helper()
	if s.version != s.u.next {
		t.Fatalf("version %s is up, want %s:\n%s", s.version, s.u.next, s.r.Console.Tail(30))
	}
	reached(t, s.r, s.c, "the version to be found good", func(u api.SystemUpdateState) bool { return u.Phase == "" && len(u.Failed) == 0 })
}

// whole expects of a machine what it was installed with, and that Incus is that of
// the version which runs.
func (s *site) whole(t *testing.T) {
	t.Helper()
	answersThroughIncus(t, s.r, s.c, s.version)
	belongs(t, s.r, s.c, s.version)
	secure(t, s.r, s.c)
	stored(t, s.r, s.c)
}
