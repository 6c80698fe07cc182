//go:build vm

package vm_test

import (
	"context"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/attest"
	"github.com/incusos/incusos/internal/vm"
)

// TestMachineProvesWhatItRuns has a machine prove twice what it runs, with a restart in
// between: to the same key, the same root volume and the image that was built. Its TPM
// has a certificate of its maker, which is wanted, and another maker's is not taken for it.
func TestMachineProvesWhatItRuns(t *testing.T) {
	id := newIdentity(t)
	m := newMachine(t)
	made := newMaker(t, "maker of this TPM")
	made.vouch(t, m)
	r, _ := installed(t, m, newMedium(t, id, nil))
	first := proof(t, r, id, attest.Demands{Makers: made.pool()})
	t.Run("a TPM of another maker is refused", func(t *testing.T) { othersTPM(t, r, id) })
	boundToTheImage(t, r, id)
	if err := r.PowerOff(t.Context(), 20*time.Second); err != nil {
		t.Fatal(err)
	}
	r = start(t, m, vm.Boot{})
	if _, err := r.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r.Console.Seen(says.byRecoveryKey) {
		t.Error("a recovery key was asked for, though nothing has changed")
	}
	proof(t, r, id, attest.Demands{Key: first.Key, Volume: first.Volume})
	boundToTheImage(t, r, id)
}

// proof asks a machine to prove what it runs, with a challenge for its TPM, and refuses
// what is refused.
func proof(t *testing.T, r *vm.Running, id vm.Identity, d attest.Demands) attest.Report {
	t.Helper()
	c := clientOf(r, id)
	d.Nonce = []byte("thirty-two characters of a nonce")
	path := "/os/1.0/system/security/attestation?nonce=" + hex.EncodeToString(d.Nonce)
	var a api.Attestation
	if err := c.Get(within(t, r, time.Minute), path, &a); err != nil {
		t.Fatal(err)
	}
	challenge, err := attest.NewChallenge(a)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Get(within(t, r, time.Minute), path+"&credential="+challenge.Credential, &a); err != nil {
		t.Fatal(err)
	}
	d.Secret = challenge.Secret
	report := attest.Verify(a, d)
	for _, f := range report.Findings {
		t.Logf("%s %s: %s", f.Verdict, f.What, f.Why)
	}
	if err := report.Refusal(); err != nil {
		t.Errorf("the machine is refused: %v", err)
	}
	return report
}

// othersTPM demands of a machine a TPM of somebody who has not made it.
func othersTPM(t *testing.T, r *vm.Running, id vm.Identity) {
	nonce := []byte("thirty-two characters of a nonce")
	var a api.Attestation
	if err := clientOf(r, id).Get(within(t, r, time.Minute), "/os/1.0/system/security/attestation?nonce="+hex.EncodeToString(nonce), &a); err != nil {
		t.Fatal(err)
	}
	report := attest.Verify(a, attest.Demands{Nonce: nonce, Makers: newMaker(t, "another maker").pool()})
	if err := report.Refusal(); err == nil || !strings.Contains(err.Error(), "the certificate of the endorsement key") {
		t.Errorf("the machine is refused with %v; want it to be for its certificate", err)
	}
}

// boundToTheImage expects root to be bound by value to the kernel image that runs, a
// while after the start, and the next start to unlock it.
func boundToTheImage(t *testing.T, r *vm.Running, id vm.Identity) {
	t.Helper()
	c := clientOf(r, id)
	ctx := within(t, r, 2*time.Minute)
	var d api.SecureBootDoctor
	for ctx.Err() == nil {
		if err := c.Get(ctx, "/os/1.0/debug/secureboot/doctor", &d); err != nil {
			t.Fatal(err)
		}
		if len(d.Bindings) == 1 && d.Bindings[0].Image {
			break
		}
		rest(ctx, 2*time.Second)
	}
	if len(d.Bindings) != 1 || !d.Bindings[0].Image || !d.Unlocks || strings.Contains(d.Verdict, "PIN") {
		t.Errorf("bindings %+v, verdict %q", d.Bindings, d.Verdict)
	}
}

func rest(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
