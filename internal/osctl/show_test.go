package osctl_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/incusos/incusos/internal/osctl"
)

const document = `{"config":{"interfaces":[{"name":"lan","addresses":["dhcp4","slaac"],"mtu":9000}],"dns":null,"search":""},"state":{"up":true,"empty":{},"none":[]}}`

func TestFormats(t *testing.T) {
	tests := map[osctl.Format]string{
		osctl.Table: `config.interfaces[0].name       lan
config.interfaces[0].addresses  dhcp4, slaac
config.interfaces[0].mtu        9000
state.up                        true
`,
		osctl.JSON: "{\n  \"config\": {\n    \"interfaces\": [\n",
		osctl.YAML: "config:\n  interfaces:\n  - name: lan\n    addresses:\n    - dhcp4\n    - slaac\n    mtu: 9000\n",
	}
	for format, want := range tests {
		t.Run(string(format), func(t *testing.T) {
			var b bytes.Buffer
			err := osctl.Printer{Out: &b, Format: format}.Value(json.RawMessage(document))
			got := b.String()
			if format != osctl.Table {
				got = got[:min(len(got), len(want))]
			}
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("Value() = %v (-want +got):\n%s", err, diff)
			}
		})
	}
	if err := osctl.Format("xml").Validate(); err == nil || osctl.Code(err) != osctl.Mistake {
		t.Errorf("--format xml: %v", err)
	}
}

func TestTablesDoNotMoveTheCursor(t *testing.T) {
	var b bytes.Buffer
	p := osctl.Printer{Out: &b, Format: osctl.Table}
	if err := p.Rows(nil, "a|b", [][]string{{"x\x1b[2Jy", "z\u009b1A"}}); err != nil {
		t.Fatal(err)
	}
	if got, want := b.String(), "A       B\nx [2Jy  z 1A\n"; got != want {
		t.Errorf("the table is %q, want %q", got, want)
	}
}

func FuzzValue(f *testing.F) {
	f.Add(document)
	f.Add(`[[1,[2]],{"":null}]`)
	f.Fuzz(func(t *testing.T, text string) {
		if !json.Valid([]byte(text)) || len(text) > 4096 {
			t.Skip("no document")
		}
		var b bytes.Buffer
		if err := (osctl.Printer{Out: &b, Format: osctl.Table}).Value(json.RawMessage(text)); err != nil {
			t.Errorf("Value(%s) = %v", text, err)
		}
		if strings.ContainsAny(b.String(), "\x1b\r\x00") {
			t.Errorf("Value(%s) prints %q", text, b.String())
		}
	})
}
