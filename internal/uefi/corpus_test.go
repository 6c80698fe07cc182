package uefi_test

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/incusos/incusos/internal/uefi"
)

var update = flag.Bool("update", false, "write testdata/eventlogs anew")

// quirks are logs as odd firmware leaves them, each made of the same boot. Names say
// what is odd.
func quirks(t testing.TB) map[string][]byte {
	t.Helper()
	events := boot{variables: map[string][]byte{"SecureBoot": {1}}, vouching: [][]byte{[]byte("sixteen bytes...cert")}, programs: map[string][32]byte{}}.events(t)
	plain := uefi.EncodeEventLog(events)
	header := len(uefi.EncodeEventLog(nil))
	le := binary.LittleEndian

	// A digest of a bank that the header does not list, before that of SHA-256.
	var unlisted []byte
	unlisted = append(unlisted, plain[:header]...)
	for _, e := range events {
		unlisted = le.AppendUint32(le.AppendUint32(unlisted, uint32(e.PCR)), uint32(e.Type))
		unlisted = append(le.AppendUint16(le.AppendUint32(unlisted, 2), 0xc), make([]byte, 48)...)
		unlisted = append(le.AppendUint16(unlisted, 0xb), e.Digest[:]...)
		unlisted = append(le.AppendUint32(unlisted, uint32(len(e.Data))), e.Data...)
	}
	nowhere := slices.Clone(plain)
	le.PutUint32(nowhere[header:], 0xffffffff)
	bare := slices.Concat(plain[:header], []byte{0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 'h', 'i'}, plain[header:])

	named := slices.Clone(events)
	i := slices.IndexFunc(named, func(e uefi.Event) bool { return e.Type == uefi.EventVariable })
	data := slices.Clone(named[i].Data)
	le.PutUint64(data[16:], 2*le.Uint64(data[16:]))
	named[i].Data = data

	path := slices.Clone(events)
	i = slices.IndexFunc(path, func(e uefi.Event) bool { return e.Type == uefi.EventApplication })
	data = slices.Clone(path[i].Data)
	le.PutUint64(data[24:], 4096)
	path[i].Data = data

	return map[string][]byte{
		"plain":                                  plain,
		"zeros behind the end":                   append(slices.Clone(plain), make([]byte, 64)...),
		"a flash that was never written behind":  append(slices.Clone(plain), bytes.Repeat([]byte{0xff}, 64)...),
		"a bank that the header does not list":   unlisted,
		"an event without a PCR":                 nowhere,
		"an event without digests":               bare,
		"the end twice":                          append(slices.Clone(plain), uefi.EncodeEventLog(events[len(events)-5:])[header:]...),
		"cut in its last event":                  plain[:len(plain)-3],
		"TPM 1.2":                                slices.Concat([]byte{0, 0, 0, 0, 8, 0, 0, 0}, make([]byte, 20), []byte{1, 0, 0, 0, 'x'}),
		"names counted in bytes":                 uefi.EncodeEventLog(named),
		"device paths longer than what is there": uefi.EncodeEventLog(path),
		"nothing":                                nil,
	}
}

// TestCorpus reads each log of testdata/eventlogs and compares with what is written
// beside it: the events in words, and whether they lead to the registers of the boot
// that all of them are of.
func TestCorpus(t *testing.T) {
	if *update {
		for name, log := range quirks(t) {
			file := strings.ReplaceAll(name, " ", "-")
			writeFile(t, file+".log", log)
			writeFile(t, file+".txt", []byte(read(t, log)))
		}
	}
	logs, err := filepath.Glob("testdata/eventlogs/*.log")
	if err != nil || len(logs) < 10 {
		t.Fatalf("only %d logs, %v", len(logs), err)
	}
	for _, name := range logs {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".log"), func(t *testing.T) {
			log, err1 := os.ReadFile(name)
			want, err2 := os.ReadFile(strings.TrimSuffix(name, ".log") + ".txt")
			if err1 != nil || err2 != nil {
				t.Fatal(err1, err2)
			}
			if diff := cmp.Diff(string(want), read(t, log)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func writeFile(t *testing.T, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join("testdata/eventlogs", name), content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// read is what there is to say of a log.
func read(t testing.TB, log []byte) string {
	t.Helper()
	var b strings.Builder
	events, err := uefi.ParseEventLog(log)
	if err != nil {
		fmt.Fprintln(&b, "error:", err)
	}
	plain, err := uefi.ParseEventLog(quirks(t)["plain"])
	if err != nil {
		t.Fatal(err)
	}
	live := map[int][32]byte{0: uefi.ReplayPCR(plain, 0), 4: uefi.ReplayPCR(plain, 4), 7: uefi.ReplayPCR(plain, 7)}
	left, err := uefi.Replays(events, live)
	fmt.Fprintf(&b, "replays: %v, %d of %d events\n", err == nil, len(left), len(events))
	for _, e := range left {
		fmt.Fprintf(&b, "%d %s: %s\n", e.PCR, e.Type, e.Describe())
	}
	return b.String()
}

func FuzzCorpus(f *testing.F) {
	for _, log := range quirks(f) {
		f.Add(log)
	}
	f.Fuzz(func(t *testing.T, log []byte) {
		events, _ := uefi.ParseEventLog(log)
		left, err := uefi.Replays(events, map[int][32]byte{7: {}})
		if len(left) > len(events) || err == nil && uefi.ReplayPCR(left, 7) != [32]byte{} {
			t.Errorf("%d of %d events, %v", len(left), len(events), err)
		}
	})
}
