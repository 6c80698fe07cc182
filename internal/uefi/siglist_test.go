package uefi_test

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/incusos/incusos/internal/uefi"
)

func TestSignatureListsSurviveTheRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(rapid.Custom(drawList), 0, 4).Draw(t, "lists")
		b, err := uefi.EncodeSignatureLists(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := uefi.ParseSignatureLists(b)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("lists changed (-before +after):\n%s", diff)
		}
	})
}

func drawList(t *rapid.T) uefi.SignatureList {
	l := uefi.SignatureList{Type: drawGUID(t), Header: rapid.SliceOfN(rapid.Byte(), 0, 4).Draw(t, "header")}
	size := rapid.IntRange(0, 40).Draw(t, "size")
	for range rapid.IntRange(0, 3).Draw(t, "signatures") {
		l.Signatures = append(l.Signatures, uefi.Signature{
			Owner: drawGUID(t),
			Data:  rapid.SliceOfN(rapid.Byte(), size, size).Draw(t, "data"),
		})
	}
	return l
}

func drawGUID(t *rapid.T) uefi.GUID {
	h := hex.EncodeToString(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "guid"))
	return uefi.GUID(strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-"))
}

func TestParseSignatureListsSaysWhereItStops(t *testing.T) {
	list := func(size, header, each string, rest ...string) string {
		return strings.Repeat("00", 16) + size + header + each + strings.Join(rest, "")
	}
	one := list("2c000000", "00000000", "10000000", strings.Repeat("00", 16))

	tests := map[string]struct {
		hex  string
		want string // "" means valid
	}{
		"no bytes":                      {"", ""},
		"one list":                      {one, ""},
		"a list without signatures":     {list("1c000000", "00000000", "10000000"), ""},
		"half a header":                 {"0011", "signature list 0, at byte 0: ends after 2 bytes; its header alone takes 28"},
		"half a header behind a list":   {one + "0011", "signature list 1, at byte 44: ends after 2 bytes; its header alone takes 28"},
		"longer than what is there":     {list("1d000000", "00000000", "10000000"), "signature list 0, at byte 0: says it is 29 bytes long; want 28 to 28"},
		"shorter than its header":       {list("1c000000", "01000000", "10000000"), "signature list 0, at byte 0: says it is 28 bytes long; want 29 to 28"},
		"header size near the maximum":  {list("1c000000", "ffffffff", "10000000"), "signature list 0, at byte 0: says it is 28 bytes long; want 4294967323 to 28"},
		"a signature of no length":      {list("1c000000", "00000000", "00000000"), "signature list 0, at byte 0: says a signature is 0 bytes long; its owner alone takes 16"},
		"one and a half signatures":     {list("34000000", "00000000", "10000000", strings.Repeat("00", 24)), "signature list 0, at byte 0: has 24 bytes of signatures, which is no multiple of 16"},
		"signatures longer than a list": {list("2c000000", "00000000", "20000000", strings.Repeat("00", 16)), "signature list 0, at byte 0: has 16 bytes of signatures, which is no multiple of 32"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b, err := hex.DecodeString(tt.hex)
			if err != nil {
				t.Fatal(err)
			}
			_, err = uefi.ParseSignatureLists(b)
			if got := text(err); got != tt.want {
				t.Errorf("said %q, want %q", got, tt.want)
			}
		})
	}
}

func TestEncodeRefusesSignaturesOfTwoLengths(t *testing.T) {
	_, err := uefi.EncodeSignatureLists([]uefi.SignatureList{{
		Type: uefi.CertSHA256,
		Signatures: []uefi.Signature{
			{Owner: uefi.MicrosoftOwner, Data: make([]byte, 32)},
			{Owner: uefi.MicrosoftOwner, Data: make([]byte, 20)},
		},
	}})
	want := "signature list 0: signature 1 is 20 bytes long, the first one 32; give it a list of its own"
	if text(err) != want {
		t.Errorf("said %q, want %q", text(err), want)
	}
}

func TestCertificatesDescribesTheReadableAndTheUnreadable(t *testing.T) {
	signer := newSigner(t, "IncusOS db")
	lists := []uefi.SignatureList{
		uefi.X509List(uefi.MicrosoftOwner, signer.Certificate),
		{Type: uefi.CertSHA256, Signatures: []uefi.Signature{{Owner: uefi.MicrosoftOwner, Data: make([]byte, 32)}}},
		{Type: uefi.CertX509, Signatures: []uefi.Signature{{Owner: uefi.MicrosoftOwner, Data: []byte("abc")}}},
	}
	got := fmt.Sprintf("%+v", uefi.Certificates("db", lists)[1:])
	want := "[{Type:db Fingerprint:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad Subject: Issuer:}]"
	if got != want {
		t.Errorf("described %s, want %s", got, want)
	}
	if c := uefi.Certificates("db", lists)[0]; c.Subject != "CN=IncusOS db" || c.Issuer != "CN=IncusOS db" {
		t.Errorf("described %+v, want CN=IncusOS db for both names", c)
	}
	if n := len(uefi.X509Certificates(lists)); n != 1 {
		t.Errorf("%d certificates to verify with, want 1", n)
	}
}

func TestParseGUID(t *testing.T) {
	tests := map[string]struct {
		text string
		ok   bool
	}{
		"lower case":      {"8be4df61-93ca-11d2-aa0d-00e098032b8c", true},
		"upper case":      {"8BE4DF61-93CA-11D2-AA0D-00E098032B8C", true},
		"without hyphens": {"8be4df6193ca11d2aa0d00e098032b8c", false},
		"in braces":       {"{8be4df61-93ca-11d2-aa0d-00e098032b8c}", false},
		"groups shifted":  {"8be4df6193-ca-11d2-aa0d-00e098032b8c", false},
		"no hexadecimal":  {"8be4df61-93ca-11d2-aa0d-00e098032b8g", false},
		"nothing":         {"", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g, err := uefi.ParseGUID(tt.text)
			if (err == nil) != tt.ok || tt.ok && g != uefi.GlobalVariable {
				t.Errorf("ParseGUID(%q) = %q, %v; want ok=%t", tt.text, g, err, tt.ok)
			}
		})
	}
}

func FuzzParseSignatureLists(f *testing.F) {
	f.Add([]byte{})
	b, err := uefi.EncodeSignatureLists([]uefi.SignatureList{
		{Type: uefi.CertSHA256, Signatures: []uefi.Signature{{Owner: uefi.MicrosoftOwner, Data: make([]byte, 32)}}},
		{Type: uefi.CertX509, Header: []byte("head"), Signatures: []uefi.Signature{{Owner: uefi.MicrosoftOwner, Data: []byte("der")}}},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)

	f.Fuzz(func(t *testing.T, b []byte) {
		lists, err := uefi.ParseSignatureLists(b)
		if err != nil {
			return
		}
		uefi.Certificates("db", lists)
		again, err := uefi.EncodeSignatureLists(lists)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		if len(again) != len(b) {
			t.Errorf("read %d bytes, wrote %d", len(b), len(again))
		}
	})
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
