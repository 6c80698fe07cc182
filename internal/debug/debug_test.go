package debug_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/debug"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/sys/systest"
)

func sensible(t *testing.T) (*debug.Debug, *systest.Rig) {
	t.Helper()
	rig := systest.New(t, systest.Sensible())
	systest.NewJournal(rig)
	return debug.New(rig.Host), rig
}

func TestKernel(t *testing.T) {
	d, _ := sensible(t)
	got, err := d.Kernel(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got.Architecture = ""
	want := api.DebugKernel{
		Version: "6.12.0-pretend", CPUBaseline: "x86-64-v3",
		Modules: []api.KernelModule{
			{Name: "bridge", Dependencies: []string{"stp"}},
			{Name: "spl", Dependencies: []string{}, InUse: true},
			{Name: "stp", Dependencies: []string{}, InUse: true},
			{Name: "zfs", Dependencies: []string{"spl"}, InUse: true},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("kernel (-want +got):\n%s", diff)
	}
}

func TestLog(t *testing.T) {
	tests := map[string]struct {
		query api.DebugLogQuery
		want  []string // messages
	}{
		"this boot":           {api.DebugLogQuery{}, []string{"Machine starts", "Started incus-osd.service - IncusOS daemon.", "Incus is starting"}},
		"the newest":          {api.DebugLogQuery{Entries: 1}, []string{"Incus is starting"}},
		"one unit":            {api.DebugLogQuery{Unit: "incus.service"}, []string{"Incus is starting"}},
		"the boot before":     {api.DebugLogQuery{Boot: "-1"}, []string{"Restarting"}},
		"what Incus asks for": {api.DebugLogQuery{Boot: "0", Entries: 100, Unit: "incus-osd.service"}, []string{"Machine starts", "Started incus-osd.service - IncusOS daemon."}},
		"from a time on":      {api.DebugLogQuery{Since: "@1767268803"}, []string{"Incus is starting"}},
		"up to a time":        {api.DebugLogQuery{Until: "@1767268801"}, []string{"Machine starts"}},
		"nothing":             {api.DebugLogQuery{Unit: "nothing.service"}, []string{}},
	}
	d, _ := sensible(t)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			entries, err := d.Log(t.Context(), tt.query)
			if err != nil {
				t.Fatal(err)
			}
			got := []string{}
			for _, e := range entries {
				var entry map[string]string
				if err := json.Unmarshal(e, &entry); err != nil {
					t.Fatal(err)
				}
				got = append(got, entry["MESSAGE"])
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("messages (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLogRefusesWhatJournalctlShouldNotSee(t *testing.T) {
	tests := map[string]struct {
		query api.DebugLogQuery
		field string
	}{
		"an option for a unit":  {api.DebugLogQuery{Unit: "--vacuum-size=1"}, "unit"},
		"a short option":        {api.DebugLogQuery{Unit: "-f"}, "unit"},
		"a path for a unit":     {api.DebugLogQuery{Unit: "../incus.service"}, "unit"},
		"two units":             {api.DebugLogQuery{Unit: "a.service b.service"}, "unit"},
		"an option for a boot":  {api.DebugLogQuery{Boot: "--flush"}, "boot"},
		"a word for a boot":     {api.DebugLogQuery{Boot: "last"}, "boot"},
		"a line end in a time":  {api.DebugLogQuery{Since: "now\n--flush"}, "since"},
		"an equals sign":        {api.DebugLogQuery{Until: "--file=/etc/shadow"}, "until"},
		"a time without end":    {api.DebugLogQuery{Until: strings.Repeat("1", 65)}, "until"},
		"fewer than no entries": {api.DebugLogQuery{Entries: -1}, "entries"},
	}
	d, rig := sensible(t)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := d.Log(t.Context(), tt.query)
			if e, ok := errors.AsType[*api.FieldError](err); !ok || e.Field != tt.field {
				t.Errorf("said %v, want field %q", err, tt.field)
			}
			if ran := rig.Programs.Ran(); len(ran) > 0 {
				t.Errorf("ran %q", ran)
			}
		})
	}
}

func TestLogIsBounded(t *testing.T) {
	d, rig := sensible(t)
	line := `{"MESSAGE":"` + strings.Repeat("x", 1<<16) + `","N":"%d"}` + "\n"
	rig.Programs.Model("journalctl", func(_ context.Context, c sys.Cmd) ([]byte, error) {
		for i := range 140 {
			fmt.Fprintf(c.Stdout, line, i)
		}
		fmt.Fprintf(c.Stdout, "no JSON\n{\"M\":\"%s\"}\n", strings.Repeat("y", 2<<20))
		return nil, nil
	})
	entries, err := d.Log(t.Context(), api.DebugLogQuery{})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(bytes.Join(rawLines(entries), nil)); n > 8<<20 || n < 7<<20 {
		t.Errorf("%d entries of %d bytes", len(entries), n)
	}
	if last := string(entries[len(entries)-1]); !strings.HasSuffix(last, `"N":"139"}`) {
		t.Errorf("the newest entry is not there, but %q", last[len(last)-20:])
	}
}

func rawLines(entries []api.LogEntry) (lines [][]byte) {
	for _, e := range entries {
		lines = append(lines, e)
	}
	return lines
}

func TestLogSaysWhatJournalctlSays(t *testing.T) {
	d, _ := sensible(t)
	_, err := d.Log(t.Context(), api.DebugLogQuery{Boot: "-7"})
	e, ok := errors.AsType[*api.Error](err)
	if !ok || e.Kind != api.Invalid || !strings.Contains(e.Text, "No journal boot entry found") {
		t.Errorf("said %v", err)
	}
}

func TestLogDoesNotWaitForEver(t *testing.T) {
	d, rig := sensible(t)
	rig.Programs.Model("journalctl", func(ctx context.Context, _ sys.Cmd) ([]byte, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	synctest.Test(t, func(t *testing.T) {
		_, err := d.Log(t.Context(), api.DebugLogQuery{})
		if e, ok := errors.AsType[*api.Error](err); !ok || e.Kind != api.Unavailable {
			t.Errorf("said %v, want api.Unavailable", err)
		}
	})
}

func TestProcesses(t *testing.T) {
	d, rig := sensible(t)
	files := rig.Host.Files
	for name, content := range map[string]string{
		"/proc/uptime":      "100.00 100.00\n",
		"/etc/passwd":       "root:x:0:0:root:/root:/usr/sbin/nologin\nsystemd-network:x:998:998::/:/usr/sbin/nologin\n",
		"/proc/301/stat":    "301 (a) b) S 300 301 301 34816 300 0 0 0 0 0 1200 50 0 0 20 -5 3 0 5000 10485760 2560 0\n",
		"/proc/301/status":  "Name:\ta\nUid:\t998\t998\t998\t998\n",
		"/proc/301/cmdline": "",
		"/proc/302/stat":    "302 (b) R 301 302 301 0 -1 0 0 0 0 0 0 0 0 0 20 5 1 0 9000 0 0 0\n",
		"/proc/302/status":  "Uid:\t7\t7\t7\t7\n",
		"/proc/302/cmdline": "b\x00\x1b[31m\x00",
		"/proc/303/stat":    "303 (c) Z 300 303 303 1088 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 9000 0 0 0\n",
		"/proc/303/status":  "Uid:\t0\t0\t0\t0\n",
		"/proc/303/cmdline": "",
		"/proc/900/stat":    "900 (lost) S 901 900 900 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 9000 0 0 0\n",
		"/proc/900/status":  "",
		"/proc/900/cmdline": "lost",
		"/proc/901/stat":    "901 (lost) S 900 900 900 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 9000 0 0 0\n",
		"/proc/901/status":  "",
		"/proc/901/cmdline": "lost too",
		"/proc/902/stat":    "902 (half) S 1 1\n", // and no more; see below
	} {
		if err := files.WriteFile(name, []byte(content), 0o444); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.Processes(t.Context()); err == nil || !strings.Contains(err.Error(), "process 902: /proc/902/stat: has 3 fields behind the name; want 22") {
		t.Errorf("said %v", err)
	}
	if err := files.Remove("/proc/902/stat"); err != nil { // as of a process that ended
		t.Fatal(err)
	}
	got, err := d.Processes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if os.Getpagesize() != 4096 {
		t.Skip("the sizes are those of pages of 4 KiB")
	}
	at := strings.Index(got, "START")
	lines := strings.Split(got, "\n")
	for i, line := range lines {
		if len(line) > at+5 {
			lines[i] = line[:at] + "....." + line[at+5:] // the time of day
		}
	}
	const want = `USER         PID %CPU %MEM    VSZ   RSS TTY      STAT .....   TIME COMMAND
root           1  1.0  0.0  20480  1024 ?        Ss   .....   0:01 /usr/lib/systemd/systemd
root         200  1.0  0.0  20480  1024 ?        Ss   .....   0:01  \_ /usr/bin/incus-osd
root         300  1.0  0.0  20480  1024 ?        Ss   .....   0:01  \_ /usr/libexec/incus/incusd --group incus-admin
systemd+     301 25.0  0.2  10240 10240 pts/0    S<sl .....   0:12      \_ [a) b]
7            302  0.0  0.0      0     0 ?        RN   .....   0:00      |   \_ b ?[31m
root         303  0.0  0.0      0     0 ttyS0    Zs   .....   0:00      \_ [c]
root           2  1.0  0.0  20480  1024 ?        Ss   .....   0:01 [kthreadd]
root          10  1.0  0.0  20480  1024 ?        Ss   .....   0:01  \_ [kworker/0:1]
?            900  0.0  0.0      0     0 ?        Ss   .....   0:00 lost
?            901  0.0  0.0      0     0 ?        S    .....   0:00  \_ lost too
`
	got = strings.Join(lines, "\n")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("processes (-want +got):\n%s", diff)
	}
}

func TestEventLog(t *testing.T) {
	d, rig := sensible(t)
	got, err := d.EventLog(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, e := range got.EventLog {
		said = append(said, fmt.Sprintf("%d %#x %q", e.Index, e.Type, e.Data))
	}
	want := []string{
		`7 0x80000001 "SecureBoot"`, `7 0x80000001 "PK"`, `7 0x4 "\x00\x00\x00\x00"`,
		`4 0x80000003 "systemd-boot"`, `11 0xd ".linux"`,
	}
	if diff := cmp.Diff(want, said); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if len(got.PCR4) != 64 || len(got.PCR7) != 64 || got.PCR7 != strings.ToLower(got.PCR7) || !got.MatchesTPM {
		t.Errorf("PCR 4 is %q, PCR 7 %q, matches %v", got.PCR4, got.PCR7, got.MatchesTPM)
	}
	if err := rig.Host.Files.WriteFile("/sys/class/tpm/tpm0/pcr-sha256/7", []byte(strings.Repeat("AB", 32)+"\n"), 0o444); err != nil {
		t.Fatal(err)
	}
	if got, err = d.EventLog(t.Context()); err != nil || got.MatchesTPM || got.PCR7 != strings.Repeat("ab", 32) {
		t.Errorf("a TPM that holds another value: %+v, %v", got, err)
	}
}

func TestMachineWithoutTPMHasNoEventLog(t *testing.T) {
	m := systest.Sensible()
	m.TPM = false
	_, err := debug.New(systest.New(t, m).Host).EventLog(t.Context())
	if e, ok := errors.AsType[*api.Error](err); !ok || e.Kind != api.NotFound {
		t.Errorf("said %v, want api.NotFound", err)
	}
}

// open returns the files of a bundle by their names.
func open(t *testing.T, archive []byte) map[string]string {
	t.Helper()
	zipped, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string]string)
	for r := tar.NewReader(zipped); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[strings.TrimPrefix(h.Name, "incus-os-bundle/")] = string(content)
	}
}

func TestBundle(t *testing.T) {
	d, rig := sensible(t)
	if err := rig.Host.Units.Start(t.Context(), "incus.service"); err != nil {
		t.Fatal(err)
	}
	type document struct {
		Name string     `json:"name"`
		Key  api.Secret `json:"key"`
	}
	parts := []debug.Part{
		{Name: "text.txt", Read: func(context.Context) (any, error) { return "words\n", nil }},
		{Name: "documents/a.json", Read: func(context.Context) (any, error) { return document{"a", "hush"}, nil }},
		{Name: "documents/broken.json", Read: func(context.Context) (any, error) { return nil, errors.New("it is broken") }},
		{Name: "documents/fault.json", Read: func(context.Context) (any, error) { panic("oops") }},
	}
	var out bytes.Buffer
	if err := d.Bundle(t.Context(), &out, parts); err != nil {
		t.Fatal(err)
	}
	files := open(t, out.Bytes())
	for name, want := range map[string]string{
		"text.txt":              "words\n",
		"documents/a.json":      "{\n  \"key\": \"(secret)\",\n  \"name\": \"a\"\n}\n",
		"ERRORS.txt":            "documents/broken.json: it is broken\ndocuments/fault.json: a fault of incus-osd: oops\n",
		"log/boot-before.jsonl": `{"MESSAGE":"Restarting","SYSLOG_IDENTIFIER":"incus-osd","_BOOT_ID":"0000000000000000000000000000000f","_SYSTEMD_UNIT":"incus-osd.service","__REALTIME_TIMESTAMP":"1767268800000000"}` + "\n",
	} {
		if diff := cmp.Diff(want, files[name]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if want := "active    active       incus.service\n"; !strings.Contains(files["units.txt"], want) {
		t.Errorf("units.txt lacks %q: %q", want, files["units.txt"])
	}
	for _, name := range []string{"kernel.json", "processes.txt", "event-log.json", "log/this-boot.jsonl"} {
		if files[name] == "" {
			t.Errorf("%s is missing", name)
		}
	}
}

func TestBundleDoesNotWaitForWhatHangs(t *testing.T) {
	d, _ := sensible(t)
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		hangs := func(context.Context) (any, error) { <-release; return "", nil }
		began := time.Now()
		var out bytes.Buffer
		if err := d.Bundle(t.Context(), &out, []debug.Part{{Name: "pools.json", Read: hangs}}); err != nil {
			t.Error(err)
		}
		if files := open(t, out.Bytes()); files["ERRORS.txt"] != "pools.json: not there after 20s\n" {
			t.Errorf("ERRORS.txt is %q", files["ERRORS.txt"])
		}
		if took := time.Since(began); took > 25*time.Second {
			t.Errorf("took %v", took)
		}
		close(release)
	})
}

func TestRecent(t *testing.T) {
	d, rig := sensible(t)
	j := systest.NewJournal(rig)
	at := time.Date(2026, time.January, 1, 12, 1, 0, 0, time.UTC)
	for _, e := range []systest.JournalEntry{
		{Unit: "lxcfs.service", Identifier: "lxcfs", Message: "nothing of note"},
		{Unit: "lxcfs.service", Identifier: "lxcfs", Message: "it broke", Priority: 3},
		{Boot: -1, Unit: "incus.service", Identifier: "incusd", Message: "earlier", Priority: 3},
	} {
		e.Time = at
		j.Add(e)
	}
	got, err := d.Recent(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"12:00:01 incus-osd: Machine starts",
		"12:00:02 systemd: Started incus-osd.service - IncusOS daemon.",
		"12:00:03 incusd: Incus is starting",
		"12:01:00 lxcfs: it broke",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("recent (-want +got):\n%s", diff)
	}
}

// What starts wrote is that of those after the one with an id, and ends where the
// journal does.
func TestFailedStarts(t *testing.T) {
	rig := systest.New(t, systest.Sensible())
	journal := systest.NewJournal(rig) // the start before wrote one entry
	at := time.Date(2025, time.December, 31, 0, 0, 0, 0, time.UTC)
	for boot, text := range map[int]string{-3: "it was staged", -2: strings.Repeat("long ", 200)} {
		for i := range 50 {
			journal.Add(systest.JournalEntry{Boot: boot, Time: at, Unit: "incus-osd.service", Identifier: "incus-osd", Message: fmt.Sprint(i, " ", text)})
		}
	}
	journal.Add(systest.JournalEntry{Boot: -2, Time: at, Unit: "chatty.service", Identifier: "chatty", Message: "not notable", Priority: 7})
	d := debug.New(rig.Host)
	staged := fmt.Sprintf("%032x", 13)
	lines := d.FailedStarts(t.Context(), staged)
	if len(lines) != 41 || !strings.Contains(lines[0], "10 long") || !strings.Contains(lines[39], "49 long") || !strings.Contains(lines[40], "Restarting") {
		t.Errorf("%d lines:\n%s", len(lines), strings.Join(lines, "\n"))
	}
	for _, line := range lines {
		if len(line) > 300 {
			t.Errorf("a line has %d bytes", len(line))
		}
	}
	if lines := d.FailedStarts(t.Context(), ""); len(lines) != 1 || !strings.Contains(lines[0], "Restarting") {
		t.Errorf("without an id: %q", lines)
	}
	if lines := d.FailedStarts(t.Context(), fmt.Sprintf("%032x", 15)); len(lines) != 0 {
		t.Errorf("of a version that was never started: %q", lines)
	}
	rig.Programs.Fail("journalctl", errors.New("it is broken"))
	if lines := d.FailedStarts(t.Context(), staged); len(lines) != 0 {
		t.Errorf("without a journal: %q", lines)
	}
}
