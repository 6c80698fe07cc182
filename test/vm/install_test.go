//go:build vm

package vm_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/vm"
	"github.com/incusos/incusos/test/vm/incus"
)

// TestInstalledMachine installs a machine once and lets every scenario that
// needs an installed one use it, or spoil a clone of it.
func TestInstalledMachine(t *testing.T) {
	tree := openTree(t) // before a machine waits for it
	id := newIdentity(t)
	m := newMachine(t)
	r, ready := installed(t, m, newMedium(t, id, showsKey(t)))
	if !r.Console.Seen(says.enrolled) {
		t.Errorf("the medium was started in setup mode and did not say that it enrolled its keys:\n%s", r.Console.Tail(30))
	}

	c := clientOf(r, id)
	t.Run("Incus knows the seeded client", func(t *testing.T) { knowsClient(t, r, c) })
	t.Run("the screen shows the recovery key as a code", func(t *testing.T) { keyOnScreen(t, m, r, c) })
	t.Run("the system answers through Incus", func(t *testing.T) { answersThroughIncus(t, r, c, ready.Groups[1]) })
	t.Run("its security is what it should be", func(t *testing.T) { secure(t, r, c) })
	t.Run("its storage is what it should be", func(t *testing.T) { stored(t, r, c) })
	t.Run("a container runs and survives a restart", func(t *testing.T) { container(t, r, c) })
	t.Run("a virtual machine comes as far as its firmware", func(t *testing.T) { virtualMachine(t, r, c) })
	t.Run("Debian's incus client looks at it and changes it", func(t *testing.T) { debianClient(t, r, tree, id) })
	key := recoveryKey(t, r, c)
	if err := r.PowerOff(t.Context(), 20*time.Second); err != nil {
		t.Fatal(err)
	}

	t.Run("a second boot", func(t *testing.T) { bootAgain(t, clone(t, m), id) })
	t.Run("a drive is encrypted, opened at each start, and wiped", func(t *testing.T) { encryptedDrive(t, clone(t, m), id) })
	t.Run("a changed bit in usr is noticed", func(t *testing.T) { changedUsr(t, clone(t, m)) })
	t.Run("a changed command line is noticed", func(t *testing.T) { changedCommandLine(t, clone(t, m)) })
	t.Run("a missing signature is noticed", func(t *testing.T) { missingSignature(t, clone(t, m)) })
	t.Run("the recovery key opens the disk after the TPM is lost", func(t *testing.T) { lostTPM(t, clone(t, m), key) })
	t.Run("a backup is restored, before and after a factory reset", func(t *testing.T) { resetAndRestored(t, clone(t, m), id) })
	t.Run("a move to nowhere is undone", func(t *testing.T) { cutOff(t, clone(t, m), id) })
	t.Run("services attach a disk, and keep it", func(t *testing.T) { attached(t, clone(t, m), id) })
	t.Run("Secure Boot switched off is noticed", func(t *testing.T) { withoutSecureBoot(t, clone(t, m)) })
}

func knowsClient(t *testing.T, r *vm.Running, c *incus.Client) {
	ctx := within(t, r, 10*time.Second)
	var server struct{ Auth string }
	err := retry(ctx, func() error { return c.Get(ctx, "/1.0", &server) })
	if err != nil || server.Auth != "trusted" {
		t.Errorf("Incus takes the client as %q, %v, want \"trusted\"", server.Auth, err)
	}
}

func answersThroughIncus(t *testing.T, r *vm.Running, c *incus.Client, version string) {
	var server api.Server
	if err := c.Get(within(t, r, 10*time.Second), "/os/1.0", &server); err != nil {
		t.Fatal(err)
	}
	e := server.Environment
	if e.OSName != "IncusOS" || e.OSVersion != version || len(e.MachineID) != 32 || e.Uptime <= 0 {
		t.Errorf("/os/1.0 describes %+v, want IncusOS %s with a machine id and an uptime", e, version)
	}
}

func secure(t *testing.T, r *vm.Running, c *incus.Client) {
	var s api.SystemSecurity
	if err := c.Get(within(t, r, 20*time.Second), "/os/1.0/system/security", &s); err != nil {
		t.Fatal(err)
	}
	if !s.State.SecureBootEnabled || s.State.TPMStatus != api.TPMOK || !s.State.SystemStateIsTrusted {
		t.Errorf("Secure Boot %v, TPM %q, trusted %v (%s), want all well",
			s.State.SecureBootEnabled, s.State.TPMStatus, s.State.SystemStateIsTrusted, s.State.SystemStateStatus)
	}
	if v := s.State.EncryptedVolumes; len(v) == 0 || v[0].Volume != "root" || !strings.Contains(v[0].State, "TPM") {
		t.Errorf("encrypted volumes are %+v, want root unlocked by the TPM", v)
	}
	for _, kind := range []string{"PK", "KEK", "db"} {
		if !slices.ContainsFunc(s.State.SecureBootCertificates, func(c api.SecureBootCertificate) bool { return c.Type == kind }) {
			t.Errorf("Secure Boot has no certificate of type %s: %+v", kind, s.State.SecureBootCertificates)
		}
	}
}

func stored(t *testing.T, r *vm.Running, c *incus.Client) {
	var s api.SystemStorage
	if err := c.Get(within(t, r, 20*time.Second), "/os/1.0/system/storage", &s); err != nil {
		t.Fatal(err)
	}
	if len(s.State.Drives) != 1 {
		t.Fatalf("the drives are %+v, want the one disk", s.State.Drives)
	}
	d := s.State.Drives[0]
	if d.ID != "/dev/disk/by-id/virtio-disk" || d.SerialNumber != "disk" || d.Capacity != 64<<30 || !d.Boot {
		t.Errorf("the drive is %+v, want virtio-disk with 64 GiB, booted from", d)
	}
	if p := s.State.RootPartition; p.Size == 0 || p.Available == 0 || p.Available > p.Size {
		t.Errorf("the root partition is %+v, want some of it available", p)
	}
	i := slices.IndexFunc(s.State.Pools, func(p api.StoragePool) bool { return p.Name == "local" })
	if i < 0 {
		t.Fatalf("the pools are %+v, want one named local", s.State.Pools)
	}
	if p := s.State.Pools[i]; p.State != "ONLINE" || !p.Managed || p.EncryptionKeyStatus != "available" {
		t.Errorf("the pool local is %+v, want it online, encrypted and managed", p)
	}
}

func recoveryKey(t *testing.T, r *vm.Running, c *incus.Client) string {
	t.Helper()
	var s api.SystemSecurity
	if err := c.Get(within(t, r, 20*time.Second), "/os/1.0/system/security", &s); err != nil {
		t.Fatal(err)
	}
	if len(s.Config.EncryptionRecoveryKeys) == 0 {
		t.Fatal("the machine has no recovery key")
	}
	return string(s.Config.EncryptionRecoveryKeys[0])
}

// bootAgain expects applications to be in /usr before the service manager looks
// there for units, so that it does not have to look again.
func bootAgain(t *testing.T, m *vm.Machine, id vm.Identity) {
	r := start(t, m, vm.Boot{})
	ready, err := r.Ready(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("ready after %v", ready.At.Round(100*time.Millisecond))
	c := clientOf(r, id)
	type entry struct {
		Message string `json:"MESSAGE"`
	}
	var entries []entry
	if err := c.Get(within(t, r, 20*time.Second), "/os/1.0/debug/log?boot=0&unit=init.scope", &entries); err != nil {
		t.Fatal(err)
	}
	said := func(beginning string) bool {
		return slices.ContainsFunc(entries, func(e entry) bool { return strings.HasPrefix(e.Message, beginning) })
	}
	if !said("Queued start job for default target") || said("Reload requested") {
		t.Errorf("of %d things the service manager said, one should be how it began and none that it reads its units again", len(entries))
	}
}

func changedUsr(t *testing.T, m *vm.Machine) {
	disk := openDisk(t, m.Disk("disk"))
	at, _ := partition(t, disk, usrLabel)
	flipBit(t, disk, at+1024) // of the superblock: every boot reads it
	r := start(t, m, vm.Boot{})
	expectNever(t, r, says.corrupted)
}

func changedCommandLine(t *testing.T, m *vm.Machine) {
	changeCommandLine(t, openDisk(t, m.Disk("disk")))
	neverStarted(t, m)
}

func missingSignature(t *testing.T, m *vm.Machine) {
	unsign(t, openDisk(t, m.Disk("disk")))
	neverStarted(t, m)
}

// neverStarted expects the firmware to refuse the UKI.
func neverStarted(t *testing.T, m *vm.Machine) {
	t.Helper()
	r := start(t, m, vm.Boot{})
	expectNever(t, r, says.notAuthorised)
	if r.Console.Seen(says.kernel) {
		t.Errorf("the kernel was started:\n%s", r.Console.Tail(30))
	}
}

func withoutSecureBoot(t *testing.T, m *vm.Machine) {
	expectNever(t, start(t, m, vm.Boot{NoSecureBoot: true}), says.noSecureBoot)
}

func lostTPM(t *testing.T, m *vm.Machine, key string) {
	if err := m.ReplaceTPM(); err != nil {
		t.Fatal(err)
	}
	r := start(t, m, vm.Boot{})
	expectNever(t, r, says.askKey)
	if err := r.Console.Type(key + "\r"); err != nil {
		t.Fatal(err)
	}
	// It is up, and says that this is no state to stay in.
	up, err := r.Console.Expect(t.Context(), r.Scale.Of(time.Minute), says.reachable)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Console.Seen(says.byRecoveryKey) {
		t.Errorf("the machine does not say that the recovery key unlocked it:\n%s", r.Console.Tail(30))
	}
	if r.Console.Seen(literally(key)) {
		t.Error("the recovery key is shown on the console while it is typed")
	}
	t.Logf("up after %v", up.At.Round(time.Second))
}

// retry calls f until it is content or ctx ends.
func retry(ctx context.Context, f func() error) error {
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		}
	}
}
