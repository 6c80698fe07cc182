package listener

import (
	"errors"
	"testing"
	"time"

	"github.com/incusos/incusos/internal/sys/systest"
)

func TestHealth(t *testing.T) {
	type step struct {
		after    int // seconds
		unit     string
		degraded bool
		since    int // seconds; -1: it answers
	}
	for name, steps := range map[string][]step{
		"Incus comes up":                   {{0, "inactive", false, 0}, {9, "active", false, -1}},
		"it is down from the start":        {{0, "inactive", false, 0}, {9, "inactive", false, 0}, {9, "failed", false, 0}},
		"it goes down":                     {{0, "active", false, -1}, {9, "deactivating", false, 9}, {1, "inactive", false, 9}},
		"it runs and does not answer":      {{0, "active", false, -1}, {9, "active", true, 9}, {9, "active", true, 9}, {9, "active", false, -1}},
		"it gets time whenever it starts":  {{0, "failed", true, 0}, {60, "activating", true, 60}, {5, "active", true, 65}, {9, "active", true, 65}},
		"it comes up and the rest follows": {{0, "failed", true, 0}, {60, "active", true, 60}, {5, "active", false, -1}, {5, "active", true, 70}},
	} {
		t.Run(name, func(t *testing.T) {
			var h health
			began := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			now := began
			for n, s := range steps {
				now = now.Add(time.Duration(s.after) * time.Second)
				h = h.next(s.unit, s.degraded, now)
				since := -1
				if !h.answers() {
					since = int(h.since.Sub(began) / time.Second)
				}
				if since != s.since || h.answers() != h.since.IsZero() {
					t.Errorf("step %d: cannot answer since %d, want %d", n, since, s.since)
				}
			}
		})
	}
}

// A first start installs Incus, and no start is over before Incus is up.
func TestPatienceWhileTheMachineStarts(t *testing.T) {
	l := New(systest.New(t, systest.Sensible()).Host, Options{})
	if got := l.patience(); got != 10*l.Patience {
		t.Errorf("while the machine starts, patience is %v; want ten times %v", got, l.Patience)
	}
	l.Applications(errors.New("there is no image"))
	if got := l.patience(); got != l.Patience {
		t.Errorf("afterwards it is %v, want %v", got, l.Patience)
	}
}

func FuzzClient(f *testing.F) {
	f.Add("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n", "client", false)
	f.Add("", "metrics", true)
	f.Fuzz(func(t *testing.T, text, kind string, restricted bool) {
		got := client(map[string]any{"certificate": text, "type": kind, "restricted": restricted})
		if got != "" && (restricted || kind != "client" && kind != "") {
			t.Errorf("a client of type %q, restricted: %v, is trusted", kind, restricted)
		}
	})
}
