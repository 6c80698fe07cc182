package listener_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/listener"
	"github.com/incusos/incusos/internal/sys/systest"
)

const (
	incus = "incus.service"
	own   = "/var/lib/incus-os/fallback-listener.pem"
)

// A pair is a certificate with its key.
type pair struct {
	tls.Certificate
	cert, key   string // in PEM
	fingerprint string
}

func newPair(t *testing.T) pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(-time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(der)
	return pair{
		tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})),
		hex.EncodeToString(sum[:]),
	}
}

type markKey struct{}

// A served is a listener on a machine, which serves what tells who asked for
// what.
type served struct {
	*listener.Listener
	t    *testing.T
	rig  *systest.Rig
	news chan struct{}
	end  func()
}

func mark(ctx context.Context, prefix, who string) context.Context {
	return context.WithValue(ctx, markKey{}, prefix+" "+who)
}

func serve(t *testing.T, prepare func(*systest.Rig)) *served {
	t.Helper()
	s := &served{t: t, rig: systest.New(t, systest.Sensible()), news: make(chan struct{}, 99)}
	prepare(s.rig)
	s.Listener = listener.New(s.rig.Host, listener.Options{Mark: mark, News: func() { s.news <- struct{}{} }})
	s.Patience = 20 * time.Millisecond
	s.Applications(nil) // the machine has started
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Serve(ctx, http.HandlerFunc(tell))
	}()
	s.end = func() { cancel(); <-done }
	t.Cleanup(s.end)
	return s
}

func tell(w http.ResponseWriter, r *http.Request) {
	if strings.HasSuffix(r.URL.Path, "/slow") {
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		time.Sleep(100 * time.Millisecond)
	}
	fmt.Fprintf(w, "%v %s %s %s %q", r.Context().Value(markKey{}), r.Method, r.Proto, r.URL.EscapedPath(), r.Header.Get("X-IncusOS-Proxy"))
}

func up(rig *systest.Rig)   { rig.Units.Become(incus, "active") }
func down(rig *systest.Rig) { rig.Units.Become(incus, "failed") }

// trust has the listener trust clients, on any port of this system.
func (s *served) trust(clients ...pair) {
	s.t.Helper()
	c := api.SystemFallbackListenerConfig{ListenAddress: "127.0.0.1:0"}
	for _, p := range clients {
		c.TrustedClientCertificates = append(c.TrustedClientCertificates, p.cert)
	}
	if err := s.Apply(s.t.Context(), c); err != nil {
		s.t.Fatal(err)
	}
}

// becomes waits until the listener is open or closed.
func (s *served) becomes(open bool) string {
	s.t.Helper()
	for range 4000 {
		if state := s.State(); state.Active == open {
			return state.Address
		}
		time.Sleep(5 * time.Millisecond)
	}
	s.t.Fatalf("the listener is %+v, want open: %v", s.State(), open)
	return ""
}

// browser returns a client that shows certificates and goes by any certificate
// of the machine.
func browser(t *testing.T, pairs ...pair) *http.Client {
	t.Helper()
	config := &tls.Config{InsecureSkipVerify: true} //nolint:gosec // the tests compare it
	for _, p := range pairs {
		config.Certificates = append(config.Certificates, p.Certificate)
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

func get(t *testing.T, c *http.Client, url string, headers ...string) (code int, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestOnlyTrustedClientsAreLetIn(t *testing.T) {
	s := serve(t, down)
	trusted, stranger := newPair(t), newPair(t)
	s.trust(trusted)
	url := "https://" + s.becomes(true)
	who := "/os listener:" + trusted.fingerprint[:12]
	tests := map[string]struct {
		client  []pair
		path    string
		headers []string
		code    int
		want    string // part of the answer
	}{
		"a trusted client":             {[]pair{trusted}, "/os/1.0", nil, 200, who + ` POST HTTP/2.0 /1.0 ""`},
		"the root":                     {[]pair{trusted}, "/os", nil, 200, ` / ""`},
		"an escaped path":              {[]pair{trusted}, "/os/1.0/a%2Fb%20c", nil, 200, ` /1.0/a%2Fb%20c ""`},
		"the prefix is cut off once":   {[]pair{trusted}, "/os/os/1.0", nil, 200, ` /os/1.0 ""`},
		"a faked prefix":               {[]pair{trusted}, "/os/1.0", []string{"X-IncusOS-Proxy: /evil"}, 200, who + ` POST HTTP/2.0 /1.0 ""`},
		"what Incus would answer":      {[]pair{trusted}, "/1.0", nil, 404, "its system does at /os/1.0"},
		"almost the prefix":            {[]pair{trusted}, "/osx", nil, 404, "its system does at /os/1.0"},
		"a page of another site":       {[]pair{trusted}, "/os/1.0", []string{"Sec-Fetch-Site: cross-site"}, 403, "another site"},
		"an unknown certificate":       {[]pair{stranger}, "/os/1.0", nil, 403, stranger.fingerprint + " is not trusted here"},
		"an unknown one elsewhere":     {[]pair{stranger}, "/1.0", nil, 403, "is not trusted here"},
		"no certificate":               {nil, "/os/1.0", nil, 403, "no client certificate"},
		"no certificate, other header": {nil, "/os/1.0", []string{"X-IncusOS-Proxy: /os"}, 403, "no client certificate"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			code, body := get(t, browser(t, tt.client...), url+tt.path, tt.headers...)
			if code != tt.code || !strings.Contains(body, tt.want) {
				t.Errorf("answered %d %s; want %d and %s", code, body, tt.code, tt.want)
			}
			var env api.Response
			if err := json.Unmarshal([]byte(body), &env); code != 200 && (err != nil || env.Type != "error" || env.ErrorCode != code) {
				t.Errorf("the refusal is no envelope: %s, %v", body, err)
			}
		})
	}
}

func TestOldProtocolsAreRefused(t *testing.T) {
	s := serve(t, down)
	client := newPair(t)
	s.trust(client)
	address := s.becomes(true)
	old := &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, Certificates: []tls.Certificate{client.Certificate}} //nolint:gosec // that is the point
	if conn, err := (&tls.Dialer{Config: old}).DialContext(t.Context(), "tcp", address); err == nil {
		conn.Close()
		t.Error("TLS 1.2 was accepted")
	}
	one := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}, Certificates: []tls.Certificate{client.Certificate}} //nolint:gosec // see browser
	plain := &http.Client{Transport: &http.Transport{TLSClientConfig: one, DisableKeepAlives: true}}
	if code, body := get(t, plain, "https://"+address+"/os/1.0"); code != 200 || !strings.Contains(body, " HTTP/1.1 ") {
		t.Errorf("HTTP/1.1: answered %d %s", code, body)
	}
	if code, _ := get(t, http.DefaultClient, "http://"+address+"/os/1.0"); code != 400 {
		t.Errorf("without TLS: answered %d, want 400", code)
	}
}

func TestItIsOpenOnlyWhileIncusDoesNotAnswer(t *testing.T) {
	s := serve(t, up)
	s.trust(newPair(t))
	time.Sleep(60 * time.Millisecond)
	if s.State().Active || len(s.Warnings()) > 0 {
		t.Fatalf("it is open although Incus answers: %+v, %q", s.State(), s.Warnings())
	}
	down(s.rig)
	address := s.becomes(true)
	if w := s.Warnings(); len(w) != 1 || !strings.Contains(w[0], "https://"+address+"/os") || !strings.Contains(w[0], s.State().Fingerprint) {
		t.Errorf("Warnings() = %q", w)
	}
	up(s.rig)
	s.becomes(false)
	if conn, err := net.Dial("tcp", address); err == nil {
		conn.Close()
		t.Error("it still listens")
	}
	s.Applications(errors.New("Incus does not answer"))
	s.becomes(true)
	s.Applications(nil)
	s.becomes(false)
	if len(s.news) != 4 {
		t.Errorf("%d news, want 4", len(s.news))
	}
}

func TestWithoutTrustedClientsThereIsNone(t *testing.T) {
	s := serve(t, down)
	s.trust()
	time.Sleep(60 * time.Millisecond)
	if s.State().Active {
		t.Error("it is open and trusts nobody")
	}
	client, other := newPair(t), newPair(t)
	s.trust(client, other)
	url := "https://" + s.becomes(true) + "/os"
	c := browser(t, client)
	if code, _ := get(t, c, url); code != 200 {
		t.Fatalf("answered %d", code)
	}
	s.trust(other)
	if code, _ := get(t, c, url); code != 403 {
		t.Errorf("on the same connection, a client that is trusted no more got %d", code)
	}
	s.trust()
	s.becomes(false)
}

// Incus needs the port while whoever repairs it is still connected.
func TestIncusFindsItsPortFree(t *testing.T) {
	s := serve(t, down)
	client := newPair(t)
	s.trust(client)
	address := s.becomes(true)
	c := browser(t, client)
	get(t, c, "https://"+address+"/os")
	s.rig.Units.Become(incus, "activating")
	s.becomes(false)
	port, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatalf("the port is not free: %v", err)
	}
	defer port.Close()
	if code, _ := get(t, c, "https://"+address+"/os"); code != 200 {
		t.Errorf("who is connected got %d", code)
	}
}

func TestRequestsInProgressAreAnswered(t *testing.T) {
	s := serve(t, down)
	client := newPair(t)
	s.trust(client)
	resp, err := browser(t, client).Get("https://" + s.becomes(true) + "/os/slow")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	up(s.rig)
	s.becomes(false)
	s.end()
	if b, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(b), "/slow") {
		t.Errorf("the answer is %q, %v", b, err)
	}
}

func TestAPortThatIsTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	s := serve(t, up)
	config := api.SystemFallbackListenerConfig{ListenAddress: taken.Addr().String(), TrustedClientCertificates: []string{newPair(t).cert}}
	s.Applications(errors.New("a pool is missing"))
	time.Sleep(60 * time.Millisecond)
	if err := s.Apply(t.Context(), config); err != nil || len(s.Warnings()) > 0 {
		t.Errorf("by Incus itself: %v, %q; want no complaint", err, s.Warnings())
	}
	s.rig.Units.Become(incus, "inactive")
	for range 400 {
		if len(s.Warnings()) > 0 {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if w := s.Warnings(); len(w) != 1 || !strings.Contains(w[0], "address already in use") {
		t.Errorf("by somebody else: Warnings() = %q", w)
	}
	if err := s.Apply(t.Context(), config); err == nil {
		t.Error("by somebody else: Apply() succeeded")
	}
}

func TestTheMachineShowsTheCertificateOfIncus(t *testing.T) {
	server, cluster := newPair(t), newPair(t)
	write := func(name string, p pair) func(*systest.Rig) {
		return func(rig *systest.Rig) {
			err := errors.Join(rig.Host.Files.WriteFile("/var/lib/incus/"+name+".crt", []byte(p.cert), 0o644), rig.Host.Files.WriteFile("/var/lib/incus/"+name+".key", []byte(p.key), 0o600))
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, tt := range map[string]struct {
		prepare []func(*systest.Rig)
		want    string // "" is one of its own
	}{
		"of a server":       {[]func(*systest.Rig){write("server", server)}, server.fingerprint},
		"of a cluster":      {[]func(*systest.Rig){write("server", server), write("cluster", cluster)}, cluster.fingerprint},
		"that is damaged":   {[]func(*systest.Rig){write("server", pair{cert: "x", key: "y"})}, ""},
		"that is not there": {nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, func(rig *systest.Rig) {
				down(rig)
				for _, p := range tt.prepare {
					p(rig)
				}
			})
			client := newPair(t)
			s.trust(client)
			resp, err := browser(t, client).Get("https://" + s.becomes(true) + "/os")
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			sum := sha256.Sum256(resp.TLS.PeerCertificates[0].Raw)
			shown := hex.EncodeToString(sum[:])
			if tt.want != "" && shown != tt.want || shown != s.State().Fingerprint {
				t.Errorf("it shows %s and says %s, want %s", shown, s.State().Fingerprint, tt.want)
			}
			fi, err := s.rig.Host.Files.Stat(own)
			if tt.want == "" && (err != nil || fi.Mode().Perm() != 0o600) || tt.want != "" && err == nil {
				t.Errorf("its own certificate: %v, %v", fi, err)
			}
		})
	}
}

func TestItsOwnCertificateStays(t *testing.T) {
	rig := systest.New(t, systest.Sensible())
	show := func() string {
		l := listener.New(rig.Host, listener.Options{Mark: mark})
		l.Patience = time.Nanosecond
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan struct{})
		defer func() { cancel(); <-done }()
		go func() { defer close(done); l.Serve(ctx, http.NotFoundHandler()) }()
		s := &served{Listener: l, t: t, rig: rig}
		s.trust(newPair(t))
		s.becomes(true)
		return s.State().Fingerprint
	}
	first := show()
	if second := show(); second != first {
		t.Errorf("after a restart it is %s, was %s", second, first)
	}
	if err := rig.Host.Files.WriteFile(own, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if third := show(); third == first || len(third) != 64 {
		t.Errorf("after damage it is %q, was %s", third, first)
	}
}

// Fail each effect once: applying again makes up for it.
func TestApplyConverges(t *testing.T) {
	fail := true
	s := serve(t, func(rig *systest.Rig) {
		down(rig)
		rig.Host.Files = rig.Host.Files.WithFault(func(string, string) error {
			if fail {
				fail = false
				return errors.New("cut")
			}
			return nil
		})
	})
	time.Sleep(60 * time.Millisecond)
	config := api.SystemFallbackListenerConfig{ListenAddress: "127.0.0.1:0", TrustedClientCertificates: []string{newPair(t).cert}}
	if err := s.Apply(t.Context(), config); err == nil || !strings.Contains(err.Error(), "making a certificate for the fallback listener") {
		t.Errorf("Apply() = %v, want the fault", err)
	}
	if err := s.Apply(t.Context(), config); err != nil || !s.State().Active {
		t.Errorf("Apply() once more = %v, the listener is %+v", err, s.State())
	}
	if p, err := s.Plan(t.Context(), config); err != nil || !p.Empty() {
		t.Errorf("Plan() afterwards = %v, %v; want nothing", p, err)
	}
}

func TestPlan(t *testing.T) {
	a, b := newPair(t), newPair(t)
	s := serve(t, up)
	check := func(want string, address string, clients ...pair) {
		t.Helper()
		c := api.SystemFallbackListenerConfig{ListenAddress: address}
		for _, p := range clients {
			c.TrustedClientCertificates = append(c.TrustedClientCertificates, p.cert)
		}
		p, err := s.Plan(t.Context(), c)
		if err != nil || p.String() != want {
			t.Errorf("Plan() = %q, %v; want %q", p.String(), err, want)
		}
		if err := s.Apply(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	check("", "")
	check("listen on [::]:8443 while Incus does not answer\ntrust the client certificate "+a.fingerprint+"\n", "", a)
	check("move the fallback listener from [::]:8443 to 127.0.0.1:1\n", "127.0.0.1:1", a)
	check("trust the client certificate "+b.fingerprint+"\ndistrust the client certificate "+a.fingerprint+"\n", "127.0.0.1:1", b)
	check("give up the fallback listener on 127.0.0.1:1 (no way in while Incus does not answer)\ndistrust the client certificate "+b.fingerprint+"\n", "")
}

func TestSeeded(t *testing.T) {
	a, b := newPair(t), newPair(t)
	item := func(p pair, fields map[string]any) any {
		fields["certificate"] = p.cert
		return fields
	}
	for name, tt := range map[string]struct {
		list any
		want string
	}{
		"nobody":                     {nil, ""},
		"of no type, and one client": {[]any{item(a, map[string]any{}), item(b, map[string]any{"type": "client", "restricted": false})}, a.cert + b.cert},
		"metrics":                    {[]any{item(a, map[string]any{"type": "metrics"})}, ""},
		"restricted":                 {[]any{item(a, map[string]any{"restricted": true}), item(b, map[string]any{"restricted": "true"})}, ""},
		"no certificate":             {[]any{map[string]any{"certificate": a.key}, "text", map[string]any{"certificate": 1}}, ""},
		"no list":                    {"text", ""},
		"text around it":             {[]any{item(pair{cert: "of alice\n" + a.cert + "\n"}, map[string]any{})}, a.cert},
	} {
		t.Run(name, func(t *testing.T) {
			got := listener.Seeded(&api.SeedIncus{Preseed: map[string]any{"certificates": tt.list}})
			var text bytes.Buffer
			if got != nil {
				text.WriteString(strings.Join(got.TrustedClientCertificates, ""))
			}
			if text.String() != tt.want {
				t.Errorf("trusts %q, want %q", text.String(), tt.want)
			}
		})
	}
	if listener.Seeded(nil) != nil {
		t.Error("no seed trusts somebody")
	}
}
