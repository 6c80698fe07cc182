//go:build vm

package vm_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/vm"
)

var (
	askPIN       = regexp.MustCompile(`\bincus-os: PIN:$`)
	olderThanPIN = regexp.MustCompile(`degraded: seal: .*PIN`)

	otherTPM = regexp.MustCompile(`belongs to another TPM`)
)

func movedDisk(t *testing.T, v victim) {
	m := clone(t, v.m)
	if err := m.ReplaceTPM(); err != nil {
		t.Fatal(err)
	}
	r := start(t, m, vm.Boot{})
	expectNever(t, r, says.askKey)
	if !r.Console.Seen(otherTPM) {
		t.Errorf("the machine does not say that the disk is from elsewhere:\n%s", r.Console.Tail(30))
	}
	if r.Console.Seen(literally(v.key)) {
		t.Error("the recovery key is on the console")
	}
}

func guessing(t *testing.T, v victim) {
	m := clone(t, v.m)
	if err := m.ReplaceTPM(); err != nil {
		t.Fatal(err)
	}
	r := start(t, m, vm.Boot{})
	expectNever(t, r, says.askKey)
	began := r.Console.Elapsed()
	for i := range 4 {
		if err := r.Console.Type(fmt.Sprintf("guess number %d\r", i)); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Console.Expect(t.Context(), r.Scale.Of(2*time.Minute), says.askKey); err != nil {
			t.Fatal(err)
		}
	}
	if took := r.Console.Elapsed() - began; took < 7*time.Second {
		t.Errorf("four guesses took %v; want the wait to double each time", took)
	}
}

// withPIN sets a PIN over the API, restarts, and types a wrong one and the right one.
func withPIN(t *testing.T, v victim) {
	m, before := clone(t, v.m), v.m
	r := start(t, m, vm.Boot{})
	if _, err := r.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := clientOf(r, v.id)
	if err := c.Post(within(t, r, time.Minute), "/os/1.0/system/security/:set-pin", api.SecurityPIN{PIN: "314-159"}, nil); err != nil {
		t.Fatal(err)
	}
	var d api.SecureBootDoctor
	if err := c.Get(within(t, r, time.Minute), "/os/1.0/debug/secureboot/doctor", &d); err != nil || !strings.Contains(d.Verdict, "once the PIN is typed") {
		t.Errorf("the doctor says %q, %v", d.Verdict, err)
	}
	if err := r.PowerOff(t.Context(), 20*time.Second); err != nil {
		t.Fatal(err)
	}
	r = start(t, m, vm.Boot{})
	expectNever(t, r, askPIN)
	if err := r.Console.Type("000-111\r"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Console.Expect(t.Context(), r.Scale.Of(2*time.Minute), askPIN); err != nil {
		t.Fatal(err)
	}
	if err := r.Console.Type("314-159\r"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r.Console.Seen(literally("314-159")) || r.Console.Seen(literally(v.key)) {
		t.Error("a secret is shown on the console")
	}
	if r.Console.Seen(says.byRecoveryKey) {
		t.Error("the PIN was taken for a recovery key")
	}
	r.Stop()
	t.Run("an older copy of the TPM asks too", func(t *testing.T) { olderTPM(t, m, before) })
	t.Run("an older copy of the disk's header opens without the PIN", func(t *testing.T) { olderHeader(t, m, before) })
}

// olderTPM puts the state that a TPM had before a PIN was set in the place of what it has
// now, as whoever copied it could with one that is software. What asks for the PIN is on
// the disk, so that it still does; the wrong ones that were counted are forgotten.
func olderTPM(t *testing.T, m, before *vm.Machine) {
	m = clone(t, m)
	if err := m.CopyTPM(before); err != nil {
		t.Fatal(err)
	}
	r := start(t, m, vm.Boot{})
	expectNever(t, r, askPIN)
	if r.Console.Seen(otherTPM) {
		t.Errorf("the same TPM is taken for another:\n%s", r.Console.Tail(30))
	}
}

// olderHeader puts the header of root as it was before a PIN was set in the place of the
// one that it has now. It opens by the TPM alone, as it did, since a PIN is a lock for
// whoever has no copy from before, as SECURITY.md says. The machine complains.
func olderHeader(t *testing.T, m, before *vm.Machine) {
	const header = 16 << 20 // of LUKS2 (LUKS2 On-Disk Format Specification, "Keyslots area")
	m = clone(t, m)
	from, to := openDisk(t, before.Disk("disk")), openDisk(t, m.Disk("disk"))
	at, _ := partition(t, from, rootLabel)
	b := make([]byte, header)
	if _, err := from.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	if _, err := to.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
	r := start(t, m, vm.Boot{})
	if _, err := r.Console.Expect(t.Context(), r.Scale.Of(2*time.Minute), olderThanPIN); err != nil {
		t.Fatal(err)
	}
	if r.Console.Seen(askPIN) {
		t.Error("a PIN was asked for; SECURITY.md says that an older header opens without")
	}
}
