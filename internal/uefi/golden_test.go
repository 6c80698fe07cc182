package uefi

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"
	"time"
)

const goldenOwner GUID = "11111111-2222-3333-4444-55aabbccddee"

// TestUpdatesEqualThoseOfEfitools rebuilds what efitools signed, byte for byte,
// but for the signature value itself: its key was not kept.
func TestUpdatesEqualThoseOfEfitools(t *testing.T) {
	db, err := SecureBootVariable("db")
	if err != nil {
		t.Fatal(err)
	}
	kek := goldenCertificate(t, "KEK.crt")
	payload, err := EncodeSignatureLists([]SignatureList{X509List(goldenOwner, goldenCertificate(t, "db.crt"))})
	if err != nil {
		t.Fatal(err)
	}

	for name, v := range map[string]Variable{"db.auth": db, "db-append.auth": db.Appending()} {
		t.Run(name, func(t *testing.T) {
			want := goldenFile(t, name)
			u, err := ParseUpdate(want)
			if err != nil {
				t.Fatal(err)
			}
			if err := u.Verify(v, []*x509.Certificate{kek}); err != nil {
				t.Error(err)
			}
			stamp, err := encodeTime(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
			if err != nil {
				t.Fatal(err)
			}
			sig, err := encodeSignedData(kek, u.signed.Signers[0].Signature)
			if err != nil {
				t.Fatal(err)
			}
			got, err := encodeUpdate(stamp, sig, payload)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("update is\n%x\nwant\n%x", got, want)
			}
		})
	}
}

func goldenFile(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func goldenCertificate(t *testing.T, name string) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(goldenFile(t, name))
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}
