package rest_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/change"
	"github.com/incusos/incusos/internal/rest"
)

const kernelPath = "/1.0/system/kernel"

func put(m rest.Machine, path, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("PUT", path, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return ask(m, r)
}

func TestPutChangesTheConfiguration(t *testing.T) {
	const body = `{"config":{"cpu":{"scaling_governor":"performance"}},"state":{"anything":[1]}}`
	tests := map[string]struct {
		query, body string
		code        int
		within      time.Duration
		says        string
	}{
		"at once":                 {"", body, 200, 0, `"metadata":{}`},
		"on trial":                {"?confirmation_timeout=90s", body, 200, 90 * time.Second, `"metadata":{}`},
		"on trial for too long":   {"?confirmation_timeout=2h", body, 400, 0, `confirmation_timeout: \"2h\" is no time to confirm in; want one of up to an hour, such as \"2m\"`},
		"an unknown field":        {"", `{"config":{"cpu":{"governor":"x"}}}`, 400, 0, "config.cpu.governor: is unknown; want one of scaling_governor"},
		"an unknown half":         {"", `{"config":{},"status":{}}`, 400, 0, "status: is unknown; want one of config, state"},
		"a field of another case": {"", `{"config":{"CPU":{}}}`, 400, 0, "config.CPU: is unknown"},
		"a number for text":       {"", `{"config":{"cpu":{"scaling_governor":7}}}`, 400, 0, "config.cpu.scaling_governor: is 7; want text"},
		"text for a number":       {"", `{"config":{"memory":{"persistent_hugepages":"7"}}}`, 400, 0, `config.memory.persistent_hugepages: is \"7\"; want a whole number`},
		"half a number":           {"", `{"config":{"memory":{"persistent_hugepages":1.5}}}`, 400, 0, "config.memory.persistent_hugepages: is 1.5; want a whole number"},
		"a list for an object":    {"", `{"config":[]}`, 400, 0, "config: is a list; want an object"},
		"in a list":               {"", `{"config":{"blacklist_modules":["a",true]}}`, 400, 0, "config.blacklist_modules[1]: is true; want text"},
		"no body":                 {"", "", 400, 0, "body: is empty; want a document in JSON"},
		"no configuration":        {"", `{"state":{}}`, 400, 0, "config: is missing; want the whole configuration"},
		"no JSON":                 {"", "{\n  nope}", 400, 0, "body: is not JSON: line 2, column 3"},
		"two documents":           {"", body + "{}", 400, 0, "body: has something after the document"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			k := &kernel{}
			w := put(rest.Machine{Kernel: k}, kernelPath+tt.query, tt.body)
			if w.Code != tt.code || !strings.Contains(w.Body.String(), tt.says) {
				t.Errorf("answered %d %s, want %d and %q", w.Code, w.Body, tt.code, tt.says)
			}
			if tried := k.tried > 0; tried != (tt.code == 200) || k.within != tt.within {
				t.Errorf("tried %v within %v", tried, k.within)
			}
		})
	}
}

func TestDryRunAnswersWithThePlan(t *testing.T) {
	k := &kernel{}
	w := put(rest.Machine{Kernel: k}, kernelPath+"?dry-run", `{"config":{"cpu":{"scaling_governor":"performance"}}}`)
	const want = `{"text":"set the governor to performance (slower for a moment)\n","steps":[{"action":"set","object":"the governor to performance","risk":"slower for a moment"}]}`
	if w.Code != 200 || !strings.Contains(w.Body.String(), want) || k.tried > 0 {
		t.Errorf("answered %d %s, tried %d times; want %s", w.Code, w.Body, k.tried, want)
	}
}

func TestIfMatchRefusesToChangeWhatWasNotRead(t *testing.T) {
	k := &kernel{}
	m := rest.Machine{Kernel: k}
	etag := ask(m, httptest.NewRequest("GET", kernelPath, nil)).Header().Get("ETag")
	const body = `{"config":{"cpu":{"scaling_governor":"performance"}}}`
	if w := put(m, kernelPath, body, "If-Match", etag); w.Code != 200 {
		t.Errorf("with the tag that was read: %d %s", w.Code, w.Body)
	}
	if w := put(m, kernelPath, body, "If-Match", etag); w.Code != 412 || !strings.Contains(w.Body.String(), "was changed since it was read") {
		t.Errorf("with an old tag: %d %s", w.Code, w.Body)
	}
	if w := put(m, kernelPath, body, "If-Match", "*"); w.Code != 200 {
		t.Errorf("with any tag: %d %s", w.Code, w.Body)
	}
}

func TestErrorsBecomeStatusCodes(t *testing.T) {
	tests := map[string]struct {
		err  error
		code int
	}{
		"a field":                {api.Fieldf("cpu", "is wrong"), 400},
		"something pending":      {&change.PendingError{Resource: "x"}, 409},
		"nothing to confirm":     {change.ErrNoTrial, 400},
		"a failure":              {&change.Failure{Resource: "x", Err: errors.New("no")}, 500},
		"a failure for a reason": {&change.Failure{Resource: "x", Err: api.Errorf(api.Invalid, "no")}, 400},
		"a failure of a field":   {&change.Failure{Resource: "x", Err: api.Fieldf("cpu", "no")}, 400},
		"one that is in the way": {&change.Failure{Resource: "x", Err: fmt.Errorf("doing: %w", api.Errorf(api.Conflict, "no"))}, 409},
		"a failure to go back":   {&change.Failure{Resource: "x", Err: api.Errorf(api.Invalid, "no"), Back: errors.New("no")}, 500},
		"a conflict":             {fmt.Errorf("doing: %w", api.Errorf(api.Conflict, "no")), 409},
		"not now":                {api.Errorf(api.Unavailable, "no"), 503},
		"not allowed":            {api.Errorf(api.Forbidden, "no"), 403},
		"something else":         {errors.New("no"), 500},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m := rest.Machine{Kernel: &kernel{failure: tt.err}}
			if w := put(m, kernelPath, `{"config":{}}`); w.Code != tt.code {
				t.Errorf("answered %d %s, want %d", w.Code, w.Body, tt.code)
			}
		})
	}
}

// A client knows no other names of fields than those in the document it sends.
func TestFieldsAreNamedWithTheirPlace(t *testing.T) {
	tests := map[string]struct {
		err  error
		says string
	}{
		"by the area":                     {api.Fieldf("cpu.scaling_governor", "is wrong"), `"config.cpu.scaling_governor: is wrong"`},
		"by an area that knows the place": {api.Fieldf("config.cpu", "is wrong"), `"config.cpu: is wrong"`},
		"after trying": {&change.Failure{Resource: "system/kernel", Err: api.Fieldf("cpu", "is wrong")},
			`"cannot change system/kernel: config.cpu: is wrong; the machine is back on the saved configuration"`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for _, query := range []string{"", "?dry-run"} {
				m := rest.Machine{Kernel: &kernel{failure: tt.err}}
				if w := put(m, kernelPath+query, `{"config":{}}`); !strings.Contains(w.Body.String(), tt.says) {
					t.Errorf("with %q it says %s, want %s", query, w.Body, tt.says)
				}
			}
		})
	}
}

// Incus asks for everything it knows of; what a machine lacks would fill its log.
func TestWhatIsNotThereIsNoNews(t *testing.T) {
	tests := map[string]struct {
		err  error
		news bool
	}{
		"what this release has not": {api.Errorf(api.Unsupported, "no"), false},
		"what is not there":         {api.Errorf(api.NotFound, "no"), false},
		"a mistake":                 {api.Errorf(api.Invalid, "no"), true},
		"a failure":                 {errors.New("no"), true},
	}
	before := slog.Default()
	defer slog.SetDefault(before)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var log strings.Builder
			slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
			put(rest.Machine{Kernel: &kernel{failure: tt.err}}, kernelPath, `{"config":{}}`)
			if news := log.Len() > 0; news != tt.news {
				t.Errorf("logged %q", log.String())
			}
		})
	}
}

func TestChangesAreWrittenDown(t *testing.T) {
	a := &audit{}
	k := &kernel{config: api.SystemKernelConfig{BlacklistModules: []string{"floppy"}}}
	m := rest.Machine{Kernel: k, Audit: a, Applications: &family{}, Power: &power{}}
	const body = `{"config":{}}`
	put(m, kernelPath, body, "X-IncusOS-Proxy", "/os")
	put(m, kernelPath+"?dry-run", body)
	put(m, kernelPath, "oops")
	ask(m, httptest.NewRequest("GET", kernelPath, nil))
	ask(m, httptest.NewRequest("GET", "/1.0/system/security", nil))
	ask(m, httptest.NewRequest("POST", "/1.0/system/:reboot", nil).WithContext(rest.WithWho(t.Context(), "listener:ab")))
	var got []string
	for _, e := range a.entries {
		got = append(got, fmt.Sprintf("%s %s %s->%s %.20s", e.Who, e.Action, e.Before, e.After, e.Result))
	}
	want := []string{
		`incus PUT /1.0/system/kernel {"blacklist_modules":["floppy"]}->{} ok`,
		"local PUT /1.0/system/kernel -> body: is not JSON: l",
		"local GET /1.0/system/security -> /1.0/system/security",
		"listener:ab POST /1.0/system/:reboot -> ok",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the log (-want +got):\n%s", diff)
	}
}

// incusd asks for services by itself all the time; whoever else reads the keys in
// them is written down each time.
func TestReadingsOfSecretsAreWrittenDown(t *testing.T) {
	a := &audit{}
	m := rest.Machine{Audit: a}
	for range 2 {
		for _, tt := range []struct{ path, host, prefix string }{
			{"/1.0/services/iscsi", "incus-os", ""},    // incusd
			{"/1.0/services/iscsi", "incus-os", "/os"}, // a client that names the same host
			{"/1.0/services/iscsi", "local", ""},       // ours
			{"/1.0/services/lvm", "incus-os", ""},      // has no keys
			{"/1.0/services", "incus-os", ""},
		} {
			r := httptest.NewRequest("GET", tt.path, nil)
			r.Host = tt.host
			if tt.prefix != "" {
				r.Header.Set("X-IncusOS-Proxy", tt.prefix)
			}
			ask(m, r)
		}
	}
	var got []string
	for _, e := range a.entries {
		got = append(got, e.Who+" "+e.Action)
	}
	const get = " GET /1.0/services/iscsi"
	if want := []string{"incus itself" + get, "incus" + get, "local" + get, "incus" + get, "local" + get}; !slices.Equal(got, want) {
		t.Errorf("the log is %q, want %q", got, want)
	}
}

func TestStreams(t *testing.T) {
	f := &family{configs: map[string]any{"incus": nil}}
	m := rest.Machine{Applications: f}
	w := ask(m, httptest.NewRequest("POST", "/1.0/applications/incus/:backup", nil))
	if w.Code != 200 || w.Header().Get("Content-Type") != "application/gzip" || w.Body.String() != "archive" {
		t.Errorf("a backup: %d %q %s", w.Code, w.Header(), w.Body)
	}
	w = ask(m, httptest.NewRequest("POST", "/1.0/applications/incus/:restore", strings.NewReader(strings.Repeat("x", 2<<20))))
	if w.Code != 200 || len(f.restored) != 2<<20 {
		t.Errorf("a restore: %d %s, %d bytes", w.Code, w.Body, len(f.restored))
	}
	f.restored = ""
	w = ask(m, httptest.NewRequest("POST", "/1.0/applications/incus/:restore", broken{}))
	if w.Code != 400 || f.restored != "" || !strings.Contains(w.Body.String(), "ended before its body was complete") {
		t.Errorf("a restore that was cut: %d %s, restored %q", w.Code, w.Body, f.restored)
	}
}

func FuzzPut(f *testing.F) {
	f.Add(`{"config":{"cpu":{"scaling_governor":"x"},"pci":{"sriov":[{"vf_count":3}]}},"state":null}`)
	f.Add(`{"config":{"memory":{"persistent_hugepages":1e99}}}`)
	f.Fuzz(func(t *testing.T, body string) {
		k := &kernel{}
		w := put(rest.Machine{Kernel: k}, kernelPath, body)
		if w.Code != 200 && w.Code != 400 && w.Code != 413 || (w.Code == 200) != (k.tried == 1) {
			t.Errorf("answered %d %s, tried %d times", w.Code, w.Body, k.tried)
		}
	})
}
