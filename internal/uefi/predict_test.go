package uefi_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/incusos/incusos/internal/uefi"
)

// A boot is what a machine measures: variables, who vouches for what it starts, and
// the programs.
type boot struct {
	variables map[string][]byte
	vouching  [][]byte // entries of db, as EFI_SIGNATURE_DATA
	programs  map[string][32]byte
	card      bool // with a card whose program Microsoft signed
}

func hashed(pcr int, kind uefi.EventType, data []byte) uefi.Event {
	return uefi.Event{PCR: pcr, Type: kind, Digest: sha256.Sum256(data), Data: data}
}

func measured(t testing.TB, kind uefi.EventType, name string, value []byte) uefi.Event {
	t.Helper()
	vendor := uefi.GlobalVariable
	if strings.HasPrefix(name, "db") {
		vendor = uefi.ImageSecurityDatabase
	}
	data, err := uefi.VariableEvent{Vendor: vendor, Name: name, Value: value}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return hashed(7, kind, data)
}

// events is what firmware writes down of b.
func (b boot) events(t testing.TB) []uefi.Event {
	t.Helper()
	separator := []byte{0, 0, 0, 0}
	events := []uefi.Event{
		{PCR: 0, Type: uefi.EventNoAction, Data: []byte("StartupLocality\x00\x03")},
		hashed(0, 8, []byte("1.0")),
	}
	for _, name := range []string{"SecureBoot", "PK", "KEK", "db", "dbx"} {
		events = append(events, measured(t, uefi.EventVariable, name, b.variables[name]))
	}
	events = append(events, hashed(7, uefi.EventSeparator, separator))
	if b.card {
		events = append(events, measured(t, uefi.EventAuthority, "db", []byte("sixteen bytes...not ours")))
	}
	events = append(events, hashed(4, uefi.EventEFIAction, []byte("Calling EFI Application from Boot Option")), hashed(4, uefi.EventSeparator, separator))
	for _, entry := range b.vouching {
		events = append(events, measured(t, uefi.EventAuthority, "db", entry))
	}
	for _, path := range []string{`\EFI\BOOT\BOOTX64.EFI`, `\EFI\Linux\one.efi`} {
		e := hashed(4, uefi.EventApplication, uefi.ImageEvent{Path: path, OnDisk: true}.Encode())
		e.Digest = b.programs[path]
		events = append(events, e)
	}
	return append(events, hashed(11, uefi.EventIPL, []byte(".linux\x00")))
}

// entry is the EFI_SIGNATURE_DATA of a certificate, as one list of db holds it.
func entry(t testing.TB, cert *x509.Certificate) []byte {
	t.Helper()
	list, err := uefi.EncodeSignatureLists([]uefi.SignatureList{uefi.X509List(uefi.MicrosoftOwner, cert)})
	if err != nil {
		t.Fatal(err)
	}
	return list[28:]
}

func database(t testing.TB, certs ...*x509.Certificate) []byte {
	t.Helper()
	var lists []uefi.SignatureList
	for _, c := range certs {
		lists = append(lists, uefi.X509List(uefi.MicrosoftOwner, c))
	}
	b, err := uefi.EncodeSignatureLists(lists)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestPredictionIsWhatTheNextBootMeasures lets machines start twice, with a change
// in between, and expects to know the outcome from the first log and the change.
func TestPredictionIsWhatTheNextBootMeasures(t *testing.T) {
	old, next, card := newSigner(t, "db 1").Certificate, newSigner(t, "db 2").Certificate, newSigner(t, "card").Certificate
	both, first := database(t, card, old, next), database(t, card, old)
	loader, kernel := `\EFI\BOOT\BOOTX64.EFI`, `\EFI\Linux\one.efi`
	was := boot{
		variables: map[string][]byte{"SecureBoot": {1}, "PK": database(t, card), "KEK": database(t, card), "db": first},
		vouching:  [][]byte{entry(t, old)},
		programs:  map[string][32]byte{loader: {1}, kernel: {2}},
		card:      true,
	}
	chain := func(certs ...*x509.Certificate) []*x509.Certificate { return certs }
	tests := map[string]struct {
		change func(*boot)
		will   []*x509.Certificate // of loader and kernel
		differ int                 // events of PCR 7
	}{
		"nothing":            {func(*boot) {}, chain(old, old), 0},
		"db has one more":    {func(b *boot) { b.variables["db"] = both }, chain(old, old), 1},
		"dbx has its first":  {func(b *boot) { b.variables["dbx"] = database(t, card) }, chain(old, old), 1},
		"Secure Boot is off": {func(b *boot) { b.variables["SecureBoot"] = []byte{0} }, chain(old, old), 1},
		"the kernel is new": {func(b *boot) {
			b.variables["db"], b.vouching, b.programs[kernel] = both, [][]byte{entry(t, old), entry(t, next)}, [32]byte{3}
		}, chain(old, next), 2},
		"both are new": {func(b *boot) {
			b.variables["db"], b.vouching, b.programs[kernel], b.programs[loader] = both, [][]byte{entry(t, next)}, [32]byte{3}, [32]byte{4}
		}, chain(next, next), 2},
		"the loader alone is": {func(b *boot) {
			b.variables["db"], b.vouching, b.programs[loader] = both, [][]byte{entry(t, next), entry(t, old)}, [32]byte{4}
		}, chain(next, old), 3},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			will := was
			will.variables, will.programs = map[string][]byte{}, map[string][32]byte{}
			for k, v := range was.variables {
				will.variables[k] = v
			}
			for k, v := range was.programs {
				will.programs[k] = v
			}
			tt.change(&will)
			n := uefi.NextBoot{
				Variables: will.variables, Was: chain(old, old), Will: tt.will,
				Programs: func(path string) ([32]byte, bool) { d, ok := will.programs[path]; return d, ok },
			}
			after := will.events(t)
			for pcr, predict := range map[int]func([]uefi.Event, uefi.NextBoot) (uefi.Prediction, error){4: uefi.PredictPCR4, 7: uefi.PredictPCR7} {
				got, err := predict(was.events(t), n)
				if err != nil {
					t.Fatal(err)
				}
				if want := uefi.ReplayPCR(after, pcr); got.Value != want {
					t.Errorf("PCR %d is predicted as %x, and becomes %x", pcr, got.Value, want)
				}
				differ := 0
				for _, e := range got.Events {
					if e.Differs() {
						differ++
					}
				}
				if pcr == 7 && differ != tt.differ {
					t.Errorf("%d events differ, want %d", differ, tt.differ)
				}
			}
		})
	}
}

// Going on from a prediction, whatever the order of what is added to db and dbx: the
// log of the boot before is never needed again.
func TestPredictionsOfManyBoots(t *testing.T) {
	cert := newSigner(t, "db").Certificate
	rapid.Check(t, func(rt *rapid.T) {
		b := boot{variables: map[string][]byte{"SecureBoot": {1}, "db": database(t, cert)}, vouching: [][]byte{entry(t, cert)}}
		for range rapid.IntRange(1, 4).Draw(rt, "boots") {
			events := b.events(t)
			name := rapid.SampledFrom([]string{"PK", "KEK", "dbx"}).Draw(rt, "name")
			b.variables[name] = rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(rt, "value")
			got, err := uefi.PredictPCR7(events, uefi.NextBoot{Variables: b.variables, Was: []*x509.Certificate{cert}, Will: []*x509.Certificate{cert}})
			if err != nil || got.Value != uefi.ReplayPCR(b.events(t), 7) {
				rt.Fatalf("after a change of %s: %v, or another value", name, err)
			}
		}
	})
}

func TestPredictionSaysWhatItCannotKnow(t *testing.T) {
	old, next := newSigner(t, "db 1").Certificate, newSigner(t, "db 2").Certificate
	was := boot{variables: map[string][]byte{"db": database(t, old)}, vouching: [][]byte{entry(t, old)}}
	chain := []*x509.Certificate{old}
	own := was.events(t)
	for i := range own {
		if own[i].Type == uefi.EventVariable || own[i].Type == uefi.EventAuthority {
			own[i].Digest = sha256.Sum256(own[i].Data[32:])
		}
	}
	tests := map[string]struct {
		events []uefi.Event
		next   uefi.NextBoot
		want   string
	}{
		"no log":                      {nil, uefi.NextBoot{}, "predicting PCR 7: the event log has nothing about it"},
		"a key that db will not have": {was.events(t), uefi.NextBoot{Variables: map[string][]byte{"db": database(t, old)}, Was: chain, Will: []*x509.Certificate{next}}, `predicting PCR 7: no entry of db will vouch for what "CN=db 2" has signed`},
		"a db that is not known":      {was.events(t), uefi.NextBoot{Was: chain, Will: []*x509.Certificate{next}}, "predicting PCR 7: the value that db will have is not known"},
		"a db that is damaged":        {was.events(t), uefi.NextBoot{Variables: map[string][]byte{"db": {1}}, Was: chain, Will: chain}, "predicting PCR 7: the value that db will have: signature list 0, at byte 0: ends after 1 bytes; its header alone takes 28"},
		"firmware with its own ways":  {own, uefi.NextBoot{Variables: map[string][]byte{"dbx": {1}}}, "predicting PCR 7: the firmware measures the variable dbx in a way of its own"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := uefi.PredictPCR7(tt.events, tt.next); text(err) != tt.want {
				t.Errorf("said %q, want %q", text(err), tt.want)
			}
		})
	}
	// What such firmware measures of what stays is no secret.
	if got, err := uefi.PredictPCR7(own, uefi.NextBoot{}); err != nil || got.Value != uefi.ReplayPCR(own, 7) {
		t.Errorf("firmware with its own ways, and nothing changed: %v", err)
	}
}

func TestReplays(t *testing.T) {
	events := boot{}.events(t)
	live := func(pcrs ...int) map[int][32]byte {
		m := make(map[int][32]byte)
		for _, pcr := range pcrs {
			m[pcr] = uefi.ReplayPCR(events, pcr)
		}
		return m
	}
	other := live(0, 4)
	other[7] = [32]byte{7}
	other[4] = [32]byte{4}
	twice := slices.Concat(events, events[len(events)-4:])
	tests := map[string]struct {
		events []uefi.Event
		live   map[int][32]byte
		left   int
		want   string
	}{
		"as it should be":             {events, live(0, 4, 7), len(events), ""},
		"its end is there twice":      {twice, live(0, 4, 7), len(events), ""},
		"all of it is there twice":    {slices.Concat(events, events), live(0, 4, 7), len(events), ""},
		"something else was measured": {events, other, len(events), "the event log does not lead to what the TPM holds in PCR 4 and PCR 7: something was measured that the firmware did not write down, or the log was changed"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := uefi.Replays(tt.events, tt.live)
			if text(err) != tt.want || len(got) != tt.left {
				t.Errorf("%d events, %v; want %d, %q", len(got), err, tt.left, tt.want)
			}
		})
	}
}

func TestVariableEventsSurviveTheRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := uefi.VariableEvent{Vendor: uefi.GlobalVariable, Name: rapid.StringMatching(`[A-Za-z]{1,12}`).Draw(t, "name"), Value: rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "value")}
		data, err := want.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := uefi.Event{Data: data}.Variable()
		if err != nil || got.Name != want.Name || got.Vendor != want.Vendor || !bytes.Equal(got.Value, want.Value) {
			t.Errorf("%+v became %+v, %v", want, got, err)
		}
	})
}

func FuzzEvents(f *testing.F) {
	for _, e := range (boot{}).events(f) {
		f.Add(uint32(e.Type), e.Data)
	}
	f.Fuzz(func(t *testing.T, kind uint32, data []byte) {
		e := uefi.Event{PCR: 7, Type: uefi.EventType(kind), Data: data}
		for _, r := range e.Describe() {
			if r < ' ' || r == 0x7f {
				t.Errorf("%q is not for a screen", e.Describe())
			}
		}
		_, _ = e.Variable()
		_, _ = e.Image()
		_, _ = uefi.PredictPCR7([]uefi.Event{e}, uefi.NextBoot{Variables: map[string][]byte{"db": data}})
		_, _ = uefi.PredictPCR4([]uefi.Event{e}, uefi.NextBoot{Programs: func(string) ([32]byte, bool) { return [32]byte{}, true }})
	})
}

// Without Secure Boot the kernel in a kernel image is measured as well.
func TestPredictionOfTheKernelInTheImage(t *testing.T) {
	kernel := hashed(4, uefi.EventApplication, uefi.ImageEvent{Payload: true}.Encode())
	if image, err := kernel.Image(); err != nil || !image.Payload || image.OnDisk || image.Path != "" || kernel.Describe() != "the kernel in the kernel image" {
		t.Errorf("it is read as %+v, %v, and described as %q", image, err, kernel.Describe())
	}
	programs := func(string) ([32]byte, bool) { return [32]byte{}, false }
	events := []uefi.Event{hashed(4, uefi.EventSeparator, make([]byte, 4)), kernel}
	p, err := uefi.PredictPCR4(events, uefi.NextBoot{Programs: programs, Payload: [32]byte{7}})
	events[1].Digest = [32]byte{7}
	if err != nil || p.Value != uefi.ReplayPCR(events, 4) {
		t.Errorf("PCR 4 was predicted as %x, %v", p.Value, err)
	}
	if _, err := uefi.PredictPCR4(events, uefi.NextBoot{Programs: programs}); err == nil {
		t.Error("PCR 4 was predicted without the kernel that will be started")
	}
	linux := program(t, []uefi.Part{{Name: ".text", Data: []byte("kernel")}}, newSigner(t, "debian"))
	want, err := open(t, linux).Authenticode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := uefi.Payload(open(t, program(t, []uefi.Part{{Name: ".osrel", Data: []byte("ID=x")}, {Name: ".linux", Data: linux}}))); err != nil || got != want {
		t.Errorf("Payload() = %x, %v; want %x", got, err, want)
	}
	for name, parts := range map[string][]uefi.Part{"no kernel": {{Name: ".osrel", Data: []byte("ID=x")}}, "no program": {{Name: ".linux", Data: []byte("kernel")}}} {
		if _, err := uefi.Payload(open(t, program(t, parts))); err == nil {
			t.Errorf("%s: Payload() found one", name)
		}
	}
}
