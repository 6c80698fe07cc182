package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/sys/systest"
)

func entry(n int) api.AuditEntry {
	return api.AuditEntry{
		Time: time.Date(2026, 1, 1, 0, 0, n, 0, time.UTC), Who: "local", Action: fmt.Sprintf("PUT /%d", n),
		After: json.RawMessage(`{"comment":"a\nb"}`), Result: "ok",
	}
}

// actions returns what the log says was done.
func actions(t interface{ Fatal(...any) }, l *Log, newest int) []string {
	entries, err := l.Entries(context.Background(), newest)
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, e := range entries {
		out = append(out, e.Action)
	}
	return out
}

func TestEntriesOutliveTheProcess(t *testing.T) {
	files := sys.NewDir(t.TempDir())
	if got, err := New(files).Entries(t.Context(), 5); err != nil || got == nil || len(got) > 0 {
		t.Errorf("Entries() of nothing = %v, %v; want an empty list", got, err)
	}
	for n := range 3 {
		New(files).Record(t.Context(), entry(n))
	}
	got, err := New(files).Entries(t.Context(), 2)
	if diff := cmp.Diff([]api.AuditEntry{entry(1), entry(2)}, got); diff != "" || err != nil {
		t.Errorf("Entries(2), %v (-want +got):\n%s", err, diff)
	}
	if fi, err := files.Stat(file); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode of the file: %v, %v; want 0600", fi.Mode(), err)
	}
}

func TestWhatACutLeftIsSkipped(t *testing.T) {
	whole, err := json.Marshal(entry(0))
	if err != nil {
		t.Fatal(err)
	}
	for name, left := range map[string]string{
		"half of a line": string(whole[:20]), "zeros": "\x00\x00\x00", "an object of another kind": "{}\n",
		"a whole line without its end": string(whole[:len(whole)-1]), "lines that are empty": "\n\n",
	} {
		t.Run(name, func(t *testing.T) {
			files := sys.NewDir(t.TempDir())
			l := New(files)
			l.Record(t.Context(), entry(1))
			if err := files.Append(file, []byte(left), 0o600); err != nil {
				t.Fatal(err)
			}
			l = New(files)
			if diff := cmp.Diff([]string{"PUT /1"}, actions(t, l, 9)); diff != "" {
				t.Errorf("before the next entry (-want +got):\n%s", diff)
			}
			l.Record(t.Context(), entry(2))
			if diff := cmp.Diff([]string{"PUT /1", "PUT /2"}, actions(t, l, 9)); diff != "" {
				t.Errorf("after the next entry (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFullFilesArePutAside(t *testing.T) {
	files := sys.NewDir(t.TempDir())
	l := New(files)
	l.full = 1000
	const all = 100
	for n := range all {
		l.Record(t.Context(), entry(n))
	}
	entries, err := files.ReadDir("/var/lib/incus-os")
	if err != nil || len(entries) != 1+aside {
		t.Errorf("%d files, %v; want %d", len(entries), err, 1+aside)
	}
	for _, e := range entries {
		if fi, err := e.Info(); err != nil || fi.Size() > 1000 {
			t.Errorf("%s is %d bytes long, %v; want at most 1000", e.Name(), fi.Size(), err)
		}
	}
	got := actions(t, l, all)
	if len(got) < 20 || got[len(got)-1] != "PUT /99" || got[0] != fmt.Sprintf("PUT /%d", all-len(got)) {
		t.Errorf("the log has %q, want the newest entries without a gap", got)
	}
}

// Wherever writing fails, no request does, what is in the log is in order, and
// once it works again the log says how many entries are missing.
func TestFaults(t *testing.T) {
	root := systest.InMemory(t)
	slog.SetDefault(slog.New(slog.DiscardHandler)) // every lost entry would be shown
	rapid.Check(t, func(rt *rapid.T) {
		broken := false
		files := sys.NewDir(root).WithFault(func(op, name string) error {
			if broken && rapid.Bool().Draw(rt, op+" "+name) {
				return errors.New("the disk is full")
			}
			return nil
		})
		if err := files.RemoveAll("/var"); err != nil {
			rt.Fatal(err)
		}
		l := New(files)
		l.full = 500
		var want []string
		lost := 0
		for n := range rapid.IntRange(1, 8).Draw(rt, "entries") {
			broken = rapid.Bool().Draw(rt, "broken")
			before := lost
			l.Record(rt.Context(), entry(n))
			lost = l.lost
			if before > 0 && lost <= 1 {
				want = append(want, "write the audit log")
			}
			if warned := len(l.Warnings()) > 0; warned != (l.err != nil) {
				rt.Fatalf("warned: %v, %v", warned, l.err)
			}
			if l.err == nil {
				want = append(want, entry(n).Action)
			}
		}
		broken = false
		got := actions(rt, l, 99)
		if len(got) > len(want) || !slices.Equal(want[len(want)-len(got):], got) || len(want) > 0 && len(got) == 0 {
			rt.Fatalf("the log has %q, want the end of %q", got, want)
		}
	})
}

func TestRecordOnceInABoot(t *testing.T) {
	files := sys.NewDir(t.TempDir())
	get := func(who, path string) api.AuditEntry {
		return api.AuditEntry{Who: who, Action: "GET " + path, Result: "ok"}
	}
	for range 2 { // the daemon may be started again
		l := New(files)
		for range 3 {
			l.RecordOnce(t.Context(), get("a", "/x"))
			l.RecordOnce(t.Context(), get("a", "/y"))
			l.RecordOnce(t.Context(), get("b", "/x"))
		}
		l.Record(t.Context(), get("a", "/x"))
	}
	got := func() string {
		entries, err := New(files).Entries(t.Context(), 99)
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, e := range entries {
			all = append(all, e.Who+" "+e.Action+" "+strings.TrimPrefix(e.Result, "ok"))
		}
		return strings.Join(all, "\n")
	}
	const again = "; it is not written down again in this boot"
	want := "a GET /x " + again + "\na GET /y " + again + "\nb GET /x " + again + "\na GET /x \na GET /x "
	if got() != want {
		t.Errorf("the log is\n%s\nwant\n%s", got(), want)
	}
	if err := files.RemoveAll("/run"); err != nil {
		t.Fatal(err)
	}
	New(files).RecordOnce(t.Context(), get("a", "/x"))
	if got() != want+"\na GET /x "+again {
		t.Errorf("after a boot the log is\n%s", got())
	}
}

func TestWhatCannotBeWrittenIsSaid(t *testing.T) {
	full := true
	l := New(sys.NewDir(t.TempDir()).WithFault(func(string, string) error {
		if full {
			return errors.New("no space left")
		}
		return nil
	}))
	l.Record(t.Context(), entry(0))
	l.Record(t.Context(), entry(1))
	if got := l.Warnings(); len(got) != 1 || !strings.HasPrefix(got[0], "changes are not written down: ") || !strings.Contains(got[0], "no space left") {
		t.Errorf("Warnings() = %q", got)
	}
	full = false
	l.Record(t.Context(), entry(2))
	got, err := l.Entries(t.Context(), 9)
	if err != nil || len(got) != 2 || got[0].Who != "system" || !strings.HasPrefix(got[0].Result, "2 entries before this one") || len(l.Warnings()) > 0 {
		t.Errorf("Entries() = %+v, %v, Warnings() = %q; want the number of lost entries and the new one", got, err, l.Warnings())
	}
}

// Whatever the disk loses: each entry whose Record returned is there, in order,
// and so are those that follow after the restart.
func TestNoCutLosesAnEntry(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	cuts := 0
	disk := sys.NewDir(systest.InMemory(t))
	want := []string{}
	for start := range 10 {
		platter, files, err := systest.NewPlatter(disk)
		if err != nil {
			t.Fatal(err)
		}
		var left systest.Image
		written, kept := len(want), len(want)
		platter.Moment = func() {
			for range 3 {
				cuts++
				image := platter.Cut(random)
				check(t, image, want[:written])
				if left == nil || random.IntN(8) == 0 {
					left, kept = image, written
				}
			}
		}
		l := New(files)
		l.full = 700
		for n := range 4 {
			e := entry(4*start + n)
			want = append(want, e.Action)
			l.Record(t.Context(), e)
			written = len(want)
		}
		// The next start finds what one of the cuts left, with or without the
		// entry that was being written.
		disk = sys.NewDir(systest.InMemory(t))
		if err := left.Write(disk); err != nil {
			t.Fatal(err)
		}
		if got := actions(t, New(disk), 1); len(got) > 0 && kept < len(want) && got[0] == want[kept] {
			kept++
		}
		want = want[:kept]
	}
	t.Logf("%d cuts", cuts)
}

func check(t *testing.T, left systest.Image, want []string) {
	t.Helper()
	files := sys.NewDir(systest.InMemory(t))
	if err := left.Write(files); err != nil {
		t.Fatal(err)
	}
	got := actions(t, New(files), 999)
	// What was written last may be there already; what is oldest may be gone.
	if len(got) > 0 && (len(want) == 0 || got[len(got)-1] != want[len(want)-1]) {
		got = got[:len(got)-1]
	}
	if len(want) > 0 && len(got) < min(len(want), 8) || len(got) > len(want) || !slices.Equal(want[len(want)-len(got):], got) {
		t.Fatalf("after a cut the log has %q, want the end of %q", got, want)
	}
}

func TestManyAtOnce(t *testing.T) {
	l := New(sys.NewDir(t.TempDir()))
	l.full = 3000
	var all sync.WaitGroup
	for n := range 8 {
		all.Go(func() {
			for m := range 10 {
				l.Record(t.Context(), entry(10*n+m))
				if _, err := l.Entries(t.Context(), 3); err != nil {
					t.Error(err)
				}
				l.Warnings()
			}
		})
	}
	all.Wait()
	if got := actions(t, l, 999); len(got) < 50 {
		t.Errorf("the log has %d entries", len(got))
	}
}

func FuzzBackwards(f *testing.F) {
	line, err := json.Marshal(entry(1))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append(line, '\n'), 3)
	f.Add([]byte("{\"action\":1}\n\n{"), 1)
	f.Fuzz(func(t *testing.T, b []byte, number int) {
		got := backwards(b, nil, number)
		if len(got) > max(number, 0) {
			t.Errorf("%d entries of %d", len(got), number)
		}
		for _, e := range got {
			if _, err := json.Marshal(e); err != nil {
				t.Errorf("%+v cannot be answered: %v", e, err)
			}
		}
	})
}
