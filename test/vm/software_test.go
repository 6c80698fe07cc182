//go:build vm

package vm_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/diskfs/go-diskfs/filesystem"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/vm"
	"github.com/incusos/incusos/test/vm/incus"
)

// TestWithoutTPM installs a machine that has no TPM, as its seed allows: one in software
// opens root, for this system alone, and for everybody who has the disk.
func TestWithoutTPM(t *testing.T) {
	id := newIdentity(t)
	m := newMachine(t)
	medium := newMedium(t, id, func(dir string) {
		text := "version: \"1\"\nsecurity:\n  missing_tpm: true\n"
		if err := os.WriteFile(filepath.Join(dir, "install.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	})
	r := start(t, m, vm.Boot{Medium: medium, NoTPM: true})
	if err := r.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !r.Console.Seen(says.warnedTPM) {
		t.Errorf("it was installed without a warning:\n%s", r.Console.Tail(40))
	}
	if _, err := r.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !r.Console.Seen(says.untrustedTPM) {
		t.Errorf("the console does not say that there is no TPM:\n%s", r.Console.Tail(40))
	}
	c := incus.New(fmt.Sprintf("https://127.0.0.1:%d", r.Port), id.TLS())
	softly(t, r, c)
	refuseWithoutTPM(t, r, c)
	if err := r.PowerOff(t.Context(), 20*time.Second); err != nil {
		t.Fatal(err)
	}

	t.Run("a second boot, of a copy of the disk, opens by itself", func(t *testing.T) {
		r := start(t, clone(t, m), vm.Boot{NoTPM: true})
		if _, err := r.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		c := incus.New(fmt.Sprintf("https://127.0.0.1:%d", r.Port), id.TLS())
		softly(t, r, c)
		sealedOff(t, r, c)
		out := asRoot(t, r, c, `for pcr in 0 15; do echo "PCR $pcr: $(cat /sys/class/tpm/tpm0/pcr-sha256/$pcr)"; done
echo "service: $(systemctl is-active incus-os-swtpm.service)"
stat -c '%a %n' /run/incus-os/swtpm /run/incus-os/swtpm/*
`)
		expectIn(t, out, `^PCR 0: 0{64}$`, `^PCR 15: [0-9A-F]{64}$`, `^service: active$`, `^700 /run/incus-os/swtpm$`, `^600 .*/tpm2-00\.permall$`)
		expectNotIn(t, out, `^PCR 15: 0{64}$`)
	})
	t.Run("another kernel image of ours does not unlock", func(t *testing.T) {
		anotherKernel(t, clone(t, m), vm.Boot{NoTPM: true}, `PCR 11`)
	})
	t.Run("a TPM that is lost is made anew, and does not unlock", func(t *testing.T) {
		spoiled := clone(t, m)
		onESP(t, spoiled, func(fs filesystem.FileSystem) {
			if err := fs.Remove("swtpm/tpm2-00.permall"); err != nil {
				t.Fatal(err)
			}
		})
		locked(t, spoiled, vm.Boot{NoTPM: true}, `belongs to another TPM`)
	})
	t.Run("a TPM that is added does not unlock", func(t *testing.T) {
		locked(t, clone(t, m), vm.Boot{}, `belongs to another TPM`)
	})
	t.Run("without the mark it does not start", func(t *testing.T) {
		spoiled := clone(t, m)
		onESP(t, spoiled, func(fs filesystem.FileSystem) {
			if err := fs.Remove("tpm-missing"); err != nil {
				t.Fatal(err)
			}
		})
		expectNever(t, start(t, spoiled, vm.Boot{NoTPM: true}), says.noTPM)
	})
}

// softly expects a machine to have been unlocked by a TPM in software, to say so, and to
// be bound to what that was told of the start.
func softly(t *testing.T, r *vm.Running, c *incus.Client) {
	t.Helper()
	var s api.SystemSecurity
	if err := c.Get(within(t, r, 20*time.Second), "/os/1.0/system/security", &s); err != nil {
		t.Fatal(err)
	}
	if !s.State.SecureBootEnabled || s.State.SystemStateIsTrusted || s.State.SystemStateStatus != "using swtpm" || s.State.TPMStatus != api.TPMSoftware {
		t.Errorf("Secure Boot %v, TPM %q, trusted %v (%s)",
			s.State.SecureBootEnabled, s.State.TPMStatus, s.State.SystemStateIsTrusted, s.State.SystemStateStatus)
	}
	if v := s.State.EncryptedVolumes; len(v) != 1 || v[0].State != "unlocked (TPM)" {
		t.Errorf("encrypted volumes are %+v, want root unlocked by the TPM", v)
	}
	doctorIsContent(t, r, c)
	var d api.SecureBootDoctor
	if err := c.Get(within(t, r, time.Minute), "/os/1.0/debug/secureboot/doctor", &d); err != nil {
		t.Fatal(err)
	}
	if len(d.Bindings) != 1 || !d.Bindings[0].Image || len(d.PCRs) != 2 {
		t.Errorf("bindings %+v, registers %+v; want one binding, to the kernel image", d.Bindings, d.PCRs)
	}
	if len(d.Findings) != 1 || !strings.Contains(d.Findings[0].What, "the TPM is one in software") {
		t.Errorf("the doctor finds %+v", d.Findings)
	}
}

// refuseWithoutTPM asks for what a TPM in software is no good for.
func refuseWithoutTPM(t *testing.T, r *vm.Running, c *incus.Client) {
	t.Helper()
	var a api.Attestation
	err := c.Get(within(t, r, time.Minute), "/os/1.0/system/security/attestation?nonce="+strings.Repeat("0a", 32), &a)
	if err == nil || !strings.Contains(err.Error(), "proves nothing to others") {
		t.Errorf("asked for a proof it answers %v", err)
	}
}
