package uefi_test

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/incusos/incusos/internal/uefi"
)

func open(t testing.TB, b []byte) *uefi.Program {
	t.Helper()
	p, err := uefi.OpenProgram(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func program(t testing.TB, parts []uefi.Part, by ...uefi.Signer) []byte {
	t.Helper()
	b, err := uefi.EncodeProgram(parts, by...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSignersOfAProgram(t *testing.T) {
	parts := []uefi.Part{{Name: ".text", Data: []byte("code")}, {Name: ".data", Data: bytes.Repeat([]byte("d"), 600)}}
	one, two := newSigner(t, "one"), newSigner(t, "two")
	unsigned, signed, both := program(t, parts), program(t, parts, one), program(t, parts, one, two)

	digest := func(b []byte) [32]byte {
		d, err := open(t, b).Authenticode()
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	if digest(unsigned) != digest(signed) || digest(signed) != digest(both) {
		t.Error("a signature changes the digest that it is of")
	}
	for name, tt := range map[string]struct {
		program []byte
		want    []*x509.Certificate
	}{
		"none": {unsigned, nil}, "one": {signed, []*x509.Certificate{one.Certificate}}, "two": {both, []*x509.Certificate{one.Certificate, two.Certificate}},
	} {
		got, err := open(t, tt.program).Signers()
		if err != nil || !slices.EqualFunc(got, tt.want, (*x509.Certificate).Equal) {
			t.Errorf("%s: signers %v, %v", name, got, err)
		}
	}
}

// Whatever is changed, the digest is another or the signature no longer one.
func TestEveryByteOfAProgramCounts(t *testing.T) {
	tb := t
	b := program(t, []uefi.Part{{Name: ".text", Data: []byte("code")}}, newSigner(t, "one"))
	rapid.Check(t, func(t *rapid.T) {
		at := rapid.IntRange(0, len(b)-1).Draw(t, "at")
		if at >= 64+24+64 && at < 64+24+68 {
			t.Skip("the checksum is covered by nothing")
		}
		changed := slices.Clone(b)
		changed[at] ^= rapid.ByteRange(1, 255).Draw(t, "by")
		p, err := uefi.OpenProgram(bytes.NewReader(changed), int64(len(changed)))
		if err != nil {
			return
		}
		before, err1 := open(tb, b).Authenticode()
		after, err2 := p.Authenticode()
		signers, err3 := p.Signers()
		if err1 == nil && err2 == nil && err3 == nil && before == after && len(signers) > 0 && at < len(b)-1200 {
			t.Fatalf("byte %d was changed and nothing shows it", at)
		}
	})
}

func TestOpenProgramSaysWhereItStops(t *testing.T) {
	good := program(t, []uefi.Part{{Name: ".text", Data: []byte("code")}})
	with := func(at int, b ...byte) []byte {
		out := slices.Clone(good)
		copy(out[at:], b)
		return out
	}
	const coff, opt = 64, 64 + 24
	tests := map[string]struct {
		b    []byte
		want string
	}{
		"nothing":              {nil, "no PE file: it does not begin with MZ"},
		"a script":             {[]byte(strings.Repeat("#!/bin/sh\n", 20)), "no PE file: it does not begin with MZ"},
		"DOS":                  {with(0x3c, 0xff, 0xff, 0xff, 0xff), "no PE file: the header of PE is not where it should be"},
		"a thousand sections":  {with(coff+6, 0xe8, 3), "PE file with 1000 sections; want at most 96"},
		"another kind":         {with(opt, 7), "PE file: its optional header is neither PE32 nor PE32+"},
		"headers without end":  {with(opt+60, 0xff, 0xff, 0xff, 0x7f), "PE file: its headers take 2147483647 bytes; want 328 to 1024"},
		"certificates nowhere": {with(opt+112+4*8, 0, 0, 0, 1, 1), "PE file: 1 bytes of certificates at 16777216 of 1024"},
		"a section nowhere":    {with(opt+240+20, 0xff, 0xff), `PE file: section ".text" is at 65535 to 66047 of 1024 bytes`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := uefi.OpenProgram(bytes.NewReader(tt.b), int64(len(tt.b)))
			if text(err) != tt.want {
				t.Errorf("said %q, want %q", text(err), tt.want)
			}
		})
	}
}

func FuzzOpenProgram(f *testing.F) {
	f.Add([]byte("MZ"))
	f.Add(program(f, []uefi.Part{{Name: ".linux", Data: []byte("kernel")}, {Name: ".pcrsig", Data: []byte("{}")}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := uefi.OpenProgram(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		total := int64(0)
		for _, s := range p.Sections {
			total += s.Size
		}
		if total > 1<<22 {
			return // nothing wrong, and slow to read
		}
		_, _ = p.Authenticode()
		_, _ = p.Signers()
		_, _ = uefi.SignedPolicies(p)
		_, _ = uefi.MeasureUKI(p)
	})
}

// The order is that of the specification, not that of the file, and what is not
// named in it is not measured.
func TestMeasureUKI(t *testing.T) {
	parts := []uefi.Part{
		{Name: ".text", Data: []byte("stub")}, {Name: ".cmdline", Data: []byte("rw quiet")}, {Name: ".pcrsig", Data: []byte("{}")},
		{Name: ".linux", Data: []byte("kernel")}, {Name: ".osrel", Data: []byte("ID=x")},
	}
	var want [32]byte
	for _, measured := range []string{".linux\x00", "kernel", ".osrel\x00", "ID=x", ".cmdline\x00", "rw quiet", "enter-initrd"} {
		sum := sha256.Sum256([]byte(measured))
		want = sha256.Sum256(append(want[:], sum[:]...))
	}
	got, err := uefi.MeasureUKI(open(t, program(t, parts)), uefi.PhaseInitrd)
	if err != nil || got != want {
		t.Errorf("PCR 11 is %x, %v; want %x", got, err, want)
	}
}

func TestSignedPolicyAllowsOneValue(t *testing.T) {
	key, other := newSigner(t, "pcr"), newSigner(t, "another")
	value := [32]byte{11}
	text, err := uefi.SignPolicy(value, key.Key, "")
	if err != nil {
		t.Fatal(err)
	}
	policies, err := uefi.SignedPolicies(open(t, program(t, []uefi.Part{{Name: ".pcrsig", Data: append(text, 0)}})))
	if err != nil || len(policies) != 1 {
		t.Fatalf("%d policies, %v", len(policies), err)
	}
	public := func(s uefi.Signer) *rsa.PublicKey { return s.Certificate.PublicKey.(*rsa.PublicKey) }
	if p := policies[0]; !p.Allows(value, public(key)) || p.Allows(value, public(other)) || p.Allows([32]byte{12}, public(key)) {
		t.Error("the policy is for one value, signed by one key, and says otherwise")
	}
}

func FuzzParsePolicies(f *testing.F) {
	f.Add([]byte(`{"sha256":[{"pcrs":[11],"pkfp":"ab","pol":"00","sig":"AAEC"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		policies, err := uefi.ParsePolicies(b)
		for _, p := range policies {
			if err != nil || len(p.Policy) != 32 {
				t.Errorf("a policy of %d bytes with %v", len(p.Policy), err)
			}
		}
	})
}
