package debug

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"strings"
	"testing"
)

// No message but those of testdata can be signed by the key, which is gone.
func FuzzSignedText(f *testing.F) {
	b, err := os.ReadFile("testdata/support.crt")
	if err != nil {
		f.Fatal(err)
	}
	block, _ := pem.Decode(b)
	support, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range []string{"detached.eml", "opaque.eml", "sha1.eml"} {
		m, err := os.ReadFile("testdata/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(m)
	}
	f.Fuzz(func(t *testing.T, m []byte) {
		text, err := signedText(m, support)
		if err == nil && string(text) != "#!/bin/sh\necho hello\nuname\n" {
			t.Errorf("took %q for signed", text)
		}
	})
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("1 (systemd) S 0 1 1 0 -1 4194560 0 0 0 0 50 50 0 0 20 0 1 0 1 20971520 256 0\n"))
	f.Add([]byte("7 (a) (b) S"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parseStat(b)
		if err == nil && (p.pid < 1 || strings.ContainsAny(p.name, "\n\x00")) {
			t.Errorf("read %+v", p)
		}
	})
}

func FuzzParseModules(f *testing.F) {
	f.Add("zfs 6500352 5 - Live 0x0 (POE)\nspl 163840 1 zfs, Live 0x0 (OE)\n", "flags : fpu lm")
	f.Fuzz(func(t *testing.T, modules, cpuinfo string) {
		for _, m := range parseModules(modules) {
			if m.Name == "" || m.Dependencies == nil {
				t.Errorf("read %+v", m)
			}
		}
		if b := baseline(cpuinfo); b != "" && !strings.HasPrefix(b, "x86-64-v") {
			t.Errorf("read %q", b)
		}
	})
}

// Entries come in pieces of any size, and are whole objects or nothing.
func FuzzEntries(f *testing.F) {
	f.Add([]byte("{\"a\": 1}\n{}\nx\n{\"b\""), 3, 10)
	f.Fuzz(func(t *testing.T, b []byte, piece, limit int) {
		if piece < 1 || limit < 1 {
			return
		}
		e := &entries{limit: limit}
		whole := &entries{limit: limit}
		for rest := b; len(rest) > 0; rest = rest[min(piece, len(rest)):] {
			if n, err := e.Write(rest[:min(piece, len(rest))]); err != nil || n != min(piece, len(rest)) {
				t.Fatalf("wrote %d, %v", n, err)
			}
		}
		_, _ = whole.Write(b)
		got, want := e.list(), whole.list()
		if len(got) != len(want) {
			t.Fatalf("%d entries in pieces, %d at once", len(got), len(want))
		}
		total := 0
		for i := range got {
			if !json.Valid(got[i]) || !bytes.Equal(got[i], want[i]) {
				t.Errorf("entry %d is %q, want %q", i, got[i], want[i])
			}
			total += len(got[i])
		}
		if total > limit && len(got) > 1 {
			t.Errorf("kept %d bytes, want at most %d", total, limit)
		}
	})
}

func FuzzRecentLine(f *testing.F) {
	for _, entry := range []string{`{"__REALTIME_TIMESTAMP":"1700000000000000","SYSLOG_IDENTIFIER":"a","MESSAGE":[104,105,300]}`, `{"_COMM":"b","MESSAGE":"x"}`, `{"MESSAGE":null}`, `[]`} {
		f.Add([]byte(entry))
	}
	f.Fuzz(func(t *testing.T, entry []byte) {
		if line := recentLine(entry); line != string(entry) && !strings.Contains(line, ": ") {
			t.Errorf("recentLine(%q) = %q", entry, line)
		}
	})
}
