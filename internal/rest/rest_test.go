package rest_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/rest"
)

const success = `{"type":"sync","status":"Success","status_code":200,"operation":"","error_code":0,"error":"","metadata":`

func TestAnswers(t *testing.T) {
	tests := map[string]struct {
		request string // method and path
		code    int
		body    string
	}{
		"the root":               {"GET /", 200, success + `["/1.0"]}`},
		"the system's parts":     {"GET /1.0/system", 200, success + `["/1.0/system/fallback-listener","/1.0/system/kernel","/1.0/system/logging","/1.0/system/network","/1.0/system/provider","/1.0/system/resources","/1.0/system/security","/1.0/system/storage","/1.0/system/update"]}`},
		"no services":            {"GET /1.0/services", 200, success + `[]}`},
		"a service incusd needs": {"GET /1.0/services/iscsi", 200, success + `{"config":{"enabled":false},"state":{}}}`},
		"applications":           {"GET /1.0/applications", 200, success + `["/1.0/applications/debug","/1.0/applications/incus"]}`},
		"an application":         {"GET /1.0/applications/incus", 200, success + `{"config":{"state":"running"}}}`},
		"unknown query keys":     {"GET /1.0/services?target=node1&x", 200, success + `[]}`},
		"nothing to say":         {"POST /1.0/system/:reboot", 200, success + `{}}`},
		"an unknown path":        {"GET /2.0", 404, failure(404, `\"/2.0\": not found; start at /1.0`)},
		"a path not clean":       {"GET /1.0//system", 404, failure(404, `\"/1.0//system\": not found; start at /1.0`)},
		"a slash too many":       {"GET /1.0/applications/", 404, failure(404, `\"/1.0/applications/\": not found; start at /1.0`)},
		"an unknown application": {"GET /1.0/applications/x", 404, failure(404, `there is no x`)},
		"an unknown method":      {"DELETE /1.0", 405, failure(405, `/1.0 does not know DELETE; want GET, HEAD`)},
		"reading an action":      {"GET /1.0/system/:reboot", 405, failure(405, `/1.0/system/:reboot does not know GET; want POST`)},
		"an area that broke":     {"GET /1.0/system/storage", 500, failure(500, `listing pools: zpool exited with status 1`)},
		"an area not there":      {"GET /1.0/system/security", 501, failure(501, `/1.0/system/security: this release has nothing of the kind`)},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			method, path, _ := strings.Cut(tt.request, " ")
			w := ask(machine(), httptest.NewRequest(method, path, nil))
			if diff := cmp.Diff(tt.body+"\n", w.Body.String()); diff != "" || w.Code != tt.code {
				t.Errorf("answered %d, want %d (-want +got):\n%s", w.Code, tt.code, diff)
			}
			if got := w.Header().Get("Content-Type"); got != "application/json" {
				t.Errorf("Content-Type is %q", got)
			}
		})
	}
}

func TestServicesIncusAsksFor(t *testing.T) {
	for _, name := range []string{"ceph", "iscsi", "linstor", "lvm", "multipath", "netbird", "nvme", "ovn", "tailscale", "usbip"} {
		if w := ask(rest.Machine{}, httptest.NewRequest("GET", "/1.0/services/"+name, nil)); w.Code != http.StatusOK {
			t.Errorf("service %s: %d, want 200", name, w.Code)
		}
	}
	if w := ask(rest.Machine{}, httptest.NewRequest("GET", "/1.0/services/nfs", nil)); w.Code != http.StatusNotFound {
		t.Errorf("service nfs: %d, want 404", w.Code)
	}
}

func TestEnvironmentIsWrapped(t *testing.T) {
	w := ask(machine(), httptest.NewRequest("GET", "/1.0", nil))
	var got struct{ Metadata api.Server }
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if want := "node1"; got.Metadata.Environment.Hostname != want {
		t.Errorf("answered %s; want host name %q", w.Body, want)
	}
}

func TestAllowNamesTheMethods(t *testing.T) {
	w := ask(machine(), httptest.NewRequest("DELETE", "/1.0/services/lvm", nil))
	if got, want := w.Header().Get("Allow"), "GET, HEAD, PUT"; got != want {
		t.Errorf("Allow: %q, want %q", got, want)
	}
}

func TestPrefixIsOnlyTheProxys(t *testing.T) {
	tests := map[string]struct {
		values []string
		want   string
	}{
		"asked directly":            {nil, "/1.0"},
		"through incusd":            {[]string{"/os"}, "/os/1.0"},
		"a client sent one as well": {[]string{"/evil", "/os"}, "/os/1.0"},
		"not incusd's":              {[]string{"/os", "/evil"}, "/1.0"},
		"two values in one":         {[]string{"/evil, /os"}, "/1.0"},
		"nearly":                    {[]string{"/os/"}, "/1.0"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/", nil)
			for _, v := range tt.values {
				r.Header.Add("X-IncusOS-Proxy", v)
			}
			if got, want := ask(machine(), r).Body.String(), success+`["`+tt.want+`"]}`+"\n"; got != want {
				t.Errorf("answered %s, want %s", got, want)
			}
		})
	}
}

func TestBodies(t *testing.T) {
	const limit = 1 << 20
	tests := map[string]struct {
		method string
		path   string
		body   io.Reader
		code   int
		acts   bool
	}{
		"none":                {"POST", "/1.0/system/:reboot", nil, 200, true},
		"as long as can be":   {"POST", "/1.0/system/:reboot", strings.NewReader(strings.Repeat("x", limit)), 200, true},
		"too long":            {"POST", "/1.0/system/:reboot", strings.NewReader(strings.Repeat("x", limit+1)), 413, false},
		"cut short":           {"POST", "/1.0/system/:reboot", io.MultiReader(strings.NewReader("{"), broken{}), 400, false},
		"with GET, not read":  {"GET", "/1.0", broken{}, 200, false},
		"of an unknown route": {"POST", "/nowhere", broken{}, 404, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m, p := machine(), &power{}
			m.Power = p
			if w := ask(m, httptest.NewRequest(tt.method, tt.path, tt.body)); w.Code != tt.code {
				t.Errorf("answered %d %s, want %d", w.Code, w.Body, tt.code)
			}
			if acted := len(p.done) > 0; acted != tt.acts {
				t.Errorf("acted: %v, want %v", acted, tt.acts)
			}
		})
	}
}

// The client has the whole answer while the machine is still about to restart.
func TestPowerAnswersBeforeItActs(t *testing.T) {
	for path, want := range map[string]string{"/1.0/system/:reboot": "reboot", "/1.0/system/:poweroff": "poweroff", "/1.0/system/:suspend": "suspend"} {
		m, p := machine(), &power{release: make(chan struct{})}
		m.Power = p
		srv := httptest.NewServer(rest.Handler(m))
		resp, err := http.Post(srv.URL+path, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || string(body) != success+"{}}\n" {
			t.Errorf("%s: read %q, %v before acting", path, body, err)
		}
		resp.Body.Close()
		close(p.release)
		srv.Close() // waits for the handler
		if !slices.Equal(p.done, []string{want}) {
			t.Errorf("%s: did %q, want %q", path, p.done, want)
		}
	}
}

func FuzzRequest(f *testing.F) {
	f.Add("GET", "/1.0", "/os", "")
	f.Add("POST", "/1.0/system/:reboot", "", "{}")
	f.Add("GET", "/1.0/services/../%2f{name}?a", "/evil", "\"\"")
	srv := httptest.NewServer(rest.Handler(machine()))
	f.Cleanup(srv.Close)
	addr := srv.Listener.Addr().String()
	f.Fuzz(func(t *testing.T, method, target, proxy, body string) {
		r, err := http.NewRequestWithContext(t.Context(), method, "http://"+addr, strings.NewReader(body))
		if err != nil || method == http.MethodConnect {
			t.Skip("not a request")
		}
		r.URL.Opaque = "/" + strings.TrimLeft(target, "/")
		r.Header.Set("X-IncusOS-Proxy", proxy)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Skip("not a request")
		}
		defer resp.Body.Close()
		if resp.StatusCode == http.StatusBadRequest && resp.Header.Get("Content-Type") != "application/json" {
			t.Skip("refused by net/http")
		}
		checkEnvelope(t, method, resp)
	})
}

func checkEnvelope(t *testing.T, method string, resp *http.Response) {
	t.Helper()
	var env api.Response
	if method == http.MethodHead {
		return
	}
	if err := json.NewDecoder(resp.Body).Decode(&env); err != nil {
		t.Fatalf("answer %d is no envelope: %v", resp.StatusCode, err)
	}
	ok := env.Type == "sync" && env.StatusCode == 200 && resp.StatusCode == 200 && env.Error == "" && env.Metadata != nil
	refused := env.Type == "error" && env.ErrorCode == resp.StatusCode && resp.StatusCode >= 400 && env.Error != ""
	if !ok && !refused {
		t.Errorf("answered %d %+v", resp.StatusCode, env)
	}
}

func machine() rest.Machine {
	return rest.Machine{
		Environment:  func(context.Context) (api.Environment, error) { return api.Environment{Hostname: "node1"}, nil },
		Storage:      brokenStorage{},
		Applications: &family{configs: map[string]any{"incus": map[string]string{"state": "running"}, "debug": nil}},
		Power:        &power{},
	}
}

func ask(m rest.Machine, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	rest.Handler(m).ServeHTTP(w, r)
	return w
}

func failure(code int, text string) string {
	c := strconv.Itoa(code)
	return `{"type":"error","status":"","status_code":0,"operation":"","error_code":` + c + `,"error":"` + text + `","metadata":null}`
}

// power notes what it was asked for once it is released.
type power struct {
	release chan struct{} // nil: at once
	done    []string
}

func (p *power) Reboot(context.Context) error   { return p.do("reboot") }
func (p *power) Poweroff(context.Context) error { return p.do("poweroff") }
func (p *power) Suspend(context.Context) error  { return p.do("suspend") }

func (p *power) do(what string) error {
	if p.release != nil {
		<-p.release
	}
	p.done = append(p.done, what)
	return nil
}

// broken is the body of a client that went away.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, &net.OpError{Op: "read", Err: io.ErrUnexpectedEOF} }
