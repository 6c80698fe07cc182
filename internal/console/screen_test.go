package console

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/incusos/incusos/api"
)

// readable shows control sequences as marks: <red>, and so on.
func readable(frame string) string {
	return strings.NewReplacer(home, "<home>", "\r\n", "\n", plain, "", eraseEOL, "", eraseEOS, "<end>",
		bold, "<bold>", yellow, "<yellow>", loud, "<loud>", alarm, "<red>").Replace(frame)
}

func TestScreen(t *testing.T) {
	ready := Status{
		Name: "IncusOS", Version: "202601010000", Mode: api.ModeRelease, Hostname: "node1",
		Addresses: []string{"192.0.2.10", "2001:db8::10"}, IncusUp: true, Elapsed: 21 * time.Second,
	}
	troubled := ready
	troubled.Mode, troubled.IncusUp, troubled.Addresses = api.ModeDev, false, nil
	troubled.Hostname = "evil\x1b[2J\nname"
	troubled.Degraded = []string{"storage: pool local is DEGRADED because drive virtio-pretend0 does not answer; replace it with PUT /os/1.0/system/storage"}
	troubled.Warnings = []string{"nobody has fetched the recovery keys"}
	troubled.Alarms = []string{"Secure Boot is off, as it was installed: this machine is not to be trusted like others"}
	starting := ready
	starting.Starting, starting.Addresses = "network", nil

	tests := map[string]struct {
		view view
		want string
	}{
		"ready": {view{status: ready, messages: []string{"restarting Incus"}}, `<home><bold> IncusOS 202601010000
 ------------------------------------------------------------------------------
 Host name   node1
 Reachable   https://192.0.2.10:8443, https://[2001:db8::10]:8443
<bold> State       ready
 Elapsed     21 s

 restarting Incus<end>`},
		"in trouble": {view{status: troubled}, `<home><bold> IncusOS 202601010000
<loud> DEVELOPMENT BUILD: whoever is at this machine is root on it
<red> Secure Boot is off, as it was installed: this machine is not to be trusted
<red> like others
 ------------------------------------------------------------------------------
 Host name   evil\x1b[2J\nname
 Reachable   no network address yet
<red> Degraded    storage: pool local is DEGRADED because drive virtio-pretend0 does
<red>             not answer; replace it with PUT /os/1.0/system/storage
<yellow> Warning     nobody has fetched the recovery keys
 Elapsed     21 s
<end>`},
		"on its way": {view{status: starting, progress: "fetching incus 25 % (3 s)", done: 1, total: 4}, `<home><bold> IncusOS 202601010000
 ------------------------------------------------------------------------------
 Host name   node1
 Reachable   no network address yet
<bold> State       starting: network
 Elapsed     21 s

<bold> fetching incus 25 % (3 s)
 [###################.........................................................]
<end>`},
		"a failure": {view{status: ready, failure: []string{"cannot install", "drive /dev/vda holds 8 GiB; want at least 50 GiB", "put in a larger one"}}, `<home><bold> IncusOS 202601010000
 ------------------------------------------------------------------------------

<red>
<red>  CANNOT INSTALL
<red>
<red>  drive /dev/vda holds 8 GiB; want at least 50 GiB
<red>  put in a larger one
<red>
<end>`},
		"nothing known yet": {view{}, "<home>\n<end>"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, readable(tt.view.draw())); diff != "" {
				t.Errorf("screen (-want +got):\n%s", diff)
			}
		})
	}
}

func TestScreenNeverOverflows(t *testing.T) {
	long := strings.Repeat("word ", 100) + strings.Repeat("x", 500) + "\x00\xff\u202e"
	v := view{
		status:   Status{Name: long, Hostname: long, Addresses: strings.Fields(long), Degraded: []string{long, long}, Warnings: []string{long}},
		progress: long, messages: []string{long, long, "the last"},
	}
	for _, failure := range [][]string{nil, {long, long, long, long, long}} {
		v.failure = failure
		lines := strings.Split(readable(v.draw()), "\n")
		if len(lines) > screenHeight {
			t.Errorf("%d lines, want at most %d", len(lines), screenHeight)
		}
		for _, line := range lines {
			for _, mark := range []string{"<home>", "<bold>", "<red>", "<yellow>", "<end>"} {
				line = strings.ReplaceAll(line, mark, "")
			}
			if len(line) > screenWidth || clean(line) != line {
				t.Errorf("line of %d characters: %q", len(line), line)
			}
		}
	}
}

func TestWrap(t *testing.T) {
	tests := map[string][]string{
		"":                  {""},
		"short":             {"short"},
		"exactly te":        {"exactly te"},
		"one two three":     {"one two", "three"},
		"abcdefghijklmn":    {"abcdefghij", "klmn"},
		"a bcdefghijklmnop": {"a bcdefghi", "jklmnop"},
	}
	for text, want := range tests {
		if diff := cmp.Diff(want, wrap(text, 10)); diff != "" {
			t.Errorf("wrap(%q, 10) (-want +got):\n%s", text, diff)
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add("plain")
	f.Add("\x1b]0;title\x07 \xff \u202e \U000e0001 é")
	f.Fuzz(func(t *testing.T, s string) {
		got := clean(s)
		if strings.ContainsFunc(got, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x202e }) {
			t.Errorf("clean(%q) = %q, which still controls the terminal", s, got)
		}
		if clean(got) != got {
			t.Errorf("clean(%q) = %q, but clean again is %q", s, got, clean(got))
		}
	})
}
