//go:build vm

package vm_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/attest"
)

// An emulated TPM understands what is asked of it, signs its registers, and answers the
// challenge; the model of package systest is measured by this one.
func TestEmulatedTPMAttests(t *testing.T) {
	tpm := emulatedTPM(t)
	nonce := []byte("a nonce of thirty-two characters")
	first, err := attest.Ask(tpm, nonce, nil)
	if err != nil {
		t.Fatal(err)
	}
	challenge, err := attest.NewChallenge(first)
	if err != nil {
		t.Fatal(err)
	}
	credential, err := attest.ParseCredential(challenge.Credential)
	if err != nil {
		t.Fatal(err)
	}
	a, err := attest.Ask(tpm, nonce, credential)
	if err != nil {
		t.Fatal(err)
	}
	if a.Activated != challenge.Secret {
		t.Errorf("the challenge was answered with %q, want its secret", a.Activated)
	}
	for _, n := range attest.PCRs() { // nothing was measured
		a.PCRs = append(a.PCRs, api.AttestedPCR{PCR: n, Value: strings.Repeat("00", 32)})
	}
	r := attest.Verify(a, attest.Demands{Nonce: nonce, Secret: challenge.Secret})
	for _, what := range []string{"signature", "quote", "nonce", "registers", "TPM"} {
		shown := false
		for _, f := range r.Findings {
			shown = shown || f.What == what && f.Verdict == attest.Shown
		}
		if !shown {
			t.Errorf("%s is not shown: %+v", what, r.Findings)
		}
	}
	if _, err := (tpm2.PCRReset{PCRHandle: tpm2.AuthHandle{Handle: 16, Auth: tpm2.PasswordAuth(nil)}}).Execute(tpm); err != nil {
		t.Errorf("the TPM is no good after that: %v", err)
	}
}

// emulatedTPM starts swtpm with a new state, and returns the way to it.
func emulatedTPM(t *testing.T) transport.TPM {
	t.Helper()
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "tpm"), os.NewFile(uintptr(pair[1]), "tpm")
	defer theirs.Close()
	root := options(t).Tools
	libraries := filepath.Join(root, "usr/lib/x86_64-linux-gnu")
	ctx, cancel := context.WithCancel(context.Background())
	c := exec.CommandContext(ctx, filepath.Join(root, "usr/lib64/ld-linux-x86-64.so.2"), "--library-path", libraries+":"+libraries+"/swtpm",
		filepath.Join(root, "usr/bin/swtpm"), "socket", "--tpm2", "--tpmstate", "dir="+t.TempDir(), "--fd", "3", "--flags", "not-need-init,startup-clear")
	c.ExtraFiles, c.Stderr = []*os.File{theirs}, os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ours.Close()
		cancel()
		_ = c.Wait() // it was killed
	})
	return transport.FromReadWriter(ours)
}
