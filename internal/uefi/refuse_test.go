package uefi_test

import (
	"crypto/sha256"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/incusos/incusos/internal/uefi"
)

func TestRefuses(t *testing.T) {
	db, other := newSigner(t, "db"), newSigner(t, "other")
	digest := sha256.Sum256([]byte("program"))
	tbs := sha256.Sum256(db.Certificate.RawTBSCertificate)
	certs := func(s ...uefi.Signer) (l []uefi.SignatureList) {
		for _, c := range s {
			l = append(l, uefi.X509List(uefi.MicrosoftOwner, c.Certificate))
		}
		return l
	}
	digests := func(kind uefi.GUID, data []byte) []uefi.SignatureList {
		return []uefi.SignatureList{{Type: kind, Signatures: []uefi.Signature{{Owner: uefi.MicrosoftOwner, Data: data}}}}
	}
	const revokedCertificate uefi.GUID = "3bd2a492-96c0-4079-b420-fcf98ef103ed"
	tests := map[string]struct {
		db, dbx []uefi.SignatureList
		by      *uefi.Signer
		want    string // "" it starts
	}{
		"signed":                             {certs(other, db), nil, &db, ""},
		"signed, and another is revoked":     {certs(db), certs(other), &db, ""},
		"by somebody else":                   {certs(other), nil, &db, `db has no certificate for "CN=db"`},
		"by nobody":                          {certs(db), nil, nil, "nobody has signed it"},
		"by nobody, and db has its digest":   {digests(uefi.CertSHA256, digest[:]), nil, nil, ""},
		"its digest is revoked":              {certs(db), digests(uefi.CertSHA256, digest[:]), &db, "dbx lists its digest"},
		"its certificate is revoked":         {certs(db), certs(db), &db, "dbx lists the certificate"},
		"its certificate's digest is":        {certs(db), digests(revokedCertificate, append(tbs[:], make([]byte, 16)...)), &db, "dbx lists the digest of the certificate"},
		"an empty machine, and it is signed": {nil, nil, &db, `db has no certificate for "CN=db"`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var got string
			if tt.by == nil {
				got = uefi.Refuses(tt.db, tt.dbx, digest, nil)
			} else {
				got = uefi.Refuses(tt.db, tt.dbx, digest, tt.by.Certificate)
			}
			if !strings.HasPrefix(got, tt.want) || (got == "") != (tt.want == "") {
				t.Errorf("said %q, want %q", got, tt.want)
			}
		})
	}
}

// What was appended is not missing any more, and nothing else is added.
func TestMissing(t *testing.T) {
	draw := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) uefi.SignatureList {
		n := rapid.IntRange(1, 3).Draw(t, "n")
		l := uefi.SignatureList{Type: uefi.CertSHA256}
		for range n {
			l.Signatures = append(l.Signatures, uefi.Signature{Owner: uefi.MicrosoftOwner, Data: []byte{rapid.ByteRange(0, 5).Draw(t, "data")}})
		}
		return l
	}), 0, 4)
	rapid.Check(t, func(t *rapid.T) {
		have, more := draw.Draw(t, "have"), draw.Draw(t, "more")
		missing := uefi.Missing(have, more)
		after := append(have, missing...)
		if again := uefi.Missing(after, more); len(again) != 0 {
			t.Errorf("still missing %v", again)
		}
		if none := uefi.Missing(have, have); len(none) != 0 {
			t.Errorf("of itself %v is missing", none)
		}
		if len(uefi.Missing(more, missing)) != 0 {
			t.Errorf("%v adds what was not asked for", missing)
		}
	})
}
