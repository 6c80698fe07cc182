package incus_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/incusos/incusos/internal/incus"
	"github.com/incusos/incusos/internal/sys"
)

// databases answers as Incus does that is not ready, from what its databases have.
func databases(local, global string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var q struct{ Database, Query string }
		switch {
		case r.URL.Path == "/internal/ready":
			says(http.StatusServiceUnavailable, `{"type": "error", "error_code": 503, "error": "Daemon not ready yet"}`)(w, r)
		case r.URL.Path != "/internal/sql" || json.NewDecoder(r.Body).Decode(&q) != nil || !strings.HasPrefix(q.Query, "SELECT "):
			says(http.StatusNotFound, `{"type": "error", "error_code": 404, "error": "not found"}`)(w, r)
		default:
			says(http.StatusOK, fmt.Sprintf(`{"type": "sync", "metadata": {"Results": [{"rows": %s}]}}`, map[string]string{"local": local, "global": global}[q.Database]))(w, r)
		}
	}
}

func TestAhead(t *testing.T) {
	const own = `[["192.0.2.1:8443"]]`
	tests := map[string]struct {
		local, global string
		of            []string
		fails         string
	}{
		"newer than others":    {own, `[["192.0.2.1:8443", "a", 77], ["192.0.2.2:8443", "b", 76], ["192.0.2.3:8443", "c", 77], ["192.0.2.4:8443", "d", 75]]`, []string{"b", "d"}, ""},
		"as new as all":        {own, `[["192.0.2.1:8443", "a", 77], ["192.0.2.2:8443", "b", 77]]`, nil, ""},
		"older than another":   {own, `[["192.0.2.1:8443", "a", 76], ["192.0.2.2:8443", "b", 77]]`, nil, ""},
		"in no cluster":        {`null`, `[["0.0.0.0", "none", 77]]`, nil, ""},
		"not in the database":  {own, `[["192.0.2.2:8443", "b", 77]]`, nil, "no member at 192.0.2.1:8443"},
		"of another form":      {own, `[["192.0.2.1:8443", "a"]]`, nil, "has 2 columns"},
		"without any database": {`1`, `1`, nil, "reading the answer"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := incus.Dial(serve(t, databases(tt.local, tt.global))).Ahead(t.Context())
			ahead, ok := errors.AsType[*incus.AheadError](err)
			switch {
			case tt.of != nil && (!ok || !slices.Equal(ahead.Of, tt.of) || !strings.HasSuffix(err.Error(), ": "+strings.Join(tt.of, ", "))):
				t.Errorf("Ahead() = %v, want it to wait for %q", err, tt.of)
			case tt.fails != "" && (err == nil || ok || !strings.Contains(err.Error(), tt.fails)):
				t.Errorf("Ahead() = %v, want %q", err, tt.fails)
			case tt.of == nil && tt.fails == "" && err != nil:
				t.Errorf("Ahead() = %v, want nil", err)
			}
		})
	}
	if err := incus.Dial(serve(t, says(http.StatusOK, `{"type": "sync"}`))).Ahead(t.Context()); err != nil {
		t.Errorf("an Incus that is ready: Ahead() = %v", err)
	}
}

// Another member is asked with the certificate of this one, and only if it has that of
// the cluster.
func TestPeer(t *testing.T) {
	files := sys.NewDir(t.TempDir())
	cluster, client := certify(t), certify(t)
	for name, b := range map[string][]byte{
		"server.crt": encode("CERTIFICATE", client.Certificate[0]), "server.key": encode("PRIVATE KEY", private(t, client)),
		"cluster.crt": encode("CERTIFICATE", cluster.Certificate[0]),
	} {
		if err := files.WriteFile("/var/lib/incus/"+name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, shown := range map[string]tls.Certificate{"": cluster, "it has not the certificate of the cluster": client} {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if c := r.TLS.PeerCertificates; len(c) != 1 || !slices.Equal(c[0].Raw, client.Certificate[0]) {
				t.Error("it comes without the certificate of this member")
			}
			says(http.StatusOK, `{"type": "sync", "metadata": {}}`)(w, r)
		}))
		s.TLS = &tls.Config{Certificates: []tls.Certificate{shown}, ClientAuth: tls.RequestClientCert} //nolint:gosec // a test
		s.StartTLS()
		defer s.Close()
		peer, err := incus.Peer(files, s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		var all any
		if _, err = peer.Get(t.Context(), "/1.0", &all); (err == nil) != (name == "") || err != nil && !strings.Contains(err.Error(), name) {
			t.Errorf("Get() = %v, want %q", err, name)
		}
	}
	if _, err := incus.Peer(sys.NewDir(t.TempDir()), "192.0.2.1:8443"); err == nil {
		t.Error("a machine that is in no cluster has a way to others")
	}
}

func certify(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func private(t *testing.T, c tls.Certificate) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
