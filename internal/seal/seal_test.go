package seal_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/seal"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/sys/systest"
	"github.com/incusos/incusos/internal/uefi"
)

const (
	device  = "/dev/vda9"
	keyFile = "/sysroot/var/lib/incus-os/recovery.root.key"

	unsealed = "Failed to unseal secret using TPM2: Operation not permitted\nNo passphrase or recovery key registered."
)

func TestUnlockByTPM(t *testing.T) {
	rig := systest.New(t, systest.Sensible())
	l := newLUKS(rig)
	by, err := seal.Unlock(t.Context(), rig.Host, device, func(string) (string, error) {
		t.Error("asked for a key although the TPM unlocks")
		return "", nil
	})
	if err != nil || by != "tpm" || !l.open {
		t.Errorf("Unlock() = %q, %v, open %t; want it opened by the tpm", by, err, l.open)
	}
}

// TestUnlockByTypedKey types what people type, and checks how often and how
// long they had to.
func TestUnlockByTypedKey(t *testing.T) {
	tests := map[string]struct {
		typed []string
		takes time.Duration
	}{
		"right at once":        {[]string{key(3)}, 0},
		"capitals, no dashes":  {[]string{strings.ToUpper(strings.ReplaceAll(key(3), "-", ""))}, 0},
		"blanks and a return":  {[]string{" " + strings.ReplaceAll(key(3), "-", " ") + "\r\n"}, 0},
		"at the third attempt": {[]string{key(4), "", key(3)}, 3 * time.Second},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			rig := systest.New(t, systest.Sensible())
			l := newLUKS(rig)
			l.tpm, l.recovery = unsealed, key(3)
			synctest.Test(t, func(t *testing.T) {
				began, asked := time.Now(), 0
				by, err := seal.Unlock(t.Context(), rig.Host, device, func(string) (string, error) {
					asked++
					return tt.typed[asked-1], nil
				})
				if err != nil || by != "recovery key" || !l.open || asked != len(tt.typed) {
					t.Errorf("Unlock() = %q, %v, open %t, asked %d times", by, err, l.open, asked)
				}
				if took := time.Since(began); took != tt.takes {
					t.Errorf("took %s, want %s", took, tt.takes)
				}
			})
			if rig.Host.Files.Exists("/run/incus-os/unlock.key") {
				t.Error("the typed key was left behind")
			}
		})
	}
}

func TestPassphrasesStayAsTyped(t *testing.T) {
	rig := systest.New(t, systest.Sensible())
	l := newLUKS(rig)
	l.tpm, l.recovery = unsealed, "Correct Horse - Battery"
	if _, err := seal.Unlock(t.Context(), rig.Host, device, func(string) (string, error) { return l.recovery + "\n", nil }); err != nil {
		t.Fatal(err)
	}
}

func TestUnlockSaysWhy(t *testing.T) {
	tests := map[string]struct{ stderr, says string }{
		"another boot":       {unsealed, "the Secure Boot keys have changed"},
		"another TPM":        {"tpm:parameter(1):integrity check failed\nFailed to unseal secret using TPM2: State not recoverable", "another TPM"},
		"too many attempts":  {"WARNING: the TPM is in DA lockout mode", "locked"},
		"no token":           {"No TPM2 metadata enrolled in LUKS2 header", "not bound"},
		"no TPM":             {"Failed to find TPM2 device", "cannot be found"},
		"something unheard":  {"first\nsecond: something odd", "second: something odd"},
		"nothing whatsoever": {"", "did not say why"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			rig := systest.New(t, systest.Sensible())
			rig.Programs.Fail("systemd-cryptsetup", &sys.ExecError{Name: "systemd-cryptsetup", Code: 1, Stderr: tt.stderr})
			var shown string
			_, err := seal.Unlock(t.Context(), rig.Host, device, func(prompt string) (string, error) {
				shown = prompt
				return "", errors.New("nobody is here")
			})
			if err == nil || !strings.Contains(shown, tt.says) {
				t.Errorf("Unlock() = %v, asked %q; want it to say %q", err, shown, tt.says)
			}
		})
	}
}

func TestUnlockEndsWithItsContext(t *testing.T) {
	rig := systest.New(t, systest.Sensible())
	newLUKS(rig).tpm = unsealed
	ctx, cancel := context.WithCancel(t.Context())
	_, err := seal.Unlock(ctx, rig.Host, device, func(string) (string, error) {
		cancel()
		return "wrong", nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Unlock() = %v, want it to end with its context", err)
	}
}

func TestRecoveryKeyIsMadeOnce(t *testing.T) {
	rig := systest.New(t, systest.Sensible())
	l := newLUKS(rig)
	for range 3 {
		if err := seal.EnsureRecoveryKey(t.Context(), rig.Host, device, keyFile); err != nil {
			t.Fatal(err)
		}
	}
	b, err := rig.Host.Files.ReadFile(keyFile)
	if err != nil || string(b) != l.recovery+"\n" || l.enrolled != 1 {
		t.Errorf("key file %q, %v after %d enrolments; want the key of the only one", b, err, l.enrolled)
	}
	fi, err := rig.Host.Files.Stat(keyFile)
	if err != nil || fi.Mode() != 0o400 {
		t.Errorf("key file: %v, %v; want mode 0400", fi, err)
	}
}

// TestRecoveryKeyConvergence cuts each effect once and expects that the file
// then holds the key that unlocks.
func TestRecoveryKeyConvergence(t *testing.T) {
	for step := 1; ; step++ {
		rig := systest.New(t, systest.Sensible())
		l := newLUKS(rig)
		count := 0
		fault := func(string, string) error {
			if count++; count == step {
				return errors.New("cut")
			}
			return nil
		}
		host := rig.Host
		host.Files = host.Files.WithFault(fault)
		rig.Programs.Model("systemd-cryptenroll", func(ctx context.Context, c sys.Cmd) ([]byte, error) {
			if err := fault("run", c.Name); err != nil {
				return nil, err
			}
			return l.cryptenroll(ctx, c)
		})
		err := seal.EnsureRecoveryKey(t.Context(), host, device, keyFile)
		if step > count {
			return
		}
		if err == nil {
			t.Fatalf("effect %d was cut and nobody noticed", step)
		}
		if err := seal.EnsureRecoveryKey(t.Context(), host, device, keyFile); err != nil {
			t.Fatalf("after effect %d was cut: %v", step, err)
		}
		if b, _ := rig.Host.Files.ReadFile(keyFile); string(b) != l.recovery+"\n" {
			t.Fatalf("after effect %d was cut, the file does not hold the key that unlocks", step)
		}
	}
}

func TestNoErrorShowsAKey(t *testing.T) {
	shown := &sys.ExecError{Name: "systemd-cryptenroll", Code: 1, Stderr: "Opening the device.\nA secret recovery key has been generated for this volume:\n\n" + key(5)}
	tests := map[string]struct {
		out string
		err error
	}{
		"it failed after showing the key": {"", shown},
		"it printed more than a key":      {key(5) + "\n" + key(5), nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			rig := systest.New(t, systest.Sensible())
			rig.Programs.Model("systemd-cryptenroll", func(context.Context, sys.Cmd) ([]byte, error) { return []byte(tt.out), tt.err })
			err := seal.EnsureRecoveryKey(t.Context(), rig.Host, device, keyFile)
			if err == nil || strings.Contains(err.Error(), key(5)[:8]) {
				t.Errorf("EnsureRecoveryKey() = %v; want an error without the key", err)
			}
		})
	}
}

// running returns the seal of a machine whose early boot went as told.
func running(t *testing.T, m systest.Machine, by string) (*systest.Rig, *seal.Seal) {
	t.Helper()
	rig := systest.New(t, m)
	if _, err := systest.NewTrust(rig); err != nil {
		t.Fatal(err)
	}
	write(t, rig, "/run/incus-os/early.json", fmt.Sprintf(`{"mode":"run","unlocked_by":%q}`, by))
	return rig, seal.New(rig.Host, func() bool { return false })
}

func write(t *testing.T, rig *systest.Rig, name, content string) {
	t.Helper()
	if err := rig.Host.Files.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestState(t *testing.T) {
	rig, s := running(t, systest.Sensible(), "tpm")
	cert := certificate(t)
	list, err := uefi.EncodeSignatureLists([]uefi.SignatureList{uefi.X509List(uefi.MicrosoftOwner, cert)})
	if err != nil {
		t.Fatal(err)
	}
	write(t, rig, "/sys/firmware/efi/efivars/db-d719b2cb-3d3a-4596-a3bc-dad00e67656f", "\x27\x00\x00\x00"+string(list))
	write(t, rig, "/var/lib/incus-os/zpool.local.key", "\x00\x01\x02")
	write(t, rig, "/var/lib/incus-os/luks.virtio-data.key", "\x03\x04")

	if err := s.Reconcile(t.Context()); err != nil { // which provides for another db
		t.Fatal(err)
	}
	got, err := s.State()
	if err != nil {
		t.Fatal(err)
	}
	var certs []string
	for _, c := range got.SecureBootCertificates {
		certs = append(certs, c.Type+" "+c.Subject)
	}
	if want := []string{"PK CN=IncusOS PK", "KEK CN=IncusOS KEK", "db CN=test"}; !slices.Equal(certs, want) {
		t.Errorf("certificates are %q, want %q", certs, want)
	}
	got.SecureBootCertificates = nil
	want := api.SystemSecurityState{
		EncryptedVolumes:     []api.EncryptedVolume{{Volume: "root", State: "unlocked (TPM)"}},
		DriveRecoveryKeys:    map[string]api.Secret{"/dev/disk/by-id/virtio-data": "AwQ="},
		PoolRecoveryKeys:     map[string]api.Secret{"local": "AAEC"},
		SecureBootEnabled:    true,
		SystemStateIsTrusted: true,
		SystemStateStatus:    "system state is fully trusted",
		TPMStatus:            api.TPMOK,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("state:\n%+v\nwant:\n%+v", got, want)
	}
	keys, err := s.SavedKeys()
	if err != nil || !slices.Equal(keys, []api.Secret{api.Secret(own(t, rig))}) {
		t.Errorf("recovery keys: %d, %v; want the one in the file", len(keys), err)
	}
	if err := s.Reconcile(t.Context()); err != nil {
		t.Errorf("Reconcile() = %v, want nil", err)
	}
}

func TestDoubts(t *testing.T) {
	noTPM, off := systest.Sensible(), systest.Sensible()
	noTPM.TPM, off.SecureBoot = false, "off"
	tests := map[string]struct {
		machine systest.Machine
		by      string
		status  string
		tpm     api.TPMStatus
	}{
		"recovery key": {systest.Sensible(), "recovery key", "root was unlocked with the recovery key", api.TPMMismatch},
		"no TPM":       {noTPM, "", "there is no TPM 2.0", api.TPMUnavailable},
		"Secure Boot":  {off, "tpm", "Secure Boot is disabled", api.TPMMismatch},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, s := running(t, tt.machine, tt.by)
			got, err := s.State()
			if err != nil || got.SystemStateIsTrusted || got.SystemStateStatus != tt.status || got.TPMStatus != tt.tpm {
				t.Errorf("State() = trusted %t, %q, TPM %q, %v; want %q, TPM %q", got.SystemStateIsTrusted, got.SystemStateStatus, got.TPMStatus, err, tt.status, tt.tpm)
			}
			if err := s.Reconcile(t.Context()); err == nil || !strings.Contains(err.Error(), tt.status) {
				t.Errorf("Reconcile() = %v, want it to say %q", err, tt.status)
			}
		})
	}
}

func certificate(t *testing.T) *x509.Certificate {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}
