package daemon_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/daemon"
	"github.com/incusos/incusos/internal/listener"
)

// newClient returns a client that brings a certificate, and that in PEM.
func newClient(t *testing.T) (*http.Client, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{ //nolint:gosec // the machine's certificate is its own
		InsecureSkipVerify: true, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func TestTheAPIIsThereWhenIncusIsNot(t *testing.T) {
	rig := machine(t)
	rig.Units.Fail("incus.service", errors.New("its database is damaged"))
	c, certificate := newClient(t)
	saved, err := json.Marshal(map[string]any{"schema": 1, "config": api.SystemFallbackListenerConfig{
		ListenAddress: "127.0.0.1:0", TrustedClientCertificates: []string{certificate},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := rig.Host.Files.WriteFile("/var/lib/incus-os/fallback-listener.json", saved, 0o600); err != nil {
		t.Fatal(err)
	}
	var wake chan struct{}
	m := start(t, rig, func(o *daemon.Options) {
		wake = o.Wake
		o.Also[0].(*listener.Listener).Patience = 50 * time.Millisecond
	})
	m.waitFor("the API is at https://127.0.0.1:")
	base := "https://" + regexp.MustCompile(`https://(127[^/]*)/os`).FindStringSubmatch(m.out.String())[1]
	ask := func(path string) string {
		t.Helper()
		resp, err := c.Get(base + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if got := ask("/os/1.0/system"); !strings.Contains(got, `"/os/1.0/system/network"`) {
		t.Errorf("a list is %s, want paths that begin with /os", got)
	}
	ask("/os/1.0/system/security")
	if got := ask("/os/1.0/audit"); !regexp.MustCompile(`"who":"listener:[0-9a-f]{12}","action":"GET /1.0/system/security"`).MatchString(got) {
		t.Errorf("the log of changes is %s, want who read the keys", got)
	}
	if got := ask("/os/1.0/system/fallback-listener"); !strings.Contains(got, `"active":true`) {
		t.Errorf("the document is %s, want it to be active", got)
	}
	m.waitFor("warning: Incus does not answer; trusted clients find this API at " + base)

	rig.Units.Fail("incus.service", nil)
	wake <- struct{}{}
	m.waitFor(readyLine)
	for range 1000 {
		resp, err := c.Get(base + "/os")
		if err != nil {
			m.stop(nil)
			return
		}
		resp.Body.Close()
		time.Sleep(5 * time.Millisecond)
	}
	t.Error("it is open although Incus answers")
}
