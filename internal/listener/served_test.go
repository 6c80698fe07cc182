package listener_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
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

func up(rig *systest.Rig) { rig.Units.Become(incus, "active") }

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
