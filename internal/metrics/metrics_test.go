package metrics_test

import (
	"context"
	"errors"
	"flag"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/metrics"
)

var update = flag.Bool("update", false, "write testdata anew")

// proc is a file tree in memory.
type proc map[string]string

func (p proc) ReadFile(name string) ([]byte, error) {
	s, ok := p[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return []byte(s), nil
}

// sources of a machine of which some things are not in order.
func sources() metrics.Sources {
	at := time.Date(2026, time.November, 24, 12, 0, 0, 0, time.UTC)
	return metrics.Sources{
		Environment: func(context.Context) (api.Environment, error) {
			return api.Environment{Hostname: "node1", Mode: api.ModeRelease, OSVersion: "202611010000", OSVersionNext: "202611240000", SystemIsReady: true, Uptime: 3661}, nil
		},
		Areas: func() []metrics.Area {
			return []metrics.Area{{Name: "network"}, {Name: "storage", Degraded: true, Since: at}}
		},
		Storage:  func(context.Context) (api.SystemStorage, error) { return storage(at), nil },
		Warnings: func() []string { return []string{"nobody has fetched the recovery keys"} },
		Tasks: func() []api.Task {
			return []api.Task{{Status: api.TaskRunning}, {Status: api.TaskDone}}
		},
		Trial: func() *api.Trial { return &api.Trial{Resource: "system/network"} },
		Files: proc{
			"/proc/meminfo":    "MemTotal:        4194304 kB\nMemFree:  1 kB\nMemAvailable:    1048576 kB\n",
			"/proc/loadavg":    "0.25 0.50 0.75 1/120 300\n",
			"/proc/self/statm": "300000 0 2560 1000 0 9000 0\n",
		},
	}
}

func storage(at time.Time) (doc api.SystemStorage) {
	doc.State.RootPartition = api.RootPartition{Size: 4 << 30, Available: 3 << 30}
	doc.State.Pools = []api.StoragePool{
		{
			Name: "local", Type: "zfs-raid1", State: "DEGRADED", RawSize: 1 << 40, UsableSize: 1 << 39, Allocated: 1 << 38,
			DevicesDegraded: []string{"/dev/disk/by-id/b"}, LastScrub: &api.PoolScrub{State: "FINISHED", EndTime: at, Errors: 2},
		},
		{Name: "archive", Type: "zfs-raid0", State: "ONLINE"},
	}
	doc.State.Drives = []api.StorageDrive{
		{ID: "/dev/disk/by-id/a", ModelName: "Disk \"Pro\" \\ 2\n", SerialNumber: "S1", Capacity: 1 << 40, MemberPool: "local", SMART: &api.DriveSMART{Enabled: true, Passed: true, PercentageUsed: 7}},
		{ID: "/dev/disk/by-id/b", Capacity: 1 << 40, SMART: &api.DriveSMART{Enabled: true}},
		{ID: "/dev/disk/by-id/c", Capacity: 1 << 30, SMART: &api.DriveSMART{}},
	}
	return doc
}

func ask(t *testing.T, m *metrics.Metrics, method, path, accept string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, path, nil)
	if accept != "" {
		r.Header.Set("Accept", accept)
	}
	w := httptest.NewRecorder()
	m.ServeHTTP(w, r)
	return w
}

func TestText(t *testing.T) {
	w := ask(t, metrics.New(sources()), "GET", "/metrics", "")
	const golden = "testdata/metrics.txt"
	if *update {
		if err := os.WriteFile(golden, w.Body.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), w.Body.String()); diff != "" {
		t.Errorf("text (-want +got):\n%s", diff)
	}
}

// Incus puts the text behind its own; only who asks for OpenMetrics gets its end.
func TestFormsOfText(t *testing.T) {
	tests := map[string]struct {
		method, path, accept string
		code                 int
		kind                 string
		end                  bool
	}{
		"Incus":         {"GET", "/metrics", "", 200, "text/plain; version=0.0.4; charset=utf-8", false},
		"Prometheus":    {"GET", "/metrics", "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5", 200, "application/openmetrics-text; version=1.0.0; charset=utf-8", true},
		"a browser":     {"GET", "/metrics", "text/html,*/*;q=0.8", 200, "text/plain; version=0.0.4; charset=utf-8", false},
		"another path":  {"GET", "/", "", 404, "text/plain; charset=utf-8", false},
		"a wrong verb":  {"POST", "/metrics", "", 405, "text/plain; charset=utf-8", false},
		"only the head": {"HEAD", "/metrics", "", 200, "text/plain; version=0.0.4; charset=utf-8", false},
	}
	m := metrics.New(sources())
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := ask(t, m, tt.method, tt.path, tt.accept)
			if got := w.Header().Get("Content-Type"); w.Code != tt.code || got != tt.kind {
				t.Errorf("answered %d, %q; want %d, %q", w.Code, got, tt.code, tt.kind)
			}
			if got := strings.HasSuffix(w.Body.String(), "# EOF\n"); got != tt.end {
				t.Errorf("ends with # EOF: %v, want %v", got, tt.end)
			}
		})
	}
}

// line is what a line of either form may be, from the grammars of both.
var line = regexp.MustCompile(`^(# (HELP|TYPE) [a-z_]+ [^"\\]+|[a-z_][a-z0-9_]*(\{[a-z_]+="([^"\\\n]|\\[\\"n])*"(,[a-z_]+="([^"\\\n]|\\[\\"n])*")*\})? -?[0-9.]+)$`)

func TestTextIsWellFormedWhateverThingsAreCalled(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := sources()
		s.Storage = func(context.Context) (doc api.SystemStorage, err error) {
			doc.State.Drives = []api.StorageDrive{{ID: rapid.String().Draw(rt, "id"), ModelName: rapid.String().Draw(rt, "model"), SerialNumber: string(rapid.SliceOf(rapid.Byte()).Draw(rt, "serial"))}}
			doc.State.Pools = []api.StoragePool{{Name: rapid.String().Draw(rt, "pool"), State: rapid.String().Draw(rt, "state"), RawSize: rapid.Uint64().Draw(rt, "size")}}
			return doc, nil
		}
		body := ask(t, metrics.New(s), "GET", "/metrics", "").Body.String()
		for l := range strings.SplitSeq(strings.TrimSuffix(body, "\n"), "\n") {
			if !line.MatchString(l) {
				rt.Fatalf("%q is no line of the format", l)
			}
		}
	})
}

func TestSourceThatFailsCostsItsFiguresOnly(t *testing.T) {
	s := sources()
	s.Storage = func(context.Context) (api.SystemStorage, error) { return storage(time.Time{}), errors.New("no pools") }
	s.Files = proc{}
	body := ask(t, metrics.New(s), "GET", "/metrics", "").Body.String()
	for _, want := range []string{
		"incusos_source_failed{source=\"storage\"} 1\n", "incusos_source_failed{source=\"load\"} 1\n",
		"incusos_source_failed{source=\"memory\"} 1\n", "incusos_uptime_seconds 3661\n",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("%q is not in\n%s", want, body)
		}
	}
	if strings.Contains(body, "incusos_pool") {
		t.Errorf("there are figures of a source that failed:\n%s", body)
	}
}

func TestNothingIsKnown(t *testing.T) {
	if w := ask(t, metrics.New(metrics.Sources{}), "GET", "/metrics", ""); w.Code != http.StatusOK || w.Body.Len() != 0 {
		t.Errorf("answered %d, %q", w.Code, w.Body)
	}
}

func TestStorageThatHangsIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release, asked := make(chan struct{}), 0
		s := sources()
		s.Storage = func(context.Context) (api.SystemStorage, error) {
			asked++
			<-release
			return storage(time.Now()), nil
		}
		m := metrics.New(s)
		const missing, there = `incusos_source_failed{source="storage"} 1`, `incusos_pool_online{pool="local"`
		for range 2 {
			began := time.Now()
			if body := ask(t, m, "GET", "/metrics", "").Body.String(); !strings.Contains(body, missing) || strings.Contains(body, there) {
				t.Errorf("a source that hangs: %s", body)
			}
			if took := time.Since(began); took > 4*time.Second {
				t.Errorf("took %v; Incus waits five seconds", took)
			}
		}
		close(release)
		synctest.Wait()
		for range 2 {
			if body := ask(t, m, "GET", "/metrics", "").Body.String(); strings.Contains(body, missing) || !strings.Contains(body, there) {
				t.Errorf("a source that is back: %s", body)
			}
		}
		if asked != 1 {
			t.Errorf("asked %d times, want once", asked)
		}
		time.Sleep(time.Minute)
		ask(t, m, "GET", "/metrics", "")
		if asked != 2 {
			t.Errorf("asked %d times after a minute, want twice", asked)
		}
	})
}

func TestReport(t *testing.T) {
	m := metrics.New(sources())
	all := m.Report(t.Context(), nil)
	if _, err := time.Parse(time.RFC3339, all.Timestamp); err != nil || all.MediaType == "" || len(all.Metrics) < 20 {
		t.Errorf("report %+v, %v", all, err)
	}
	some := m.Report(t.Context(), []string{"pool_online", "uptime"})
	want := []api.ReportMetric{
		{Name: "incusos_uptime_seconds", Value: 3661.0},
		{Name: "incusos_pool_online", Object: "local", Fields: map[string]any{"state": "DEGRADED", "type": "zfs-raid1"}, Value: 0.0},
		{Name: "incusos_pool_online", Object: "archive", Fields: map[string]any{"state": "ONLINE", "type": "zfs-raid0"}, Value: 1.0},
	}
	if diff := cmp.Diff(want, some.Metrics); diff != "" {
		t.Errorf("matching figures (-want +got):\n%s", diff)
	}
	if none := m.Report(t.Context(), []string{"nothing"}); none.Metrics == nil || len(none.Metrics) > 0 {
		t.Errorf("no figures are %+v, want an empty list", none.Metrics)
	}
}
