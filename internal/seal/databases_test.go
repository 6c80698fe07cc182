package seal_test

import (
	"archive/tar"
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/incusos/incusos/internal/seal"
	"github.com/incusos/incusos/internal/sys/systest"
	"github.com/incusos/incusos/internal/uefi"
)

// archive makes an archive of files by their names.
func archive(t testing.TB, files map[string][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, content := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// addition is an update that adds a certificate to a variable.
func addition(t *testing.T, name string, by, of uefi.Signer) []byte {
	t.Helper()
	v, err := uefi.SecureBootVariable(name)
	if err != nil {
		t.Fatal(err)
	}
	b, err := uefi.SignUpdate(v.Appending(), time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), lists(t, of.Certificate), by)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestKeyRotation goes from one db key to the next, end to end, with a restart after
// each step, and never needs a recovery key.
func TestKeyRotation(t *testing.T) {
	rig, trust, s := trusted(t)
	kek, old, next := pretendSigner(t, "KEK"), pretendSigner(t, "db"), signer(t, "db 2")
	add := archive(t, map[string][]byte{"db_1.auth": addition(t, "db", kek, next)})
	revoke := archive(t, map[string][]byte{"dbx_1.auth": addition(t, "dbx", kek, old)})
	boots := func(what string) {
		t.Helper()
		if d := examine(t, s); !d.Unlocks {
			t.Fatalf("%s: the doctor says %q", what, d.Verdict)
		}
		for _, file := range []string{"rebound", "provided"} {
			if err := rig.Host.Files.RemoveAll("/run/incus-os/" + file); err != nil {
				t.Fatal(err)
			}
		}
		restart(t, trust, "tpm")
		if err := s.Reconcile(t.Context()); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if h, err := trust.Header(); err != nil || len(h.TPM2Tokens()) != 1 {
			t.Fatalf("%s: root is bound %d times, %v", what, len(h.TPM2Tokens()), err)
		}
	}
	image := func(version string) error {
		if err := trust.PutKernel(version, next); err != nil {
			t.Fatal(err)
		}
		b, err := rig.Host.Files.ReadFile(systest.ESP + "/EFI/Linux/IncusOS_" + version + ".efi")
		if err != nil {
			t.Fatal(err)
		}
		if err := rig.Host.Files.Remove(systest.ESP + "/EFI/Linux/IncusOS_" + version + ".efi"); err != nil {
			t.Fatal(err)
		}
		err = s.Provide(t.Context(), bytes.NewReader(b), int64(len(b)))
		if err == nil {
			err = rig.Host.Files.WriteFile(systest.ESP+"/EFI/Linux/IncusOS_"+version+".efi", b, 0o600)
		}
		return err
	}
	if err := image("202602020000"); err == nil || !strings.Contains(err.Error(), `the firmware will not start the image: db has no certificate for "CN=db 2"`) {
		t.Fatalf("an image of the new key, before it is in db: %v", err)
	}
	if err := s.UpdateDatabases(t.Context(), revoke); err == nil || !strings.Contains(err.Error(), "dbx_1.auth: it would keep /EFI/Linux/IncusOS_202601010000.efi from being started, which is in use") {
		t.Fatalf("the old key revoked too early: %v", err)
	}
	if err := s.UpdateDatabases(t.Context(), add); err != nil {
		t.Fatal(err)
	}
	if err := s.UpdateDatabases(t.Context(), add); kind(err) != "conflict" || !strings.Contains(err.Error(), "have been applied") {
		t.Errorf("once more: %v", err)
	}
	boots("db has both")
	if err := image("202602020000"); err != nil {
		t.Fatal(err)
	}
	if err := s.Reconcile(t.Context()); err != nil { // which must not take away what was provided
		t.Fatal(err)
	}
	boots("an image of the new key")
	if err := rig.Host.Files.Remove(systest.ESP + "/EFI/Linux/IncusOS_202601010000.efi"); err != nil {
		t.Fatal(err)
	}
	if err := s.UpdateDatabases(t.Context(), revoke); err == nil || !strings.Contains(err.Error(), "it would keep /EFI/BOOT/BOOTX64.EFI from being started") {
		t.Fatalf("the loader is of the old key still: %v", err)
	}
	if err := trust.PutLoader(next); err != nil {
		t.Fatal(err)
	}
	kernel, err := rig.Host.Files.ReadFile(systest.ESP + "/EFI/Linux/IncusOS_202602020000.efi")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Provide(t.Context(), bytes.NewReader(kernel), int64(len(kernel))); err != nil {
		t.Fatal(err)
	}
	boots("a loader of the new key")
	if err := s.UpdateDatabases(t.Context(), revoke); err != nil {
		t.Fatal(err)
	}
	boots("the old key is revoked")
}

func TestUpdatesAreRefused(t *testing.T) {
	kek, stranger, other := pretendSigner(t, "KEK"), signer(t, "stranger"), signer(t, "other")
	good := addition(t, "db", kek, other)
	tests := map[string]struct {
		archive []byte
		prepare func(*systest.Rig, *systest.Trust, *seal.Seal) error
		want    string
	}{
		"no archive":     {[]byte("hello"), nil, "the updates are no tar archive"},
		"nothing":        {archive(t, nil), nil, "the archive holds no updates; want files such as db_4f1a.auth"},
		"PK":             {archive(t, map[string][]byte{"PK_1.auth": good}), nil, "PK_1.auth: its name is that of no update"},
		"half an update": {archive(t, map[string][]byte{"db_1.auth": good[:100]}), nil, "db_1.auth: header of the update: certificate says it is"},
		"by a stranger":  {archive(t, map[string][]byte{"db_1.auth": addition(t, "db", stranger, other)}), nil, "db_1.auth: it is no update that adds to db, signed with a key in KEK"},
		"for another":    {archive(t, map[string][]byte{"dbx_1.auth": good}), nil, "dbx_1.auth: it is no update that adds to dbx"},
		"far too long":   {archive(t, map[string][]byte{"db_1.auth": make([]byte, 65<<10)}), nil, "db_1.auth: 66560 bytes in file 1; want at most 65536"},
		"Secure Boot off": {archive(t, map[string][]byte{"db_1.auth": good}), func(_ *systest.Rig, m *systest.Trust, _ *seal.Seal) error {
			return m.SetVariable("SecureBoot", []byte{0})
		}, "Secure Boot is off"},
		"before a restart": {archive(t, map[string][]byte{"db_1.auth": good}), func(_ *systest.Rig, m *systest.Trust, _ *seal.Seal) error {
			return m.SetVariable("dbx", lists(t, other.Certificate))
		}, "restart the machine before the next one"},
		"with a PIN": {archive(t, map[string][]byte{"db_1.auth": good}), func(_ *systest.Rig, _ *systest.Trust, s *seal.Seal) error { return s.SetPIN(t.Context(), "314159") }, "this machine asks for a PIN"},
		"a log that lies": {archive(t, map[string][]byte{"db_1.auth": good}), func(r *systest.Rig, _ *systest.Trust, _ *seal.Seal) error {
			return r.Host.Files.WriteFile("/sys/class/tpm/tpm0/pcr-sha256/4", []byte(strings.Repeat("ab", 32)), 0o600)
		}, "what the next start will measure cannot be told"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			rig, trust, s := trusted(t)
			if tt.prepare != nil {
				if err := tt.prepare(rig, trust, s); err != nil {
					t.Fatal(err)
				}
			}
			before, err := trust.Header()
			if err != nil {
				t.Fatal(err)
			}
			if err := s.UpdateDatabases(t.Context(), tt.archive); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("said %v, want %q", err, tt.want)
			}
			if after, err := trust.Header(); err != nil || len(after.Tokens) != len(before.Tokens) {
				t.Errorf("root was bound %d times and is %d, %v", len(before.Tokens), len(after.Tokens), err)
			}
		})
	}
}

// One variable is changed for each start, in the order that firmware needs.
func TestUpdatesAreAppliedOneByOne(t *testing.T) {
	_, trust, s := trusted(t)
	kek, db := pretendSigner(t, "KEK"), signer(t, "db 2")
	updates := archive(t, map[string][]byte{"dbx_1.auth": addition(t, "dbx", kek, signer(t, "evil")), "db_1.auth": addition(t, "db", kek, db)})
	for _, want := range []string{"db", "dbx"} {
		if err := s.UpdateDatabases(t.Context(), updates); err != nil {
			t.Fatal(err)
		}
		if err := s.UpdateDatabases(t.Context(), updates); kind(err) != "conflict" {
			t.Errorf("twice before a restart: %v", err)
		}
		restart(t, trust, "tpm")
		if err := s.Reconcile(t.Context()); err != nil {
			t.Fatal(err)
		}
		if d := examine(t, s); !d.Unlocks {
			t.Errorf("after %s: %q", want, d.Verdict)
		}
	}
}

// A cut anywhere between binding and telling the firmware: either start unlocks.
func TestUpdateSurvivesCuts(t *testing.T) {
	update := archive(t, map[string][]byte{"db_1.auth": addition(t, "db", pretendSigner(t, "KEK"), signer(t, "db 2"))})
	for at := 1; ; at++ {
		rig, trust, s := trusted(t)
		cutter := &systest.Cutter{At: at, Power: true, Late: at%2 == 0}
		err := seal.New(cutter.Host(rig.Host), func() bool { return true }).UpdateDatabases(t.Context(), update)
		if cutter.Over() {
			return
		}
		if err == nil {
			t.Fatalf("effect %d was cut and nobody noticed", at)
		}
		restart(t, trust, "tpm")
		if err := s.Reconcile(t.Context()); err != nil {
			t.Fatalf("after a cut at %d: %v", at, err)
		}
	}
}

func FuzzReadUpdates(f *testing.F) {
	f.Add(archive(f, map[string][]byte{"db_1.auth": []byte("x")}))
	rig := systest.New(f, systest.Sensible())
	s := seal.New(rig.Host, func() bool { return true })
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := s.UpdateDatabases(t.Context(), b); err == nil {
			t.Error("something that nobody signed was applied")
		}
	})
}
