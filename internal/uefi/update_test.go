package uefi_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/incusos/incusos/internal/uefi"
)

func TestSignedUpdateIsAccepted(t *testing.T) {
	kek := newSigner(t, "KEK")

	rapid.Check(t, func(t *rapid.T) {
		v := drawVariable(t)
		payload := rapid.SliceOf(rapid.Byte()).Draw(t, "payload")
		at := time.Unix(rapid.Int64Range(-2208988800, 253402300799).Draw(t, "time"), 0).UTC() // 1900 to 9999

		b, err := uefi.SignUpdate(v, at, payload, kek)
		if err != nil {
			t.Fatal(err)
		}
		u, err := uefi.ParseUpdate(b)
		if err != nil {
			t.Fatal(err)
		}
		if !u.Time.Equal(at) || !bytes.Equal(u.Payload, payload) {
			t.Errorf("reads as %v %x, want %v %x", u.Time, u.Payload, at, payload)
		}
		if err := u.Verify(v, []*x509.Certificate{kek.Certificate}); err != nil {
			t.Error(err)
		}
	})
}

func TestTamperedUpdateIsRefused(t *testing.T) {
	kek := newSigner(t, "KEK")
	db := variable(t, "db")
	b, err := uefi.SignUpdate(db, time.Unix(1e9, 0), []byte("signature lists"), kek)
	if err != nil {
		t.Fatal(err)
	}

	rapid.Check(t, func(t *rapid.T) {
		bad := slices.Clone(b)
		at := rapid.IntRange(0, len(bad)-1).Draw(t, "offset")
		bad[at] ^= rapid.ByteRange(1, 255).Draw(t, "flip")

		u, err := uefi.ParseUpdate(bad)
		if err != nil {
			return
		}
		if err := u.Verify(db, []*x509.Certificate{kek.Certificate}); err == nil && !sameUpdate(bad, b) {
			t.Errorf("accepted with byte %d changed to %#x", at, bad[at])
		}
	})
}

// sameUpdate reports whether two files give the same time and payload: not all
// of the wrapping is covered by the signature.
func sameUpdate(a, b []byte) bool {
	x, _ := uefi.ParseUpdate(a)
	y, _ := uefi.ParseUpdate(b)
	return x.Time.Equal(y.Time) && bytes.Equal(x.Payload, y.Payload)
}

func TestUpdateIsBoundToItsVariable(t *testing.T) {
	kek, other := newSigner(t, "KEK"), newSigner(t, "other")
	db := variable(t, "db")
	b, err := uefi.SignUpdate(db, time.Unix(1e9, 0), nil, kek)
	if err != nil {
		t.Fatal(err)
	}
	u, err := uefi.ParseUpdate(b)
	if err != nil {
		t.Fatal(err)
	}

	tests := map[string]struct {
		v       uefi.Variable
		trusted []*x509.Certificate
		want    string // part of the refusal; "" means accepted
	}{
		"the variable it is for":      {db, certs(kek), ""},
		"the right one of two":        {db, certs(other, kek), ""},
		"another variable":            {variable(t, "dbx"), certs(kek), "is not one of this variable"},
		"appending":                   {db.Appending(), certs(kek), "is not one of this variable"},
		"a signer who is not trusted": {db, certs(other), `signer "CN=KEK" is not trusted`},
		"nobody is trusted":           {db, nil, `signer "CN=KEK" is not trusted`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := u.Verify(tt.v, tt.trusted)
			if tt.want == "" && err != nil || !strings.Contains(text(err), tt.want) {
				t.Errorf("Verify said %q, want %q", text(err), tt.want)
			}
		})
	}
}

func TestSignUpdateRefuses(t *testing.T) {
	kek, other := newSigner(t, "KEK"), newSigner(t, "other")
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}

	tests := map[string]struct {
		at   time.Time
		by   uefi.Signer
		want string
	}{
		"a year before 1900":          {time.Date(1899, 1, 1, 0, 0, 0, 0, time.UTC), kek, "year 1899 cannot be written as an EFI time; want 1900 to 9999"},
		"the key of somebody else":    {time.Unix(0, 0), uefi.Signer{Key: kek.Key, Certificate: other.Certificate}, `signing update of db: the key is not that of certificate "CN=other"`},
		"a key that firmware may not": {time.Unix(0, 0), uefi.Signer{Key: ec, Certificate: kek.Certificate}, "signing update of db: the key is of type *ecdsa.PublicKey; want RSA, the only one all firmware knows"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := uefi.SignUpdate(variable(t, "db"), tt.at, nil, tt.by)
			if text(err) != tt.want {
				t.Errorf("said %q, want %q", text(err), tt.want)
			}
		})
	}
}

func TestParseUpdateSaysWhereItStops(t *testing.T) {
	good, err := os.ReadFile("testdata/db.auth")
	if err != nil {
		t.Fatal(err)
	}
	put := func(at int, b ...byte) []byte { return slices.Concat(good[:at], b, good[at+len(b):]) }

	tests := map[string]struct {
		update []byte
		want   string
	}{
		"half a header":       {good[:39], "update ends after 39 bytes; its header alone takes 40"},
		"cut in half":         {good[:100], "header of the update: certificate says it is 1209 bytes long; want 24 to 84"},
		"month 13":            {put(2, 13), "time of the update: ea 07 0d 02 03 04 05 is no date and time of day"},
		"a nanosecond":        {put(8, 1), "time of the update: has a fraction of a second or a time zone; both must be zero"},
		"another revision":    {put(20, 0, 1), "header of the update: certificate has revision 0x0100; want 0x0200"},
		"Authenticode":        {put(22, 2, 0), "header of the update: certificate has type 0x0002; want 0x0ef1"},
		"another GUID":        {put(24, 0), "header of the update: certificate has type 4aafd200-68df-49ee-8aa9-347d375665a7; want 4aafd29d-68df-49ee-8aa9-347d375665a7, PKCS #7"},
		"no SignedData":       {put(40, 4), "signature of the update: not a SignedData of PKCS #7 in DER"},
		"SHA-256 in no place": {bytes.Replace(good, []byte{2, 1, 5, 0, 48, 13}, []byte{2, 2, 5, 0, 48, 13}, 2), "signature of the update: digest algorithm 2.16.840.1.101.3.4.2.2; want 2.16.840.1.101.3.4.2.1, SHA-256"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := uefi.ParseUpdate(tt.update)
			if text(err) != tt.want {
				t.Errorf("said %q, want %q", text(err), tt.want)
			}
		})
	}
}

func TestOnlyFourVariablesAreSecureBoot(t *testing.T) {
	_, err := uefi.SecureBootVariable("DB")
	if want := `"DB" is no Secure Boot variable; want PK, KEK, db or dbx`; text(err) != want {
		t.Errorf("said %q, want %q", text(err), want)
	}
}

func FuzzParseUpdate(f *testing.F) {
	for _, name := range []string{"testdata/db.auth", "testdata/db-append.auth"} {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	db, err := uefi.SecureBootVariable("db")
	if err != nil {
		f.Fatal(err)
	}

	f.Fuzz(func(t *testing.T, b []byte) {
		u, err := uefi.ParseUpdate(b)
		if err != nil {
			return
		}
		if err := u.Verify(db, nil); err == nil {
			t.Error("accepted although nobody is trusted")
		}
	})
}

func drawVariable(t *rapid.T) uefi.Variable {
	v, err := uefi.SecureBootVariable(rapid.SampledFrom([]string{"PK", "KEK", "db", "dbx"}).Draw(t, "variable"))
	if err != nil {
		t.Fatal(err)
	}
	if rapid.Bool().Draw(t, "appending") {
		return v.Appending()
	}
	return v
}

func variable(t *testing.T, name string) uefi.Variable {
	t.Helper()
	v, err := uefi.SecureBootVariable(name)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func certs(signers ...uefi.Signer) []*x509.Certificate {
	var all []*x509.Certificate
	for _, s := range signers {
		all = append(all, s.Certificate)
	}
	return all
}

// newSigner returns a new key and its self-signed certificate, long out of date:
// firmware pays no regard to that.
func newSigner(t *testing.T, name string) uefi.Signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Unix(1, 0),
	}
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
