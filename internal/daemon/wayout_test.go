package daemon_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/client"
	"github.com/incusos/incusos/internal/daemon"
	"github.com/incusos/incusos/internal/publish"
	"github.com/incusos/incusos/internal/publish/publishtest"
)

// repository makes an empty repository and serves it. Seen is told of each request.
func repository(t *testing.T, seen func(*http.Request)) (root, address string) {
	t.Helper()
	root, address, _ = repositoryIn(t, seen)
	return root, address
}

// repositoryIn is repository, with the directory that it is in.
func repositoryIn(t *testing.T, seen func(*http.Request)) (root, address, dir string) {
	t.Helper()
	dir, _ = publishtest.New(t)
	contents, err := publish.Show(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	files, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	serve := publish.Handler(files, "")
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen(r)
		serve.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { web.Close(); files.Close() }) //nolint:errcheck // a test
	return string(contents.Root), web.URL, dir
}

// A gatehouse is a proxy of an operator's that alone knows where the repository
// is, and lets nobody pass but one user.
type gatehouse struct {
	*httptest.Server
	mu              sync.Mutex
	passed, refused []string
}

func newGatehouse(t *testing.T, to, name, password string) *gatehouse {
	t.Helper()
	where, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	g := &gatehouse{}
	pass := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(where)
		r.Out.Header.Set("X-Gatehouse", "passed")
	}}
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asks := &http.Request{Header: http.Header{"Authorization": r.Header["Proxy-Authorization"]}}
		user, pw, _ := asks.BasicAuth()
		g.mu.Lock()
		defer g.mu.Unlock()
		if user != name || pw != password {
			g.refused = append(g.refused, r.URL.String())
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		g.passed = append(g.passed, r.URL.String())
		pass.ServeHTTP(w, r)
	}))
	t.Cleanup(g.Close)
	return g
}

// counts returns how many requests passed, and how many were refused.
func (g *gatehouse) counts() (passed, refused int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.passed), len(g.refused)
}

// Updates come over the operator's proxy and in no other way.
func TestUpdatesTakeTheWayOut(t *testing.T) {
	var mu sync.Mutex
	past := 0 // requests that came past the proxy
	root, site := repository(t, func(r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if r.Header.Get("X-Gatehouse") == "" {
			past++
		}
	})
	gate := newGatehouse(t, site, "node1", "correct horse")
	m := start(t, machine(t), func(o *daemon.Options) { o.Proxy = "127.0.0.1:0" })
	m.waitFor("is ready")
	check := func() error {
		t.Helper()
		return m.api.CheckUpdates(t.Context(), api.UpdateCheck{OSOnly: true})
	}
	over := func(password, target string) {
		t.Helper()
		if err := m.api.Network().Put(t.Context(), api.NetworkConfig{Proxy: api.NetworkProxy{
			Servers: map[string]api.NetworkProxyServer{"corp": {Host: gate.Listener.Addr().String(), Auth: "basic", Username: "node1", Password: api.Secret(password)}},
			Rules:   []api.NetworkProxyRule{{Destination: "*", Target: target}},
		}}, client.TryOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	// The name leads nowhere but over the proxy.
	provider := api.SystemProviderConfig{Config: api.ProviderSettings{ServerURL: "http://updates.invalid/", Root: root}}
	if err := m.api.Provider().Put(t.Context(), provider, client.TryOptions{}); err != nil {
		t.Fatal(err)
	}
	over("correct horse", "corp")
	if err := check(); err != nil {
		t.Errorf("over the proxy: %v", err)
	}
	if passed, refused := gate.counts(); passed == 0 || refused != 0 {
		t.Errorf("the proxy let %d requests pass and refused %d; want all passed", passed, refused)
	}
	doc, err := m.api.Update().Get(t.Context())
	if want := fmt.Sprintf("channel %q", "stable"); err != nil || !strings.Contains(doc.State.Status, want) {
		t.Errorf("after the check the state is %+v, %v; want a word on %s", doc.State, err, want)
	}

	// What a rule forbids is not tried in another way, though the address of the
	// server itself is known and would answer.
	provider.Config.ServerURL = site
	if err := m.api.Provider().Put(t.Context(), provider, client.TryOptions{}); err != nil {
		t.Fatal(err)
	}
	over("correct horse", "none")
	if err := check(); err == nil || !strings.Contains(err.Error(), "the server refuses: 403") {
		t.Errorf("with a rule that lets nobody pass: %v; want a refusal", err)
	}
	mu.Lock()
	defer mu.Unlock()
	if past != 0 {
		t.Errorf("%d requests came past the proxy", past)
	}
}
