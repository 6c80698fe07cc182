package osctl_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/client"
	"github.com/incusos/incusos/internal/osctl"
)

// answers returns the client of a machine that gives the answers, by method and
// path: a document, or a status and why. To everything else it says 501.
func answers(t *testing.T, all map[string]string) *client.Client {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		doc, ok := all[r.Method+" "+strings.TrimPrefix(r.URL.Path, "/os/1.0")]
		if !ok {
			doc = "501 there is no such thing"
		}
		var code int
		if _, err := fmt.Sscanf(doc, "%d ", &code); err != nil {
			fmt.Fprintf(w, `{"type":"sync","metadata":%s}`, doc)
			return
		}
		w.WriteHeader(code)
		fmt.Fprintf(w, `{"type":"error","error":%q,"error_code":%d}`, doc[4:], code)
	}))
	t.Cleanup(srv.Close)
	return client.Remote(srv.Client(), srv.URL)
}

func TestTables(t *testing.T) {
	c := answers(t, map[string]string{
		"GET ":                    `{"environment":{"hostname":"node1","os_name":"IncusOS","os_version":"2026","mode":"release","system_is_ready":true,"uptime":3700}}`,
		"GET /applications":       `["/os/1.0/applications/incus"]`,
		"GET /applications/incus": `{"config":{"pin_current_versions":true},"state":{"friendly_version":"7.0.2 [2026]","initialized":true}}`,
		"GET /services":           `["/1.0/services/nvme"]`,
		"GET /services/nvme":      `{"config":{"enabled":true},"state":{}}`,
		"GET /system/storage":     `{"config":{},"state":{"pools":[{"name":"local","state":"ONLINE","pool_allocated_space_in_bytes":1572864,"raw_pool_size_in_bytes":3221225472}]}}`,
		"GET /tasks":              `[{"id":"7","description":"scrub local","status":"running","phase":"reading","done":1,"total":4,"started":"2026-01-02T03:04:05Z"},{"id":"6","description":"install debug","status":"failed","error":"no image","started":"2026-01-02T03:04:05Z"}]`,
		"GET /trial":              `{"resource":"system/network","deadline":"2026-01-02T03:04:05Z"}`,
		"GET /audit":              `[{"time":"2026-01-02T03:04:05Z","who":"local","action":"PUT /1.0/system/kernel","result":"ok"}]`,
		"GET /debug/report":       `{"metrics":[{"name":"memory.total","value":42},{"name":"pool.free","object":"local","value":"x"}]}`,
		"GET /debug/log":          `[{"__REALTIME_TIMESTAMP":"x","SYSLOG_IDENTIFIER":"kernel","MESSAGE":"hello"},{"_COMM":"incusd","MESSAGE":[104,105,27]}]`,
		"PUT /system/network":     `{"text":"write a file\n","steps":[]}`,
		"PUT /system/kernel":      `{"text":"","steps":[]}`,
		"GET /system/network":     `{"config":{"interfaces":[]},"state":{"interfaces":{"lan":{"addresses":["192.0.2.10/24"]}}}}`,
	})
	tests := map[string]struct {
		show func(context.Context, osctl.Printer) error
		want string
	}{
		"info": {func(ctx context.Context, p osctl.Printer) error { return osctl.Info(ctx, c, p) }, `host name          node1
system             IncusOS 2026 (release)
ready              yes
up for             1h1m40s
addresses          192.0.2.10/24
pool local         ONLINE, 1.5 MiB of 3.0 GiB allocated
application incus  7.0.2 [2026]
task 7             scrub local: reading 25%
on trial           system/network, until 2026-01-02T03:04:05Z
`},
		"applications": {func(ctx context.Context, p osctl.Printer) error { return osctl.Applications(ctx, c, p) },
			"NAME   VERSION       SET UP  PINNED\nincus  7.0.2 [2026]  yes     yes\n"},
		"services": {func(ctx context.Context, p osctl.Printer) error { return osctl.Services(ctx, c, p) }, "NAME  ENABLED\nnvme  yes\n"},
		"tasks": {func(ctx context.Context, p osctl.Printer) error { return osctl.Tasks(ctx, c, p) }, `ID  TASK           STATUS   AT           STARTED
7   scrub local    running  reading 25%  2026-01-02 03:04:05
6   install debug  failed   no image     2026-01-02 03:04:05
`},
		"audit": {func(ctx context.Context, p osctl.Printer) error { return osctl.Audit(ctx, c, 1, p) },
			"TIME                 WHO    ACTION                  RESULT\n2026-01-02 03:04:05  local  PUT /1.0/system/kernel  ok\n"},
		"report": {func(ctx context.Context, p osctl.Printer) error { return osctl.Report(ctx, c, nil, p) },
			"METRIC        OF     VALUE\nmemory.total         42\npool.free     local  \"x\"\n"},
		"log": {func(ctx context.Context, p osctl.Printer) error { return osctl.Log(ctx, c, api.DebugLogQuery{}, p) }, " kernel: hello\n incusd: hi \n"},
		"a plan": {func(ctx context.Context, p osctl.Printer) error {
			return osctl.Plan(ctx, osctl.At(c, "system/network"), nil, p)
		}, "write a file\n"},
		"an empty plan": {func(ctx context.Context, p osctl.Printer) error {
			return osctl.Plan(ctx, osctl.At(c, "system/kernel"), nil, p)
		}, "nothing to do\n"},
		"a configuration": {func(ctx context.Context, p osctl.Printer) error {
			return osctl.Show(ctx, osctl.At(c, "system/network"), true, false, p)
		}, "config:\n  interfaces: []\n"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			err := tt.show(t.Context(), osctl.Printer{Out: &b, Format: osctl.Table})
			if diff := cmp.Diff(tt.want, b.String()); diff != "" || err != nil {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
}

func TestExitStatus(t *testing.T) {
	const trial = `{"resource":"system/network","deadline":"2026-01-02T03:04:05Z"}`
	tests := map[string]struct {
		answer, trial string
		want          int
	}{
		"done":                        {`{}`, `null`, osctl.Done},
		"the document is wrong":       {"400 config.mtu: want more", `null`, osctl.Mistake},
		"somebody else was faster":    {"412 changed", `null`, osctl.Mistake},
		"the machine could not":       {"500 broken", `null`, osctl.Failed},
		"this release does not":       {"501 no", `null`, osctl.Failed},
		"another change is on trial":  {"409 waiting", trial, osctl.Pending},
		"it conflicts with something": {"409 busy", `null`, osctl.Failed},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := answers(t, map[string]string{"PUT /system/network": tt.answer, "GET /trial": tt.trial})
			var b bytes.Buffer
			err := osctl.Change(t.Context(), c, osctl.At(c, "system/network"), nil, client.TryOptions{Within: time.Minute}, "confirm it", &b)
			if got := osctl.Code(fmt.Errorf("cannot: %w", err)); err != nil && got != tt.want || err == nil && tt.want != osctl.Done {
				t.Errorf("Change() = %v, status %d; want %d", err, got, tt.want)
			}
			if said := b.String() == "on trial for 1m0s; keep it with: confirm it\n"; said != (err == nil) {
				t.Errorf("said %q", b.String())
			}
		})
	}
}

func TestSave(t *testing.T) {
	name := filepath.Join(t.TempDir(), "backup")
	half := func(_ context.Context, w io.Writer) error {
		_, _ = io.WriteString(w, "half")
		return errors.New("cut")
	}
	if err := osctl.Save(t.Context(), name, half); err == nil || err.Error() != "cut" {
		t.Errorf("Save() = %v", err)
	}
	if _, err := os.Stat(name); err == nil {
		t.Error("half a file is left")
	}
	whole := func(_ context.Context, w io.Writer) error { _, err := io.WriteString(w, "whole"); return err }
	if err := osctl.Save(t.Context(), name, whole); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(name); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v; want it for its owner alone", fi.Mode(), err)
	}
	if err := osctl.Save(t.Context(), name, half); osctl.Code(err) != osctl.Mistake {
		t.Errorf("Save() over a file = %v", err)
	}
	if b, err := os.ReadFile(name); err != nil || string(b) != "whole" {
		t.Errorf("the file is now %q, %v", b, err)
	}
}

func TestAsk(t *testing.T) {
	tests := map[string]struct {
		answer   string
		somebody bool
		yes      bool
	}{
		"yes":    {"y\n", true, true},
		"no":     {"n\n", true, false},
		"return": {"\n", true, false},
		"gone":   {"", true, false},
		"nobody": {"y\n", false, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if err := osctl.Ask(strings.NewReader(tt.answer), io.Discard, tt.somebody, "reboot node1"); (err == nil) != tt.yes {
				t.Errorf("Ask() = %v", err)
			}
		})
	}
}

func TestConnect(t *testing.T) {
	t.Setenv("INCUS_CONF", t.TempDir())
	for name, target := range map[string]osctl.Target{
		"no certificate": {Remote: "https://192.0.2.1:8443"},
		"no such file":   {Remote: "https://192.0.2.1:8443", Cert: "none", Key: "none"},
	} {
		if _, err := target.Connect(); osctl.Code(err) != osctl.Mistake {
			t.Errorf("%s: Connect() = %v", name, err)
		}
	}
	if _, err := (osctl.Target{Socket: "s"}).Connect(); err != nil {
		t.Error(err)
	}
}

// A command that is told to wait shows the tasks that it started and no others,
// and knows of those that had ended by the time it looked.
func TestFollow(t *testing.T) {
	tests := map[string]struct {
		after string // what there is once it was started
		want  string
		fails bool
	}{
		"one that is done":       {`[{"id":"2","description":"scrub local","status":"done"},{"id":"1","description":"old","status":"failed"}]`, "scrub local: done\n", false},
		"one that failed":        {`[{"id":"2","description":"scrub local","status":"failed","error":"no"},{"id":"1","description":"old","status":"failed"}]`, "scrub local: failed: no\n", true},
		"nothing that takes any": {`[{"id":"1","description":"old","status":"failed"}]`, "", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			all := map[string]string{"GET /tasks": `[{"id":"1","description":"old","status":"failed"}]`}
			c := answers(t, all)
			var b bytes.Buffer
			err := osctl.Follow(t.Context(), c, false, &b, func() error { all["GET /tasks"] = tt.after; return nil })
			if b.String() != tt.want || (err != nil) != tt.fails {
				t.Errorf("Follow() = %v and printed %q, want %q", err, b.String(), tt.want)
			}
		})
	}
	c := answers(t, map[string]string{"GET /tasks": "[]"})
	if err := osctl.Follow(t.Context(), c, false, io.Discard, func() error { return io.ErrClosedPipe }); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("what could not be started: Follow() = %v", err)
	}
}

func TestNamesOfDrivesAndPools(t *testing.T) {
	c := answers(t, map[string]string{"GET /system/storage": `{"config":{"scrub_schedule":""},"state":{
		"drives":[{"id":"/dev/disk/by-id/a","boot":true},{"id":"/dev/disk/by-id/b"}],
		"pools":[{"name":"local","volumes":[{"name":"incus"}]},{"name":"data","volumes":[{"name":"fast"}]}]}}`})
	tests := map[string]struct {
		list func(context.Context, *client.Client, []string) ([]string, error)
		want string
	}{
		"drives":  {osctl.Drives, "[/dev/disk/by-id/b]"},
		"pools":   {osctl.Pools, "[local data]"},
		"volumes": {osctl.Volumes, "[fast]"},
	}
	for name, tt := range tests {
		if got, err := tt.list(t.Context(), c, []string{"data"}); fmt.Sprint(got) != tt.want || err != nil {
			t.Errorf("%s are %v, %v; want %s", name, got, err, tt.want)
		}
	}
}

func TestReadKey(t *testing.T) {
	for text, ok := range map[string]bool{"a2V5\n": true, " a2V5": true, "": false, "\n": false, "one\ntwo\n": false} {
		key, err := osctl.ReadKey("-", strings.NewReader(text))
		if ok != (err == nil) || ok && string(key) != "a2V5" || !ok && osctl.Code(err) != osctl.Mistake {
			t.Errorf("ReadKey(%q) = %q, %v", text, string(key), err)
		}
	}
}
