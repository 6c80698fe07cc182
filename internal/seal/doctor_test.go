package seal_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"testing"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/seal"
	"github.com/incusos/incusos/internal/sys/systest"
	"github.com/incusos/incusos/internal/uefi"
)

// trusted returns an installed machine that has started by itself, and its seal.
func trusted(t *testing.T) (*systest.Rig, *systest.Trust, *seal.Seal) {
	t.Helper()
	rig := systest.New(t, systest.Sensible())
	trust, err := systest.NewTrust(rig)
	if err != nil {
		t.Fatal(err)
	}
	return rig, trust, seal.New(rig.Host, func() bool { return true })
}

func signer(t *testing.T, name string) uefi.Signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: name}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return uefi.Signer{Key: key, Certificate: cert}
}

func pretendSigner(t *testing.T, name string) uefi.Signer {
	t.Helper()
	s, err := systest.PretendSigner(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func lists(t *testing.T, certs ...*x509.Certificate) []byte {
	t.Helper()
	var all []uefi.SignatureList
	for _, c := range certs {
		all = append(all, uefi.X509List(uefi.MicrosoftOwner, c))
	}
	b, err := uefi.EncodeSignatureLists(all)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func examine(t *testing.T, s *seal.Seal) api.SecureBootDoctor {
	t.Helper()
	d, err := s.Doctor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestDoctorKnowsTheNextStart changes something, asks the doctor, restarts, and
// expects what was said to be what happens.
func TestDoctorKnowsTheNextStart(t *testing.T) {
	other := signer(t, "another db")
	db := pretendSigner(t, "db")
	tests := map[string]struct {
		change  func(*systest.Rig, *systest.Trust) error
		unlocks bool
		starts  bool
		says    string
	}{
		"nothing":     {func(*systest.Rig, *systest.Trust) error { return nil }, true, true, "The next start unlocks root by itself, with /EFI/Linux/IncusOS_202601010000.efi."},
		"a new image": {func(_ *systest.Rig, m *systest.Trust) error { return m.PutKernel("202602020000", db) }, true, true, "The next start unlocks root by itself, with /EFI/Linux/IncusOS_202602020000.efi."},
		"dbx":         {func(_ *systest.Rig, m *systest.Trust) error { return m.SetVariable("dbx", lists(t, other.Certificate)) }, false, true, "PCR 7 is another"},
		"db": {func(_ *systest.Rig, m *systest.Trust) error {
			return m.SetVariable("db", lists(t, db.Certificate, other.Certificate))
		}, false, true, "PCR 7 is another"},
		"Secure Boot off": {func(_ *systest.Rig, m *systest.Trust) error { return m.SetVariable("SecureBoot", []byte{0}) }, false, true, "PCR 7 is another"},
		"an image by a new key": {func(_ *systest.Rig, m *systest.Trust) error {
			return errors.Join(m.SetVariable("db", lists(t, db.Certificate, other.Certificate)), m.PutKernel("202602020000", other))
		}, false, true, "PCR 7 is another"},
		"an image by a stranger": {func(_ *systest.Rig, m *systest.Trust) error { return m.PutKernel("202602020000", other) }, false, false, `the firmware will not start it: db has no certificate for "CN=another db", who has signed it`},
		"an image by nobody":     {func(_ *systest.Rig, m *systest.Trust) error { return m.PutKernel("202602020000") }, false, false, "the firmware will not start it: nobody has signed it"},
		"a revoked key": {func(_ *systest.Rig, m *systest.Trust) error {
			return m.SetVariable("dbx", lists(t, db.Certificate))
		}, false, false, "the firmware will not start it: dbx lists the certificate \"CN=IncusOS db\" that it is signed with: it was revoked"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			rig, trust, s := trusted(t)
			if err := tt.change(rig, trust); err != nil {
				t.Fatal(err)
			}
			d := examine(t, s)
			if d.Unlocks != tt.unlocks || d.Kernels[0].Starts != tt.starts || !strings.Contains(d.Verdict, tt.says) {
				t.Errorf("unlocks %v, starts %v, %q", d.Unlocks, d.Kernels[0].Starts, d.Verdict)
			}
			if serious := len(d.Findings) > 0 && d.Findings[0].Serious; serious == tt.unlocks {
				t.Errorf("findings are %+v", d.Findings)
			}
			for _, f := range d.Findings {
				if f.Do == "" {
					t.Errorf("%q has no way out", f.What)
				}
			}
			if !tt.starts {
				return
			}
			by, err := trust.Restart()
			if err != nil || (by == "tpm") != tt.unlocks {
				t.Errorf("it was unlocked by %q, %v", by, err)
			}
			seven, err := rig.Host.Files.ReadFile("/sys/class/tpm/tpm0/pcr-sha256/7")
			if err != nil || d.Kernels[0].PCR7 != strings.ToLower(strings.TrimSpace(string(seven))) {
				t.Errorf("PCR 7 was predicted as %s and is %s, %v", d.Kernels[0].PCR7, seven, err)
			}
		})
	}
}

func TestDoctorOfAHealthyMachine(t *testing.T) {
	_, _, s := trusted(t)
	d := examine(t, s)
	if len(d.Findings) != 0 || len(d.Bindings) != 1 || d.Bindings[0].Now != "" || d.Bindings[0].Next != "" || d.Bindings[0].PIN {
		t.Errorf("findings %+v, bindings %+v", d.Findings, d.Bindings)
	}
	if len(d.Kernels) != 1 || !d.Kernels[0].Running || d.Kernels[0].Version != "202601010000" || d.Kernels[0].Signer != "CN=IncusOS db" {
		t.Errorf("kernels %+v", d.Kernels)
	}
	for _, c := range d.Certificates {
		if !c.Ours {
			t.Errorf("%s %s should be ours", c.Type, c.Subject)
		}
	}
	if len(d.Certificates) != 3 || len(d.PCRs) != 2 {
		t.Errorf("%d certificates, %d registers", len(d.Certificates), len(d.PCRs))
	}
	for _, p := range d.PCRs {
		if p.Measured != p.Replayed || p.Measured != p.Expected || len(p.Measured) != 64 {
			t.Errorf("PCR %d: %+v", p.PCR, p)
		}
	}
	var about []string
	for _, e := range d.Events {
		if e.Measured != e.Expected || e.LastGood != "" {
			t.Errorf("event %+v", e)
		}
		about = append(about, e.About)
	}
	for _, want := range []string{"variable db", `program \EFI\BOOT\BOOTX64.EFI`, "entry of db that vouched for a program: CN=IncusOS db"} {
		if !strings.Contains(strings.Join(about, "\n"), want) {
			t.Errorf("events are about %q, want %q among them", about, want)
		}
	}
}

func TestDoctorShowsWhichEventDiffers(t *testing.T) {
	_, trust, s := trusted(t)
	if err := trust.SetVariable("dbx", lists(t, signer(t, "x").Certificate)); err != nil {
		t.Fatal(err)
	}
	var differ []string
	for _, e := range examine(t, s).Events {
		if e.Measured != e.Expected {
			differ = append(differ, e.About)
		}
	}
	if len(differ) != 1 || differ[0] != "variable dbx" {
		t.Errorf("events that differ: %q, want that of dbx", differ)
	}
}

// After a start that took the recovery key, the last good one tells what was changed.
func TestDoctorComparesWithTheLastGoodStart(t *testing.T) {
	_, trust, s := trusted(t)
	if err := s.Reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := trust.SetVariable("KEK", lists(t, signer(t, "x").Certificate)); err != nil {
		t.Fatal(err)
	}
	if by, err := trust.Restart(); by != "recovery key" || err != nil {
		t.Fatal(by, err)
	}
	if err := s.Reconcile(t.Context()); err == nil {
		t.Error("nobody complains of a start with the recovery key")
	}
	d := examine(t, s)
	var found []string
	for _, f := range d.Findings {
		found = append(found, f.What)
	}
	text := strings.Join(found, "\n")
	if !strings.Contains(text, "changed since the last start that unlocked by itself: variable KEK") || strings.Contains(text, "variable PK") {
		t.Errorf("findings are\n%s", text)
	}
	if !strings.Contains(text, "KEK lacks the certificate \"CN=IncusOS KEK\"") {
		t.Errorf("findings are\n%s", text)
	}
}

func TestDoctorOfAnotherTPM(t *testing.T) {
	_, trust, s := trusted(t)
	if err := trust.ReplaceTPM(); err != nil {
		t.Fatal(err)
	}
	if by, err := trust.Restart(); by != "recovery key" || err != nil {
		t.Fatal(by, err)
	}
	if d := examine(t, s); d.Unlocks || !strings.Contains(d.Verdict, "another TPM") {
		t.Errorf("verdict %q", d.Verdict)
	}
}

func TestDoctorSaysWhenItCannotTell(t *testing.T) {
	rig, _, s := trusted(t)
	write(t, rig, "/sys/class/tpm/tpm0/pcr-sha256/7", strings.Repeat("ab", 32)+"\n")
	d := examine(t, s)
	if d.Unlocks || !strings.Contains(d.Verdict, "it cannot be told: the event log does not lead to what the TPM holds in PCR 7") {
		t.Errorf("verdict %q", d.Verdict)
	}
	if err := rig.Host.Files.RemoveAll("/sys/kernel/security/tpm0"); err != nil {
		t.Fatal(err)
	}
	if d := examine(t, s); d.Unlocks || !strings.Contains(d.Verdict, "the firmware left no log") {
		t.Errorf("verdict %q", d.Verdict)
	}
}

// The words of the doctor are those on the screen of a machine that does not unlock.
func TestScreenSaysWhatTheDoctorSays(t *testing.T) {
	rig, trust, s := trusted(t)
	if err := trust.SetVariable("dbx", lists(t, signer(t, "x").Certificate)); err != nil {
		t.Fatal(err)
	}
	why := examine(t, s).Kernels[0].Why
	if by, err := trust.Restart(); by != "recovery key" || err != nil {
		t.Fatal(by, err)
	}
	l := newLUKS(rig)
	l.tpm = unsealed
	var shown string
	_, err := seal.Unlock(t.Context(), rig.Host, device, func(prompt string) (string, error) {
		shown = prompt
		return "", errors.New("nobody is here")
	})
	if err == nil || why == "" || !strings.Contains(shown, why) {
		t.Errorf("the screen says %q, the doctor %q", shown, why)
	}
	if _, err := hex.DecodeString(examine(t, s).PCRs[0].Measured); err != nil {
		t.Error(err)
	}
}

func certificatePEM(t *testing.T) string {
	t.Helper()
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate(t).Raw}))
}
