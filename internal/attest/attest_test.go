package attest_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/attest"
	"github.com/incusos/incusos/internal/sys/systest"
	"github.com/incusos/incusos/internal/uefi"
)

const kernel = "/EFI/Linux/IncusOS_202601010000.efi"

// A bench is a machine that attests, and what its release is known to measure.
type bench struct {
	rig     *systest.Rig
	trust   *systest.Trust
	nonce   []byte
	release attest.Measurements
}

func newBench(t *testing.T) *bench {
	t.Helper()
	rig := systest.New(t, systest.Sensible())
	trust, err := systest.NewTrust(rig)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{rig: rig, trust: trust, nonce: bytes.Repeat([]byte{7}, 32)}
	uki, err1 := rig.Host.Files.ReadFile(systest.ESP + kernel)
	loader, err2 := rig.Host.Files.ReadFile(systest.ESP + "/EFI/BOOT/BOOTX64.EFI")
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	if b.release, err = attest.Measure("202601010000", bytes.NewReader(uki), int64(len(uki)), loader); err != nil {
		t.Fatal(err)
	}
	return b
}

// ask returns what the machine says of itself.
func (b *bench) ask(t *testing.T, credential []byte) api.Attestation {
	t.Helper()
	tpm, err := b.rig.Host.TPM.Open()
	if err != nil {
		t.Fatal(err)
	}
	a, err := attest.Ask(tpm, b.nonce, credential)
	if err != nil {
		t.Fatal(err)
	}
	files := b.rig.Host.Files
	if a.EventLog, err = files.ReadFile("/sys/kernel/security/tpm0/binary_bios_measurements"); err != nil {
		t.Fatal(err)
	}
	for _, n := range attest.PCRs() {
		text, err := files.ReadFile("/sys/class/tpm/tpm0/pcr-sha256/" + big.NewInt(int64(n)).String())
		if err != nil {
			t.Fatal(err)
		}
		a.PCRs = append(a.PCRs, api.AttestedPCR{PCR: n, Value: strings.TrimSpace(string(text))})
	}
	return a
}

func (b *bench) demands() attest.Demands {
	return attest.Demands{Nonce: b.nonce, Releases: []attest.Measurements{b.release}}
}

func verdict(r attest.Report, what string) attest.Finding {
	for _, f := range r.Findings {
		if f.What == what {
			return f
		}
	}
	return attest.Finding{}
}

func TestGoodMachineIsShown(t *testing.T) {
	b := newBench(t)
	r := attest.Verify(b.ask(t, nil), b.demands())
	if err := r.Refusal(); err != nil {
		t.Fatal(err)
	}
	if r.Version != "202601010000" {
		t.Errorf("the version is %q, want that of the release", r.Version)
	}
	for what, want := range map[string]attest.Verdict{
		"signature": attest.Shown, "nonce": attest.Shown, "registers": attest.Shown, "event log": attest.Shown, "Secure Boot": attest.Shown,
		"kernel image": attest.Shown, "programs": attest.Shown, "additions": attest.Shown,
		"manufacturer": attest.NotShown, "TPM": attest.NotShown, "root": attest.NotShown, "applications": attest.NotShown, "firmware": attest.NotShown,
	} {
		if got := verdict(r, what); got.Verdict != want {
			t.Errorf("%s is %q (%s), want %q", what, got.Verdict, got.Why, want)
		}
	}
}

// The challenge is answered by the TPM with both keys, and by no other.
func TestChallenge(t *testing.T) {
	b := newBench(t)
	challenge, err := attest.NewChallenge(b.ask(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	credential, err := attest.ParseCredential(challenge.Credential)
	if err != nil {
		t.Fatal(err)
	}
	d := b.demands()
	d.Secret = challenge.Secret
	a := b.ask(t, credential)
	r := attest.Verify(a, d)
	if got := verdict(r, "TPM"); got.Verdict != attest.Shown || r.Refusal() != nil {
		t.Errorf("the TPM is %q: %s; %v", got.Verdict, got.Why, r.Refusal())
	}
	a.Activated = strings.Repeat("00", 32)
	if got := verdict(attest.Verify(a, d), "TPM"); got.Verdict != attest.Refused {
		t.Errorf("after a wrong answer the TPM is %q, want it refused", got.Verdict)
	}
	if err := b.trust.ReplaceTPM(); err != nil {
		t.Fatal(err)
	}
	tpm, err := b.rig.Host.TPM.Open()
	if err != nil {
		t.Fatal(err)
	}
	if a, err := attest.Ask(tpm, b.nonce, credential); err == nil {
		t.Errorf("another TPM answered the challenge: %s", a.Activated)
	}
}

// What was known of a machine is demanded of it the next time.
func TestKnownMachine(t *testing.T) {
	b := newBench(t)
	first := attest.Verify(b.ask(t, nil), b.demands())
	d := b.demands()
	d.Key, d.Volume = first.Key, first.Volume
	r := attest.Verify(b.ask(t, nil), d)
	if verdict(r, "TPM").Verdict != attest.Shown || verdict(r, "root").Verdict != attest.Shown || r.Refusal() != nil {
		t.Errorf("the same machine: %+v", r.Findings)
	}
	d.Volume = strings.Repeat("ab", 32)
	if got := verdict(attest.Verify(b.ask(t, nil), d), "root"); got.Verdict != attest.Refused {
		t.Errorf("another root volume is %q, want it refused", got.Verdict)
	}
	if err := b.trust.ReplaceTPM(); err != nil {
		t.Fatal(err)
	}
	if got := verdict(attest.Verify(b.ask(t, nil), d), "TPM"); got.Verdict != attest.Refused {
		t.Errorf("another TPM is %q, want it refused", got.Verdict)
	}
}

func TestHostileAttestationsAreRefused(t *testing.T) {
	other := func(t *testing.T, b *bench) api.Attestation {
		t.Helper()
		if err := b.trust.ReplaceTPM(); err != nil {
			t.Fatal(err)
		}
		return b.ask(t, nil)
	}
	tests := map[string]hostile{
		"another nonce": {func(_ *testing.T, _ *bench, _ *api.Attestation, d *attest.Demands) {
			d.Nonce = bytes.Repeat([]byte{8}, 32)
		}, "nonce", "for another nonce"},
		"no nonce": {func(_ *testing.T, _ *bench, _ *api.Attestation, d *attest.Demands) { d.Nonce = nil }, "nonce", "want at least 16"},
		"a nonce put into the quote": {func(_ *testing.T, b *bench, a *api.Attestation, d *attest.Demands) {
			d.Nonce = bytes.Repeat([]byte{8}, 32)
			a.Quote = bytes.Replace(a.Quote, b.nonce, d.Nonce, 1)
		}, "signature", "not one of the attestation key's"},
		"a changed register": {func(_ *testing.T, _ *bench, a *api.Attestation, _ *attest.Demands) {
			a.PCRs[8].Value = strings.Repeat("00", 32)
		}, "registers", "not those that the TPM quoted"},
		"a missing register": {func(_ *testing.T, _ *bench, a *api.Attestation, _ *attest.Demands) { a.PCRs = a.PCRs[1:] }, "registers", "its value is missing"},
		"many registers": {func(_ *testing.T, _ *bench, a *api.Attestation, _ *attest.Demands) {
			a.PCRs = make([]api.AttestedPCR, 25)
		}, "registers", "there are 25 values"},
		"no register": {func(_ *testing.T, _ *bench, a *api.Attestation, _ *attest.Demands) { a.PCRs[0].Value = "x" }, "registers", `PCR 0 is "x"`},
		"a foreign key": {func(t *testing.T, b *bench, a *api.Attestation, _ *attest.Demands) {
			a.AttestationKey = other(t, b).AttestationKey
		}, "signature", "not one of the attestation key's"},
		"a key in software": {func(t *testing.T, _ *bench, a *api.Attestation, _ *attest.Demands) { inSoftware(t, a) }, "signature", "may leave its TPM"},
		"a key with a tail": {func(_ *testing.T, _ *bench, a *api.Attestation, _ *attest.Demands) {
			a.AttestationKey = append(a.AttestationKey, 0)
		}, "signature", "followed by something"},
		"no key": {func(_ *testing.T, _ *bench, a *api.Attestation, _ *attest.Demands) { a.AttestationKey = nil }, "signature", "has 0 bytes"},
		"a long key": {func(_ *testing.T, _ *bench, a *api.Attestation, _ *attest.Demands) {
			a.AttestationKey = make([]byte, 5000)
		}, "signature", "has 5000 bytes"},
		"a long signature": {func(_ *testing.T, _ *bench, a *api.Attestation, _ *attest.Demands) {
			a.Signature = append(a.Signature, make([]byte, 5000)...)
		}, "signature", "want at most 4096"},
		"a signature with a tail": {func(_ *testing.T, _ *bench, a *api.Attestation, _ *attest.Demands) {
			a.Signature = append(a.Signature, 1)
		}, "signature", "not one of"},
	}
	for name, tt := range tests {
		t.Run(name, tt.run)
	}
}

func TestLogsAndCertificatesThatLieAreRefused(t *testing.T) {
	tests := map[string]hostile{
		"a cut log": {func(_ *testing.T, _ *bench, a *api.Attestation, _ *attest.Demands) {
			a.EventLog = a.EventLog[:len(a.EventLog)/2]
		}, "event log", "cannot be read to its end"},
		"no log": {func(_ *testing.T, _ *bench, a *api.Attestation, _ *attest.Demands) { a.EventLog = nil }, "event log", "its beginning takes"},
		"a long log": {func(_ *testing.T, _ *bench, a *api.Attestation, _ *attest.Demands) {
			a.EventLog = make([]byte, 16<<20+1)
		}, "event log", "want at most"},
		"a log without an event": {func(t *testing.T, _ *bench, a *api.Attestation, _ *attest.Demands) {
			events := eventsOf(t, a)
			a.EventLog = uefi.EncodeEventLog(events[:len(events)-3])
		}, "event log", "does not lead to what the TPM holds"},
		"a log that lies about Secure Boot": {func(t *testing.T, _ *bench, a *api.Attestation, _ *attest.Demands) {
			lie(t, a, func(e uefi.Event) bool { return e.PCR == 7 && e.Type == uefi.EventVariable })
		}, "Secure Boot", "in a way of its own"},
		"a log that hides a program": {func(t *testing.T, _ *bench, a *api.Attestation, d *attest.Demands) {
			d.Releases[0].Loader = ""
			events := eventsOf(t, a)
			for i := range events {
				if events[i].PCR == 4 && events[i].Type == uefi.EventApplication {
					events[i].Type, events[i].Data = uefi.EventEFIAction, []byte("nothing of note")
					break
				}
			}
			a.EventLog = uefi.EncodeEventLog(events)
		}, "programs", "something else was started"},
		"another release": {func(_ *testing.T, _ *bench, _ *api.Attestation, d *attest.Demands) {
			d.Releases[0].PCR11 = strings.Repeat("11", 32)
		}, "kernel image", "none of the releases"},
		"another kernel image before it": {func(_ *testing.T, _ *bench, _ *api.Attestation, d *attest.Demands) {
			d.Releases[0].UKI = strings.Repeat("11", 32)
		}, "programs", "something else was started"},
		"a certificate of another key": {func(t *testing.T, _ *bench, a *api.Attestation, _ *attest.Demands) {
			a.EndorsementCertificates = [][]byte{certify(t, newKey(t).Public())}
		}, "manufacturer", "none of the certificates"},
		"a certificate of nobody": {func(t *testing.T, _ *bench, a *api.Attestation, d *attest.Demands) {
			a.EndorsementCertificates = [][]byte{certify(t, endorsement(t, *a))}
			d.Makers = x509.NewCertPool()
		}, "manufacturer", "unknown authority"},
		"many certificates": {func(_ *testing.T, _ *bench, a *api.Attestation, _ *attest.Demands) {
			a.EndorsementCertificates = make([][]byte, 9)
		}, "manufacturer", "want at most 8"},
	}
	for name, tt := range tests {
		t.Run(name, tt.run)
	}
}

// A hostile attestation, and what is said of it.
type hostile struct {
	change func(t *testing.T, b *bench, a *api.Attestation, d *attest.Demands)
	what   string
	want   string
}

func (h hostile) run(t *testing.T) {
	b := newBench(t)
	a, d := b.ask(t, nil), b.demands()
	h.change(t, b, &a, &d)
	r := attest.Verify(a, d)
	if got := verdict(r, h.what); got.Verdict != attest.Refused || !strings.Contains(got.Why, h.want) {
		t.Errorf("%s is %q: %q; want it refused with %q", h.what, got.Verdict, got.Why, h.want)
	}
	if r.Refusal() == nil {
		t.Error("nothing is refused in the whole")
	}
}

// What the firmware starts by itself, or was given, shows in registers that no release has.
func TestMachinesThatStartedSomethingElse(t *testing.T) {
	tests := map[string]struct {
		change func(t *testing.T, b *bench)
		what   string
		want   string
	}{
		"Secure Boot off": {func(t *testing.T, b *bench) {
			if err := b.trust.SetVariable("SecureBoot", []byte{0}); err != nil {
				t.Fatal(err)
			}
			if _, err := b.trust.Restart(); err != nil {
				t.Fatal(err)
			}
		}, "Secure Boot", "it was off"},
		"a command line from outside": {func(t *testing.T, b *bench) {
			if err := b.rig.Host.Files.WriteFile("/sys/class/tpm/tpm0/pcr-sha256/12", []byte(strings.Repeat("12", 32)), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "additions", "PCR 12 is not empty"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			tt.change(t, b)
			if got := verdict(attest.Verify(b.ask(t, nil), b.demands()), tt.what); got.Verdict != attest.Refused || !strings.Contains(got.Why, tt.want) {
				t.Errorf("%s is %q: %q; want it refused with %q", tt.what, got.Verdict, got.Why, tt.want)
			}
		})
	}
}

func TestCertificateOfTheMaker(t *testing.T) {
	b := newBench(t)
	a, d := b.ask(t, nil), b.demands()
	der := certify(t, endorsement(t, a))
	a.EndorsementCertificates = [][]byte{[]byte("no certificate"), der}
	if got := verdict(attest.Verify(a, d), "manufacturer"); got.Verdict != attest.NotShown || !strings.Contains(got.Why, "was not checked") {
		t.Errorf("without makers it is %q: %s", got.Verdict, got.Why)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	d.Makers = x509.NewCertPool()
	d.Makers.AddCert(cert)
	if got := verdict(attest.Verify(a, d), "manufacturer"); got.Verdict != attest.Shown {
		t.Errorf("with its maker it is %q: %s", got.Verdict, got.Why)
	}
}

func TestNonces(t *testing.T) {
	for text, ok := range map[string]bool{
		"": false, "00": false, strings.Repeat("0", 31): false, strings.Repeat("0", 32): true, strings.Repeat("f", 64): true,
		strings.Repeat("0", 66): false, strings.Repeat("x", 32): false,
	} {
		if _, err := attest.ParseNonce(text); (err == nil) != ok {
			t.Errorf("ParseNonce(%q) = %v, want it taken: %v", text, err, ok)
		}
	}
}

func TestMeasurementsAreRefused(t *testing.T) {
	good := attest.Measurements{UKI: strings.Repeat("00", 32), PCR11: strings.Repeat("00", 32)}
	for name, change := range map[string]func(*attest.Measurements){
		"no kernel":      func(m *attest.Measurements) { m.UKI = "" },
		"a short digest": func(m *attest.Measurements) { m.PCR11 = "00" },
		"no digest":      func(m *attest.Measurements) { m.Loader = "zz" },
	} {
		m := good
		change(&m)
		text, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := attest.ParseMeasurements(text); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	text, err := json.Marshal(good)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := attest.ParseMeasurements(text); err != nil {
		t.Errorf("good ones are not taken: %v", err)
	}
}

func FuzzVerify(f *testing.F) {
	f.Add([]byte(`{"nonce":"00","quote":"/1RDRw==","signature":"ABgACw==","attestation_key":"ACM=","pcrs":[{"pcr":0,"value":"00"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var a api.Attestation
		if json.Unmarshal(text, &a) != nil {
			return
		}
		if attest.Verify(a, attest.Demands{Nonce: make([]byte, 32)}).Refusal() == nil {
			t.Error("something that no TPM has signed is taken")
		}
	})
}

// What takes a quote, a key or a credential apart takes anything without falling over.
func FuzzStructures(f *testing.F) {
	f.Add([]byte("\xffTCG\x80\x18\x00\x00\x00\x00"))
	f.Add(tpm2.Marshal(tpm2.ECCEKTemplate))
	f.Add(tpm2.Marshal(tpm2.RSAEKTemplate))
	f.Add(attest.JoinCredential([]byte("blob"), []byte("secret")))
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = attest.ParseQuote(b)
		_ = attest.ReadKey(b)
		if blob, secret, err := attest.SplitCredential(b); err == nil && !bytes.Equal(attest.JoinCredential(blob, secret), b) {
			t.Errorf("%x is another credential after it was taken apart", b)
		}
	})
}

func eventsOf(t *testing.T, a *api.Attestation) []uefi.Event {
	t.Helper()
	events, err := uefi.ParseEventLog(a.EventLog)
	if err != nil {
		t.Fatal(err)
	}
	return events
}

// lie changes what the log says of the first event that is meant, and not its digest.
func lie(t *testing.T, a *api.Attestation, meant func(uefi.Event) bool) {
	t.Helper()
	events := eventsOf(t, a)
	i := slices.IndexFunc(events, meant)
	data := slices.Clone(events[i].Data)
	data[len(data)-1] ^= 1
	events[i].Data = data
	a.EventLog = uefi.EncodeEventLog(events)
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// inSoftware signs the quote of a with a key that is in no TPM.
func inSoftware(t *testing.T, a *api.Attestation) {
	t.Helper()
	key := newKey(t)
	raw, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](a.AttestationKey)
	if err != nil {
		t.Fatal(err)
	}
	public.ObjectAttributes.Restricted = false
	public.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{X: tpm2.TPM2BECCParameter{Buffer: raw[1:33]}, Y: tpm2.TPM2BECCParameter{Buffer: raw[33:]}})
	sum := sha256.Sum256(a.Quote)
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	a.AttestationKey = tpm2.Marshal(public)
	a.Signature = tpm2.Marshal(tpm2.TPMTSignature{SigAlg: tpm2.TPMAlgECDSA, Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgECDSA, &tpm2.TPMSSignatureECC{
		Hash: tpm2.TPMAlgSHA256, SignatureR: tpm2.TPM2BECCParameter{Buffer: r.Bytes()}, SignatureS: tpm2.TPM2BECCParameter{Buffer: s.Bytes()},
	})})
}

func endorsement(t *testing.T, a api.Attestation) any {
	t.Helper()
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](a.EndorsementKey)
	if err != nil {
		t.Fatal(err)
	}
	key, err := tpm2.Pub(*public)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// certify makes a certificate of a key, by a manufacturer that nobody knows yet.
func certify(t *testing.T, key any) []byte {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "TPM maker"}, NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true, IsCA: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key, newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	return der
}
