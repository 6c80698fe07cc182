//go:build vm

package vm_test

import (
	"regexp"
	"testing"
	"time"

	"github.com/incusos/incusos/internal/vm"
)

// TestFirstBootIsCut takes the power away in a first boot, at moments when
// something is made that later boots rely on, and again in the boot after it. Then
// the machine has to come up as if nothing had been.
func TestFirstBootIsCut(t *testing.T) {
	id := newIdentity(t)
	m := newMachine(t)
	r := start(t, m, vm.Boot{Medium: newMedium(t, id, nil)})
	if err := r.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.Stop()
	type moment struct {
		line  *regexp.Regexp
		after time.Duration // with KVM
	}
	for name, cuts := range map[string][]moment{
		"while the disk is made":               {{says.firstStart, 0}, {says.firstStart, 400 * time.Millisecond}},
		"while Incus is copied":                {{says.copying, 0}, {says.copying, 100 * time.Millisecond}},
		"while Incus makes its database":       {{says.copied, 600 * time.Millisecond}, {says.starting, 1800 * time.Millisecond}},
		"while Incus is set up, and once more": {{says.copied, 1200 * time.Millisecond}, {says.starting, 2400 * time.Millisecond}},
	} {
		t.Run(name, func(t *testing.T) {
			m := clone(t, m)
			for _, at := range cuts {
				r := start(t, m, vm.Boot{})
				if found, err := r.Console.Expect(t.Context(), r.Scale.Of(time.Minute), at.line, says.ready); err != nil {
					t.Fatal(err)
				} else if found.Pattern != 0 {
					t.Log("it was ready before that: the boot before had come further")
				}
				time.Sleep(r.Scale.Of(at.after))
				t.Logf("cut after %v, having said %q", r.Console.Elapsed().Round(time.Second), r.Console.Tail(1))
				r.Stop()
			}
			comesUp(t, m, id)
		})
	}
}

// comesUp expects a machine to be complete.
func comesUp(t *testing.T, m *vm.Machine, id vm.Identity) {
	t.Helper()
	r := start(t, m, vm.Boot{})
	ready, err := r.Ready(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("ready after %v", ready.At.Round(time.Second))
	c := clientOf(r, id)
	trusted(t, r, c)
	answersThroughIncus(t, r, c, ready.Groups[1])
	secure(t, r, c)
	stored(t, r, c)
	var pools []string
	var leases []any
	ctx := within(t, r, time.Minute)
	if err := c.Get(ctx, "/1.0/storage-pools", &pools); err != nil || len(pools) != 1 {
		t.Errorf("Incus has the pools %q, %v; want one", pools, err)
	}
	if err := c.Get(ctx, "/1.0/networks/incusbr0/leases", &leases); err != nil {
		t.Errorf("the bridge incusbr0: %v", err)
	}
}
