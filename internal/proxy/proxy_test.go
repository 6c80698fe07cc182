package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/incusos/incusos/api"
)

const secret = "correct horse"

// serve returns a running proxy with the configuration that set changes, and a
// client that uses it and trusts anybody.
func serve(t *testing.T, c api.NetworkProxy) (p *Proxy, set func(api.NetworkProxy), client *http.Client) {
	t.Helper()
	var mu sync.Mutex
	p = New(func() api.NetworkProxy { mu.Lock(); defer mu.Unlock(); return c })
	p.roots = x509.NewCertPool()
	p.pool.TLSClientConfig.RootCAs = p.roots
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() { p.Serve(ctx, "127.0.0.1:0") })
	t.Cleanup(func() { cancel(); done.Wait() })
	for p.where() == "" {
		time.Sleep(time.Millisecond)
	}
	pool := &http.Transport{Proxy: p.Through, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true} //nolint:gosec // servers of the test
	return p, func(n api.NetworkProxy) { mu.Lock(); defer mu.Unlock(); c = n }, &http.Client{Transport: pool}
}

func (p *Proxy) where() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open
}

// A corporate proxy is one of the operator's. It is a proxy of another make:
// it shares no code with ours.
type corporate struct {
	*httptest.Server
	takes func(says string) bool

	mu    sync.Mutex
	asked []string // method and destination of each request it took
}

func newCorporate(t *testing.T, secure bool, takes func(string) bool) *corporate {
	t.Helper()
	c := &corporate{takes: takes}
	c.Server = httptest.NewUnstartedServer(http.HandlerFunc(c.serve))
	if secure {
		c.StartTLS()
	} else {
		c.Start()
	}
	t.Cleanup(c.Close)
	return c
}

func (c *corporate) serve(w http.ResponseWriter, r *http.Request) {
	if !c.takes(r.Header.Get("Proxy-Authorization")) {
		w.Header().Set("Proxy-Authenticate", "Basic realm=corp")
		w.WriteHeader(http.StatusProxyAuthRequired)
		return
	}
	c.mu.Lock()
	c.asked = append(c.asked, r.Method+" "+r.Host)
	c.mu.Unlock()
	if r.Method != http.MethodConnect {
		c.page(w, r)
		return
	}
	far, err := net.Dial("tcp", r.Host)
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	defer far.Close()
	near, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	defer near.Close()
	fmt.Fprint(near, "HTTP/1.0 200 ok\r\n\r\n")
	go func() { _, _ = io.Copy(far, buffered) }()
	_, _ = io.Copy(near, far)
}

func (c *corporate) page(w http.ResponseWriter, r *http.Request) {
	r.RequestURI = ""
	r.Header.Del("Proxy-Authorization") // read, and for nobody else
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	defer answer.Body.Close()
	w.WriteHeader(answer.StatusCode)
	_, _ = io.Copy(w, answer.Body)
}

func (c *corporate) seen() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(c.asked, ", ")
}

// anybody takes whoever says nothing.
func anybody(says string) bool { return says == "" }

// user takes whoever knows a password.
func user(name, password string) func(string) bool {
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte(name+":"+password))
	return func(says string) bool { return says == want }
}

// sites are two servers in the world, one of pages and one with TLS. They say
// what the request came with.
func sites(t *testing.T) (plain, secure *httptest.Server) {
	t.Helper()
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s knows %q", r.URL.Path, r.Header.Get("Proxy-Authorization")+r.Header.Get("X-Forwarded-For"))
	})
	plain, secure = httptest.NewServer(h), httptest.NewTLSServer(h)
	t.Cleanup(plain.Close)
	t.Cleanup(secure.Close)
	return plain, secure
}

func get(t *testing.T, c *http.Client, url string) (int, string) {
	t.Helper()
	r, err := c.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

func TestEveryWayLeadsOut(t *testing.T) {
	k := newKDC(t, "node1", secret, "127.0.0.1")
	basicServer := api.NetworkProxyServer{Auth: "basic", Username: "node1", Password: secret}
	kerberosServer := api.NetworkProxyServer{Auth: "kerberos", Username: "node1", Password: secret, Realm: strings.ToLower(realm)}
	for name, tt := range map[string]struct {
		server api.NetworkProxyServer
		tls    bool
		takes  func(string) bool
	}{
		"anonymous":     {api.NetworkProxyServer{}, false, anybody},
		"by name":       {api.NetworkProxyServer{Auth: "anonymous"}, false, anybody},
		"basic":         {basicServer, false, user("node1", secret)},
		"TLS and basic": {basicServer, true, user("node1", secret)},
		"Kerberos":      {kerberosServer, false, k.takes},
		"TLS, Kerberos": {kerberosServer, true, k.takes},
	} {
		t.Run(name, func(t *testing.T) {
			corp := newCorporate(t, tt.tls, tt.takes)
			tt.server.Host, tt.server.UseTLS = corp.Listener.Addr().String(), tt.tls
			p, _, client := serve(t, api.NetworkProxy{Servers: map[string]api.NetworkProxyServer{"corp": tt.server}})
			p.tickets.servers = k.conf()
			if tt.tls {
				p.roots.AddCert(corp.Certificate())
			}
			plain, secure := sites(t)
			for range 2 { // the second time with a ticket that is there
				for _, site := range []string{plain.URL, secure.URL} {
					if code, body := get(t, client, site+"/x"); code != 200 || body != `/x knows ""` {
						t.Errorf("%s: %d %s", site, code, body)
					}
				}
			}
			if want := strings.Repeat(", GET "+plain.Listener.Addr().String()+", CONNECT "+secure.Listener.Addr().String(), 2)[2:]; corp.seen() != want {
				t.Errorf("the proxy was asked for %s, want %s", corp.seen(), want)
			}
			if w := p.Warnings(); len(w) > 0 {
				t.Errorf("Warnings() = %q", w)
			}
		})
	}
	if n := len(k.logins); n != 2 {
		t.Errorf("%d logins, want one for each proxy that was set up", n)
	}
}

func TestWithoutConfigurationEverythingGoesDirectly(t *testing.T) {
	_, _, client := serve(t, api.NetworkProxy{})
	plain, secure := sites(t)
	for _, site := range []string{plain.URL, secure.URL} {
		if code, body := get(t, client, site+"/x"); code != 200 || body != `/x knows ""` {
			t.Errorf("%s: %d %s", site, code, body)
		}
	}
}

func TestAChangeCountsAtOnce(t *testing.T) {
	corp := newCorporate(t, false, user("node1", secret))
	server := api.NetworkProxyServer{Host: corp.Listener.Addr().String(), Auth: "basic", Username: "node1", Password: "former"}
	p, set, client := serve(t, api.NetworkProxy{Servers: map[string]api.NetworkProxyServer{"corp": server}})
	plain, secure := sites(t)
	for _, site := range []string{plain.URL, secure.URL} {
		code, body := get(t, client, site)
		if code == 200 || code == http.StatusProxyAuthRequired || code != 0 && !strings.Contains(body, `over the proxy "corp": it does not take the credentials`) {
			t.Errorf("with a wrong password: %d %s", code, body)
		}
	}
	if w := p.Warnings(); len(w) != 1 || !strings.Contains(w[0], `over the proxy "corp": it does not take the credentials`) {
		t.Errorf("Warnings() = %q", w)
	}
	server.Password = secret
	set(api.NetworkProxy{Servers: map[string]api.NetworkProxyServer{"corp": server}})
	if code, body := get(t, client, secure.URL); code != 200 {
		t.Errorf("with the right password: %d %s", code, body)
	}
	if w := p.Warnings(); len(w) != 0 {
		t.Errorf("Warnings() = %q after it worked", w)
	}
	set(api.NetworkProxy{Rules: []api.NetworkProxyRule{rule("127.*", "none")}})
	if code, body := get(t, client, plain.URL); code != http.StatusForbidden || !strings.Contains(body, `the rule for "127.*"`) {
		t.Errorf("a forbidden page: %d %s", code, body)
	}
	if _, body := get(t, client, secure.URL); !strings.Contains(body, "Forbidden") {
		t.Errorf("a forbidden tunnel: %s", body)
	}
}

func TestKerberosSaysWhatIsWrong(t *testing.T) {
	k := newKDC(t, "node1", secret, "127.0.0.1")
	corp := newCorporate(t, false, k.takes)
	plain, _ := sites(t)
	for name, tt := range map[string]struct {
		change func(*api.NetworkProxyServer)
		want   string
	}{
		"a wrong password":      {func(s *api.NetworkProxyServer) { s.Password = "former" }, "logging in to the realm EXAMPLE.NET"},
		"an unknown user":       {func(s *api.NetworkProxyServer) { s.Username = "node2" }, "logging in to the realm EXAMPLE.NET"},
		"a proxy without a key": {func(s *api.NetworkProxyServer) { s.Host = strings.Replace(s.Host, "127.0.0.1", "localhost", 1) }, "getting a ticket for HTTP/localhost"},
	} {
		t.Run(name, func(t *testing.T) {
			server := api.NetworkProxyServer{Host: corp.Listener.Addr().String(), Auth: "kerberos", Username: "node1", Password: secret, Realm: realm}
			tt.change(&server)
			p, _, client := serve(t, api.NetworkProxy{Servers: map[string]api.NetworkProxyServer{"corp": server}})
			p.tickets.servers = k.conf()
			code, body := get(t, client, plain.URL)
			if code != http.StatusBadGateway || !strings.Contains(body, tt.want) || strings.Contains(body, string(server.Password)) {
				t.Errorf("got %d %s, want 502 and %q", code, body, tt.want)
			}
		})
	}
}

func TestTicketsOfFormerProxiesAreForgotten(t *testing.T) {
	var tt tickets
	a, b := api.NetworkProxyServer{Realm: "a", Username: "a"}, api.NetworkProxyServer{Realm: "b", Username: "b"}
	for _, s := range []api.NetworkProxyServer{a, b, a} {
		if _, err := tt.client(s); err != nil {
			t.Fatal(err)
		}
	}
	if len(tt.clients) != 2 {
		t.Fatalf("%d clients for two proxies", len(tt.clients))
	}
	tt.keep(map[string]api.NetworkProxyServer{"b": b})
	if _, ok := tt.clients[b]; len(tt.clients) != 1 || !ok {
		t.Errorf("%d clients are left", len(tt.clients))
	}
}

func TestNothingSecretIsLogged(t *testing.T) {
	var out bytes.Buffer
	former := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
	defer slog.SetDefault(former)
	corp := newCorporate(t, false, user("node1", "another"))
	plain, secure := sites(t)
	p, _, client := serve(t, api.NetworkProxy{Servers: map[string]api.NetworkProxyServer{"corp": {Host: corp.URL, Auth: "basic", Username: "node1", Password: secret}}})
	_, a := get(t, client, plain.URL)
	_, b := get(t, client, secure.URL)
	all := out.String() + a + b + fmt.Sprintf("%v %+v", p.Warnings(), p.config())
	for _, s := range []string{secret, base64.StdEncoding.EncodeToString([]byte("node1:" + secret))} {
		if strings.Contains(all, s) {
			t.Errorf("the password shows in %s", all)
		}
	}
	if n := strings.Count(out.String(), "A proxy does not work"); n != 1 {
		t.Errorf("the same fault is logged %d times", n)
	}
}

func TestItIsForThisMachineAlone(t *testing.T) {
	p := New(func() api.NetworkProxy { return api.NetworkProxy{} })
	for _, method := range []string{"GET", "CONNECT"} {
		r := httptest.NewRequest(method, "http://example.net/", nil)
		r.RemoteAddr = "192.0.2.1:1"
		w := httptest.NewRecorder()
		p.handler(t.Context()).ServeHTTP(w, r)
		if w.Code != http.StatusForbidden {
			t.Errorf("%s from outside: %d", method, w.Code)
		}
	}
	for _, address := range []string{"0.0.0.0:0", "[::]:0", "192.0.2.1:3128", "localhost:0"} {
		if err := p.serve(t.Context(), address); err == nil || !strings.Contains(err.Error(), "loopback") {
			t.Errorf("serving at %s: %v", address, err)
		}
	}
}

func TestWhatIsNoRequestForAProxy(t *testing.T) {
	p, _, _ := serve(t, api.NetworkProxy{})
	for name, tt := range map[string]struct {
		text string
		want string
	}{
		"a page of its own":    {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
		"another scheme":       {"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
		"TLS without a tunnel": {"GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
		"no port":              {"CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n", "400"},
		"a page of the proxy":  {"GET http://" + p.where() + "/ HTTP/1.1\r\nHost: a\r\n\r\n", "502"},
		"the proxy itself":     {"CONNECT " + p.where() + " HTTP/1.1\r\nHost: a\r\n\r\n", "502"},
		"the same in disguise": {"CONNECT 0.0.0.0" + p.where()[len("127.0.0.1"):] + " HTTP/1.1\r\nHost: a\r\n\r\n", "502"},
		"an endless header":    {"GET http://a/ HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 2*mostHeader) + "\r\n\r\n", "431"},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", p.where())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprint(conn, tt.text)
			got := make([]byte, 12)
			if _, err := io.ReadFull(conn, got); err != nil || string(got[9:]) != tt.want {
				t.Errorf("answer %q, %v; want %s", got, err, tt.want)
			}
		})
	}
}

func TestTheClientsOwnCredentialsGoNowhere(t *testing.T) {
	corp := newCorporate(t, false, anybody)
	_, _, client := serve(t, api.NetworkProxy{Servers: map[string]api.NetworkProxyServer{"corp": {Host: corp.URL}}})
	plain, _ := sites(t)
	r, err := http.NewRequestWithContext(t.Context(), "GET", plain.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Proxy-Authorization", "Basic eA==")
	answer, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != 200 {
		t.Errorf("status %d: what the client said went on to the proxy", answer.StatusCode)
	}
}

func TestAnAddressInUseIsSaid(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := New(func() api.NetworkProxy { return api.NetworkProxy{} })
	if u, err := p.Through(nil); u != nil || err != nil {
		t.Errorf("Through() = %v, %v where no proxy is served", u, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() { p.Serve(ctx, l.Addr().String()) })
	defer done.Wait()
	defer cancel()
	for p.Reconcile(ctx) == nil {
		time.Sleep(time.Millisecond)
	}
	if _, err := p.Through(nil); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("Through() = %v", err)
	}
}

func TestConnectionsAreLimited(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &limited{inner, make(chan struct{}, 1)}
	defer l.Close()
	for range 2 {
		conn, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	first, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	second := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			err = conn.Close()
		}
		second <- err
	}()
	select {
	case <-second:
		t.Fatal("two connections at once")
	case <-time.After(20 * time.Millisecond):
	}
	_ = first.Close()
	_ = first.Close() // gives back one slot only
	if err := <-second; err != nil {
		t.Error(err)
	}
	if len(l.slots) != 0 {
		t.Errorf("%d slots are taken", len(l.slots))
	}
}
