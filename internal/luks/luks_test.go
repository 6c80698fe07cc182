package luks_test

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/incusos/incusos/internal/luks"
)

func header() luks.Header {
	return luks.Header{
		Slots: []int{0, 1, 4},
		Tokens: []luks.Token{
			{Number: 0, Type: luks.TokenTPM2, Slots: []int{0}, TPM2: luks.TPM2{PCRs: []int{7}, Bank: "sha256", PolicyHash: bytes.Repeat([]byte{7}, 32), SignedPCRs: []int{11}, PublicKey: []byte("key")}},
			{Number: 1, Type: luks.TokenRecovery, Slots: []int{1}, TPM2: luks.TPM2{}},
		},
	}
}

func encode(t testing.TB, h luks.Header) []byte {
	t.Helper()
	b, err := luks.Encode(h, 16<<10)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestHeadersSurviveTheRoundTrip(t *testing.T) {
	got, err := luks.Read(bytes.NewReader(encode(t, header())))
	if diff := cmp.Diff(header(), got); diff != "" || err != nil {
		t.Errorf("%v (-before +after):\n%s", err, diff)
	}
	if kinds := []string{got.Kind(0), got.Kind(1), got.Kind(4), got.Kind(9)}; !slices.Equal(kinds, []string{"systemd-tpm2", "systemd-recovery", "", ""}) {
		t.Errorf("slots are of kinds %q", kinds)
	}
	if tokens := got.TPM2Tokens(); len(tokens) != 1 || tokens[0].Number != 0 {
		t.Errorf("bound to the TPM are %+v", tokens)
	}
}

// One that cryptsetup made, with two passphrases; see testdata/README.md.
func TestHeaderOfCryptsetup(t *testing.T) {
	b, err := os.ReadFile("testdata/cryptsetup.header")
	if err != nil {
		t.Fatal(err)
	}
	got, err := luks.Read(bytes.NewReader(b))
	if err != nil || !slices.Equal(got.Slots, []int{0, 1}) || len(got.Tokens) != 0 {
		t.Errorf("the header says %+v, %v; want slots 0 and 1", got, err)
	}
}

func TestDamagedHeaderHasACopy(t *testing.T) {
	b := encode(t, header())
	b[5000] ^= 1
	if got, err := luks.Read(bytes.NewReader(b)); err != nil || len(got.Slots) != 3 {
		t.Errorf("of the copy: %+v, %v", got, err)
	}
	b[16<<10+5000] ^= 1
	if _, err := luks.Read(bytes.NewReader(b)); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("with both damaged: %v", err)
	}
}

func TestReadSaysWhatIsWrong(t *testing.T) {
	long := encode(t, header())
	long[8] = 1
	for want, b := range map[string][]byte{
		"reading the LUKS header: EOF":   nil,
		"there is no LUKS2 header":       make([]byte, 64<<10),
		"the LUKS header says it has 72": long[:16<<10],
	} {
		if _, err := luks.Read(bytes.NewReader(b)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("said %v, want %q", err, want)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"keyslots":{"0":{}},"tokens":{"0":{"type":"systemd-tpm2","keyslots":["0"],"tpm2-policy-hash":"00"}}}`))
	f.Add([]byte(`{"keyslots":{"-1":{}}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		h, err := luks.Read(bytes.NewReader(luks.Wrap(text)))
		if err != nil {
			return
		}
		for _, n := range h.Slots {
			if n < 0 || n > 99 {
				t.Errorf("slot %d", n)
			}
		}
		again, err := luks.Encode(h, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := luks.Read(bytes.NewReader(again)); err != nil {
			t.Error(err)
		}
	})
}
