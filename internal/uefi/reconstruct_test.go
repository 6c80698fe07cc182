package uefi_test

import (
	"crypto/x509"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/incusos/incusos/internal/uefi"
)

// started are loader and kernel image, as they are found afterwards.
func started(b boot, loader, kernel *x509.Certificate) []uefi.Started {
	return []uefi.Started{
		{Path: "/EFI/BOOT/BOOTX64.EFI", Digest: b.programs[`\EFI\BOOT\BOOTX64.EFI`], Signer: loader},
		{Path: "/EFI/Linux/one.efi", Digest: b.programs[`\EFI\Linux\one.efi`], Signer: kernel},
	}
}

// What is worked out leads to what firmware measures into PCR 7, and survives being
// written down.
func TestReconstructedIsWhatFirmwareMeasures(t *testing.T) {
	one, other, card := newSigner(t, "db 1").Certificate, newSigner(t, "db 2").Certificate, newSigner(t, "card").Certificate
	for name, tt := range map[string]struct {
		loader, kernel *x509.Certificate
		vouching       [][]byte
	}{
		"by one":  {one, one, [][]byte{entry(t, one)}},
		"by two":  {other, one, [][]byte{entry(t, other), entry(t, one)}},
		"the old": {one, other, [][]byte{entry(t, one), entry(t, other)}},
	} {
		t.Run(name, func(t *testing.T) {
			b := boot{
				variables: map[string][]byte{"SecureBoot": {1}, "PK": database(t, card), "KEK": database(t, card), "db": database(t, card, one, other)},
				vouching:  tt.vouching,
				programs:  map[string][32]byte{`\EFI\BOOT\BOOTX64.EFI`: {1}, `\EFI\Linux\one.efi`: {2}},
			}
			events, err := uefi.Reconstruct(b.variables, started(b, tt.loader, tt.kernel))
			if err != nil {
				t.Fatal(err)
			}
			if got, want := uefi.ReplayPCR(events, 7), uefi.ReplayPCR(b.events(t), 7); got != want {
				t.Errorf("PCR 7 is worked out as %x, and firmware comes to %x", got, want)
			}
			read, err := uefi.ParseEventLog(uefi.EncodeEventLog(events))
			if err != nil {
				t.Fatal(err)
			}
			for _, pcr := range []int{4, 7} {
				if uefi.ReplayPCR(read, pcr) != uefi.ReplayPCR(events, pcr) || uefi.ReplayPCR(events, pcr) == [32]byte{} {
					t.Errorf("PCR %d is another when the log was written and read", pcr)
				}
			}
		})
	}
}

// The next start can be predicted from a log that was worked out as from any other.
func TestReconstructedIsPredicted(t *testing.T) {
	cert := newSigner(t, "db").Certificate
	rapid.Check(t, func(rt *rapid.T) {
		b := boot{variables: map[string][]byte{"SecureBoot": {1}, "db": database(t, cert)}, programs: map[string][32]byte{}}
		draw := func(what string) [32]byte { return [32]byte(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(rt, what)) }
		work := func() []uefi.Event {
			b.programs[`\EFI\BOOT\BOOTX64.EFI`], b.programs[`\EFI\Linux\one.efi`] = draw("loader"), draw("kernel")
			events, err := uefi.Reconstruct(b.variables, started(b, cert, cert))
			if err != nil {
				rt.Fatal(err)
			}
			return events
		}
		events := work()
		name := rapid.SampledFrom([]string{"PK", "KEK", "dbx"}).Draw(rt, "name")
		b.variables[name] = rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(rt, "value")
		after := work()
		next := uefi.NextBoot{
			Variables: b.variables, Was: []*x509.Certificate{cert}, Will: []*x509.Certificate{cert},
			Programs: func(path string) ([32]byte, bool) { d, ok := b.programs[path]; return d, ok },
		}
		seven, err7 := uefi.PredictPCR7(events, next)
		four, err4 := uefi.PredictPCR4(events, next)
		if err7 != nil || err4 != nil || seven.Value != uefi.ReplayPCR(after, 7) || four.Value != uefi.ReplayPCR(after, 4) {
			rt.Fatalf("after a change of %s: %v, %v, or another value", name, err7, err4)
		}
	})
}

func TestReconstructionSaysWhatDoesNotFit(t *testing.T) {
	cert, stranger := newSigner(t, "db").Certificate, newSigner(t, "stranger").Certificate
	b := boot{variables: map[string][]byte{"SecureBoot": {1}, "db": database(t, cert)}}
	for name, tt := range map[string]struct {
		variables map[string][]byte
		programs  []uefi.Started
		want      string
	}{
		"nothing started":     {b.variables, nil, "no program was started"},
		"an unsigned program": {b.variables, started(b, cert, nil), "/EFI/Linux/one.efi: nobody has signed it"},
		"a stranger's":        {b.variables, started(b, stranger, cert), `no entry of db will vouch for what "CN=stranger" has signed`},
		"a damaged db":        {map[string][]byte{"db": {1, 2, 3}}, started(b, cert, cert), "the variable db: "},
	} {
		if _, err := uefi.Reconstruct(tt.variables, tt.programs); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}
