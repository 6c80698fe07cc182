package early

import (
	"slices"
	"strings"
	"testing"

	"github.com/incusos/incusos/internal/sys"
)

func TestKeyOnAMedium(t *testing.T) {
	tests := map[string]struct {
		content string
		asked   int // on the console
		said    string
	}{
		"the key":             {recovery + "\n" + strings.Repeat("\x00", 4096), 0, "trying the recovery key on the medium"},
		"in another form":     {strings.ToUpper(strings.ReplaceAll(recovery, "-", " ")) + "\r\nby hand", 0, "trying the recovery key on the medium"},
		"another key":         {"something else\n", 1, "trying the recovery key on the medium"},
		"nothing":             {strings.Repeat("\x00", 4096), 1, "it begins with no line of text"},
		"a file system":       {strings.Repeat("x", 4096), 1, "its first line is too long for a key"},
		"no medium is there:": {"", 1, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, 64e9, complete()...)
			b.tpm = &sys.ExecError{Name: "systemd-cryptsetup", Code: 1, Stderr: "TPM2 device not found"}
			b.screen.answers = []string{recovery}
			if tt.content != "" {
				if err := b.Host.Files.MkdirAll("/dev/disk/by-partlabel", 0o755); err != nil {
					t.Fatal(err)
				}
				if err := b.Host.Files.WriteFile(keyPartition, []byte(tt.content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := Run(t.Context(), b.Host, &b.screen); err != nil {
				t.Fatal(err)
			}
			if len(b.screen.asked) != tt.asked {
				t.Errorf("asked %q, want %d questions", b.screen.asked, tt.asked)
			}
			if !slices.ContainsFunc(b.screen.said, func(s string) bool { return strings.Contains(s, tt.said) }) && tt.said != "" {
				t.Errorf("said %q, want %q", b.screen.said, tt.said)
			}
			for _, s := range append(b.screen.said, b.screen.asked...) {
				if strings.Contains(s, "cccccccc") || strings.Contains(s, "something else") {
					t.Errorf("the key is shown: %q", s)
				}
			}
			if got := b.result(t); !strings.Contains(got, `"unlocked_by":"recovery key"`) {
				t.Errorf("early.json is %s", got)
			}
		})
	}
}
