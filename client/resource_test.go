package client_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/client"
)

// echo answers with what it was asked.
func echo(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	w.Header().Set("ETag", `"tag"`)
	fmt.Fprintf(w, `{"type":"sync","metadata":{"text":%q}}`, r.URL.RawQuery+" "+r.Header.Get("If-Match")+" "+string(b))
}

func TestTryingAChange(t *testing.T) {
	asked := ""
	c := server(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		asked = fmt.Sprintf("%s %q %s", r.URL.RawQuery, r.Header.Get("If-Match"), b)
		w.Header().Set("ETag", `"tag"`)
		fmt.Fprint(w, `{"type":"sync","metadata":{"text":"set it\n","steps":[{"action":"set","object":"it"}]}}`)
	})
	config := api.SystemKernelConfig{BlacklistModules: []string{"floppy"}}
	const body = `{"config":{"blacklist_modules":["floppy"]}}`

	plan, err := c.Kernel().Plan(t.Context(), config)
	if err != nil || plan.Steps[0].Object != "it" || asked != `dry-run= "" `+body {
		t.Errorf("Plan() = %+v, %v; asked %s", plan, err, asked)
	}
	_, tag, err := c.Kernel().Tagged(t.Context())
	if err != nil || tag != `"tag"` {
		t.Errorf("Tagged() = %q, %v", tag, err)
	}
	err = c.Kernel().Put(t.Context(), config, client.TryOptions{Within: 2 * time.Minute, IfMatch: tag})
	if want := `confirmation_timeout=2m0s "\"tag\"" ` + body; err != nil || asked != want {
		t.Errorf("Put() = %v; asked %s, want %s", err, asked, want)
	}
}

func TestArchives(t *testing.T) {
	tests := map[string]struct {
		answer http.HandlerFunc
		status int    // of the refusal
		got    string // what was written
		fails  bool
	}{
		"all of it": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/gzip")
			fmt.Fprint(w, "all")
		}, 0, "all", false},
		"a refusal": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNotImplemented)
			fmt.Fprint(w, `{"type":"error","error":"no","error_code":501}`)
		}, 501, "", true},
		"a document": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"type":"sync","metadata":{}}`)
		}, 0, "", true},
		"cut short": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/gzip")
			fmt.Fprint(w, "half")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}, 0, "half", true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			err := server(t, tt.answer).Bundle(t.Context(), &b)
			status := 0
			if e, ok := errors.AsType[*client.Error](err); ok {
				status = e.Status
			}
			if (err != nil) != tt.fails || status != tt.status || b.String() != tt.got {
				t.Errorf("Bundle() = %v with status %d, wrote %q", err, status, b.String())
			}
		})
	}
}

func TestQueries(t *testing.T) {
	var asked []string
	c := server(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.RawQuery)
		fmt.Fprint(w, `{"type":"sync","metadata":null}`)
	})
	_, err1 := c.Log(t.Context(), api.DebugLogQuery{Unit: "incus.service", Boot: "-1", Entries: 5})
	_, err2 := c.Report(t.Context(), "cpu", "memory")
	_, err3 := c.Audit(t.Context(), 7)
	err4 := c.Restore(t.Context(), archive(), "network-macs", "encryption-recovery-keys")
	want := []string{"boot=-1&entries=5&unit=incus.service", "match=cpu&match=memory", "entries=7", "skip=network-macs%2Cencryption-recovery-keys"}
	if diff := cmp.Diff(want, asked); diff != "" || errors.Join(err1, err2, err3, err4) != nil {
		t.Errorf("queries (-want +got):\n%s\n%v", diff, errors.Join(err1, err2, err3, err4))
	}
}

func TestConnect(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(echo))
	t.Cleanup(srv.Close)
	mine, other := certificate(t), certificate(t)
	tests := map[string]struct {
		base   string
		server []byte
		works  bool
	}{
		"the certificate of the machine": {srv.URL, inPEM(srv.Certificate().Raw), true},
		"that of another":                {srv.URL, other.Cert, false},
		"none, and nobody vouches":       {srv.URL, nil, false},
		"no certificate at all":          {srv.URL, []byte("x"), false},
		"no address":                     {"machine:8443", nil, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c, err := client.Connect(tt.base, client.Certificates{Cert: mine.Cert, Key: mine.Key, Server: tt.server})
			if err == nil {
				_, err = c.Server(t.Context())
			}
			if (err == nil) != tt.works {
				t.Errorf("asking = %v, want it to work: %v", err, tt.works)
			}
		})
	}
	if _, err := client.Connect(srv.URL, client.Certificates{}); err == nil {
		t.Error("connected without a certificate")
	}
}

func TestMetricsThroughIncus(t *testing.T) {
	c := server(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "# ", r.URL.Path) })
	var b bytes.Buffer
	if err := c.Metrics(t.Context(), &b); err != nil || b.String() != "# /1.0/metrics" {
		t.Errorf("Metrics() = %v, wrote %q", err, b.String())
	}
}
