//go:build vm

package vm_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/vm"
)

// broken are releases that do not work, and what a machine says of them afterwards.
var broken = []struct {
	name   string
	change change
	full   bool // all tries are left to the machine, however slow it is
	reason *regexp.Regexp
}{
	{"the kernel panics", change{options: "rdinit=/nowhere"}, true, silent},
	{"its daemon ends", change{usr: [2]string{"ExecStart=/usr/bin/incus-osd\n", "ExecStart=/usr/bin/incus-os \n"}}, false, silent},
	{"nothing answers", change{options: "systemd.unit=sysinit.target"}, false, silent},
	{"Incus does not start", change{options: "systemd.setenv=INCUS_DIR=/sys/incus"}, false, regexp.MustCompile(`\bapplications: `)},
	{"the network is gone", change{options: "module_blacklist=virtio_net"}, false, regexp.MustCompile(`\bnetwork: `)},
	{"the pool is not imported", change{options: "module_blacklist=zfs"}, false, regexp.MustCompile(`\bstorage: `)},
}

// silent is said of a version that could not say anything.
var silent = regexp.MustCompile(`never came as far`)

// TestBrokenUpdates lets a machine update itself to one version after the other that
// does not work. From each it comes back by itself, with all it had, says why, and
// refuses that version afterwards.
func TestBrokenUpdates(t *testing.T) {
	s := newSite(t)
	newContainer(t, s.r, s.c)
	key, incus := recoveryKey(t, s.r, s.c), belongs(t, s.r, s.c, s.version).FriendlyVersion
	for _, b := range broken {
		if t.Failed() {
			break // in what state the machine is, nobody knows
		}
		t.Run(b.name, func(t *testing.T) {
			// How long a version has until it is found bad, in seconds: no more
			// than what a start takes here, since none of these is ever good.
			b.change.options = strings.TrimSpace(fmt.Sprintf("%s incusos.trial=%d", b.change.options, int(max(20, 9*float64(s.r.Scale)))))
			version := s.u.release(t, b.change)
			s.stage(t)
			began := time.Now()
			if b.full || s.r.Accel == vm.KVM {
				s.restart(t)
			} else {
				s.lastTry(t)
			}
			s.isBack(t, version, b.reason)
			t.Logf("back after %v", time.Since(began).Round(time.Second))
			s.whole(t)
			app := belongs(t, s.r, s.c, s.version)
			if app.FriendlyVersion != incus {
				t.Errorf("Incus is %s, want %s", app.FriendlyVersion, incus)
			}
			if want := []string{s.version, version}; !slices.Equal(app.AvailableVersions, want) {
				t.Errorf("images of Incus are %q, want %q: those of the two slots", app.AvailableVersions, want)
			}
			if got := recoveryKey(t, s.r, s.c); got != key {
				t.Error("the recovery key is another one")
			}
		})
	}
}

// lastTry spares a slow machine all but the last of its tries of a new version: the
// power goes as soon as the boot loader has counted.
func (s *site) lastTry(t *testing.T) {
	t.Helper()
	if err := s.r.PowerOff(t.Context(), 20*time.Second); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s.start()
		s.loads(t)
		time.Sleep(5 * time.Second)
		s.cut(t)
	}
	s.start()
}

// isBack waits until the version before a broken one is up again, and expects it to be
// as it was, to say why, and to take the broken one no more.
func (s *site) isBack(t *testing.T, failed string, reason *regexp.Regexp) {
	t.Helper()
	for up := ""; up != s.version; {
		m, err := s.r.Console.Expect(t.Context(), 5*time.Minute, readyAs)
		if err != nil {
			t.Fatal(err)
		}
		if up = m.Groups[1]; up == failed {
			t.Logf("the broken version says %q", m.Text)
		}
	}
	s.unlocked(t)
	trusted(t, s.r, s.c)
	var why string
	refused := func(u api.SystemUpdateState) bool {
		if len(u.Failed) > 0 {
			why = u.Failed[0].Reason
		}
		return u.Phase == "" && !u.NeedsReboot && len(u.Failed) > 0 && u.Failed[0].Version == failed && reason.MatchString(u.Failed[0].Reason)
	}
	reached(t, s.r, s.c, fmt.Sprintf("%s to have failed since %s", failed, reason), refused)
	t.Logf("why %s failed: %s", failed, why)
	ctx := within(t, s.r, 2*time.Minute)
	if err := retry(ctx, func() error { return running(ctx, s.c) }); err != nil {
		t.Errorf("the container did not come back: %v", err)
	}
	works(t, ctx, s.c)
	s.check(t)
	reached(t, s.r, s.c, "that it is not tried again", func(u api.SystemUpdateState) bool {
		return refused(u) && strings.Contains(u.Status, failed) && strings.Contains(u.Status, "did not work")
	})
}
