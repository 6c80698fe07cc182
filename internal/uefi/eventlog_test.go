package uefi_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/incusos/incusos/internal/uefi"
)

// logOf writes a log with SHA-1 and SHA-256 digests, as firmware does.
func logOf(events ...uefi.Event) []byte {
	le := binary.LittleEndian
	id := append([]byte("Spec ID Event03\x00"), 0, 0, 0, 0, 0, 2, 0, 2)
	id = le.AppendUint32(id, 2)
	for _, n := range []uint16{0x4, 20, 0xb, 32} {
		id = le.AppendUint16(id, n)
	}
	id = append(id, 0)
	b := le.AppendUint32(nil, 0)
	b = le.AppendUint32(b, 3)
	b = append(b, make([]byte, 20)...)
	b = append(le.AppendUint32(b, uint32(len(id))), id...)
	for _, e := range events {
		b = le.AppendUint32(b, uint32(e.PCR))
		b = le.AppendUint32(b, uint32(e.Type))
		b = le.AppendUint32(b, 2)
		b = append(le.AppendUint16(b, 0x4), make([]byte, 20)...)
		b = append(le.AppendUint16(b, 0xb), e.Digest[:]...)
		b = append(le.AppendUint32(b, uint32(len(e.Data))), e.Data...)
	}
	return b
}

func TestEventLogsSurviveTheRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(rapid.Custom(drawEvent), 0, 5).Draw(t, "events")
		got, err := uefi.ParseEventLog(logOf(want...))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("events changed (-before +after):\n%s", diff)
		}
	})
}

func drawEvent(t *rapid.T) uefi.Event {
	e := uefi.Event{PCR: rapid.IntRange(0, 23).Draw(t, "pcr"), Type: uefi.EventType(rapid.Uint32().Draw(t, "type"))}
	copy(e.Digest[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "digest"))
	e.Data = rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "data")
	return e
}

func TestParseEventLogSaysWhereItStops(t *testing.T) {
	one := logOf(uefi.Event{PCR: 7, Type: 1, Data: []byte("x")})
	header := len(logOf())
	with := func(at int, b ...byte) []byte {
		out := slices.Clone(one)
		copy(out[at:], b)
		return out
	}
	tests := map[string]struct {
		log  []byte
		want string // "" means valid
	}{
		"a header alone":             {one[:header], ""},
		"one event":                  {one, ""},
		"no bytes":                   {nil, "header of the event log: its beginning takes 28 bytes, and 0 are left"},
		"half a header":              {one[:30], "header of the event log: its length takes 4 bytes, and 2 are left"},
		"a log of TPM 1.2":           {with(4, 8), "header of the event log: is an event of type 0x8; want 0x3, which begins a log with several algorithms"},
		"another signature":          {with(32, 's'), `header of the event log: is signed "spec ID Event03\x00"; want "Spec ID Event03\x00"`},
		"a header without end":       {with(28, 0xff, 0xff, 0xff, 0xff), "header of the event log: its data takes 4294967295 bytes, and 110 are left"},
		"no algorithms":              {with(56, 0), "header of the event log: lists 0 algorithms; want 1 to 16"},
		"too many algorithms":        {with(56, 0, 0, 0, 1), "header of the event log: lists 16777216 algorithms; want 1 to 16"},
		"algorithms that are not":    {with(56, 9), "header of the event log: an algorithm takes 2 bytes, and 1 are left"},
		"an algorithm twice":         {with(64, 4, 0, 20, 0), "header of the event log: lists algorithm 0x4 twice"},
		"a digest of no length":      {with(62, 0), "header of the event log: says digests of algorithm 0x4 have 0 bytes"},
		"SHA-256 of another length":  {with(66, 20), "header of the event log: has digests of 20 bytes for SHA-256; want 32, and a TPM whose SHA-256 bank is in use"},
		"no SHA-256":                 {with(64, 12), "header of the event log: has digests of 0 bytes for SHA-256; want 32, and a TPM whose SHA-256 bank is in use"},
		"a PCR that there is not":    {with(header, 24), "event 0, at byte 69: is of PCR 24; want 0 to 23"},
		"more digests than listed":   {with(header+8, 3), "event 0, at byte 69: has a digest of algorithm 0x1, which the header does not list"},
		"digests without end":        {with(header+8, 3, 1), "event 0, at byte 69: has 259 digests; want at most 16"},
		"a digest not listed":        {with(header+12, 5), "event 0, at byte 69: has a digest of algorithm 0x5, which the header does not list"},
		"the same digest twice":      {with(header+34, 4), "event 0, at byte 69: has no SHA-256 digest"},
		"data longer than the log":   {with(len(one)-5, 2), "event 0, at byte 69: its data takes 2 bytes, and 1 are left"},
		"a byte behind the last one": {append(slices.Clone(one), 1), "event 1, at byte 142: its PCR takes 4 bytes, and 1 are left"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := uefi.ParseEventLog(tt.log)
			if got := text(err); got != tt.want {
				t.Errorf("said %q, want %q", got, tt.want)
			}
		})
	}
}

func TestReplayPCR(t *testing.T) {
	a, b := sha256.Sum256([]byte("a")), sha256.Sum256([]byte("b"))
	events := []uefi.Event{
		{PCR: 0, Type: uefi.EventNoAction, Data: []byte("StartupLocality\x00\x03")},
		{PCR: 7, Type: 1, Digest: a},
		{PCR: 4, Type: 1, Digest: a},
		{PCR: 7, Type: uefi.EventNoAction, Digest: b}, // extends nothing
		{PCR: 7, Type: 1, Digest: b},
	}
	extend := func(value, digest []byte) []byte {
		sum := sha256.Sum256(append(slices.Clone(value), digest...))
		return sum[:]
	}
	zero := make([]byte, 32)
	tests := map[int][]byte{
		0: append(make([]byte, 31), 3),
		4: extend(zero, a[:]),
		7: extend(extend(zero, a[:]), b[:]),
		9: zero,
	}
	for pcr, want := range tests {
		if got := uefi.ReplayPCR(events, pcr); !bytes.Equal(got[:], want) {
			t.Errorf("PCR %d is %x, want %x", pcr, got, want)
		}
	}
}

func FuzzParseEventLog(f *testing.F) {
	f.Add([]byte{})
	f.Add(logOf())
	f.Add(logOf(uefi.Event{PCR: 7, Type: 0x80000001, Data: []byte("SecureBoot")}, uefi.Event{PCR: 4, Type: 0x80000003}))
	f.Fuzz(func(t *testing.T, b []byte) {
		events, err := uefi.ParseEventLog(b)
		if err != nil {
			return
		}
		total := 0
		for _, e := range events {
			if e.PCR < 0 && e.Type != uefi.EventNoAction || e.PCR > 23 {
				t.Errorf("PCR %d", e.PCR)
			}
			total += len(e.Data) + len(e.Digest)
		}
		if total > len(b) {
			t.Errorf("%d bytes out of %d", total, len(b))
		}
	})
}

// A log of OVMF, shortened: what the specification says, written down by hand.
func TestEventLogByHand(t *testing.T) {
	log := strings.Join([]string{
		"00000000 03000000 0000000000000000000000000000000000000000 21000000",
		"53706563204944204576656e74303300 00000000 00 02 00 02 01000000 0b00 2000 00",
		"07000000 01000080 01000000 0b00 " + strings.Repeat("ab", 32) + " 02000000 4f4b",
	}, "")
	b, err := hex.DecodeString(strings.ReplaceAll(log, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	got, err := uefi.ParseEventLog(b)
	want := []uefi.Event{{PCR: 7, Type: 0x80000001, Digest: [32]byte(bytes.Repeat([]byte{0xab}, 32)), Data: []byte("OK")}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}
