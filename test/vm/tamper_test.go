//go:build vm

package vm_test

import (
	"testing"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/vm"
	"github.com/incusos/incusos/test/vm/incus"
)

// A victim is a machine that was set up and is switched off. Scenarios do to a clone of
// it what somebody would who has the disk in hands.
type victim struct {
	m   *vm.Machine
	id  vm.Identity
	key string // the recovery key
}

// tampered are the scenarios of TestTamperedMachine, by what they show.
//
//	tamper_boot_test.go       the boot partition and usr
//	tamper_root_test.go       the root partition
//	tamper_tpm_test.go        the TPM, its PIN, and who guesses
//	tamper_extension_test.go  images of applications
//	tamper_running_test.go    root in the running machine
func tampered() []struct {
	shows string
	do    func(*testing.T, victim)
} {
	return []struct {
		shows string
		do    func(*testing.T, victim)
	}{
		{"a changed loader is noticed", changedLoader},
		{"a changed initrd is noticed", func(t *testing.T, v victim) { changedSection(t, v, ".initrd") }},
		{"a changed kernel is noticed", func(t *testing.T, v victim) { changedSection(t, v, ".linux") }},
		{"an unsigned kernel image beside ours is not started", unsignedBeside},
		{"an older kernel image starts, and the disk stays closed", rolledBack},
		{"a changed hash tree is noticed", changedTree},
		{"what is put beside the kernel image changes nothing", beside},
		{"a disk in another machine stays closed", movedDisk},
		{"a root partition without encryption is not taken", plainRoot},
		{"a root partition of somebody else's is not unlocked by itself", foreignRoot},
		{"guessing the recovery key takes ever longer", guessing},
		{"a PIN is asked for, and opens", withPIN},
		{"an application signed by a stranger is not merged", strangersApplication},
		{"a changed application is not merged", changedApplication},
	}
}

// TestTamperedMachine installs a machine once, attacks it from within, and then the disk
// of clones of it. Each attack is refused, and nothing of the recovery key is on a
// console.
func TestTamperedMachine(t *testing.T) {
	v := victim{m: newMachine(t), id: newIdentity(t)}
	r, _ := installed(t, v.m, newMedium(t, v.id, nil))
	c := clientOf(r, v.id)
	v.key = recoveryKey(t, r, c)
	boundToTheImage(t, r, v.id)
	t.Run("the doctor says that the next start unlocks", func(t *testing.T) { doctorIsContent(t, r, c) })
	attackedFromWithin(t, r, c)
	if err := r.PowerOff(t.Context(), 20*time.Second); err != nil {
		t.Fatal(err)
	}
	for _, s := range tampered() {
		t.Run(s.shows, func(t *testing.T) { s.do(t, v) })
	}
}

func doctorIsContent(t *testing.T, r *vm.Running, c *incus.Client) {
	var d api.SecureBootDoctor
	if err := c.Get(within(t, r, time.Minute), "/os/1.0/debug/secureboot/doctor", &d); err != nil {
		t.Fatal(err)
	}
	if !d.Unlocks || len(d.Bindings) != 1 || len(d.Kernels) != 1 || !d.Kernels[0].Running {
		t.Errorf("verdict %q, bindings %+v, kernels %+v, findings %+v", d.Verdict, d.Bindings, d.Kernels, d.Findings)
	}
	for _, p := range d.PCRs {
		if p.Measured != p.Replayed || p.Measured != p.Expected {
			t.Errorf("PCR %d: measured %s, replayed %s, expected %s", p.PCR, p.Measured, p.Replayed, p.Expected)
		}
	}
}
