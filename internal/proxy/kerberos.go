package proxy

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"sync"

	"github.com/jcmturner/gokrb5/v8/client"
	"github.com/jcmturner/gokrb5/v8/config"
	"github.com/jcmturner/gokrb5/v8/spnego"

	"github.com/incusos/incusos/api"
)

// realms is how Kerberos is spoken: key servers are found by the DNS (RFC 4120,
// section 7.2.3), tickets are too large for UDP, and keys are AES.
const realms = `[libdefaults]
dns_lookup_kdc = true
dns_lookup_realm = false
udp_preference_limit = 1
default_tkt_enctypes = aes256-cts-hmac-sha1-96 aes128-cts-hmac-sha1-96
default_tgs_enctypes = aes256-cts-hmac-sha1-96 aes128-cts-hmac-sha1-96
permitted_enctypes = aes256-cts-hmac-sha1-96 aes128-cts-hmac-sha1-96
`

// tickets are those for proxies that want some. The zero tickets are none.
type tickets struct {
	servers string // sections of krb5.conf(5) that say more than realms

	mu      sync.Mutex
	clients map[api.NetworkProxyServer]*client.Client
}

// keep forgets the tickets for all but these proxies.
func (t *tickets) keep(servers map[string]api.NetworkProxyServer) {
	wanted := make(map[api.NetworkProxyServer]bool)
	for _, s := range servers {
		wanted[s] = true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for s, c := range t.clients {
		if !wanted[s] {
			c.Destroy()
			delete(t.clients, s)
		}
	}
}

// negotiate returns what a request says to the proxy on host (RFC 4559). A first
// one asks the key servers, each of which has five seconds.
func (t *tickets) negotiate(ctx context.Context, s api.NetworkProxyServer, host string) (string, error) {
	c, err := t.client(s)
	if err != nil {
		return "", err
	}
	type result struct {
		says string
		err  error
	}
	done := make(chan result, 1)
	go func() {
		says, err := token(c, "HTTP/"+strings.ToLower(host))
		done <- result{says, err}
	}()
	select {
	case r := <-done:
		return r.says, r.err
	case <-ctx.Done():
		return "", fmt.Errorf("waiting for a ticket of the realm %s: %w", s.Realm, ctx.Err())
	}
}

func (t *tickets) client(s api.NetworkProxyServer) (*client.Client, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c, ok := t.clients[s]; ok {
		return c, nil
	}
	realm := strings.ToUpper(s.Realm)
	conf, err := config.NewFromString(realms + t.servers)
	if err != nil {
		return nil, fmt.Errorf("setting up Kerberos for the realm %s: %w", realm, err)
	}
	conf.LibDefaults.DefaultRealm = realm
	c := client.NewWithPassword(s.Username, realm, string(s.Password), conf, client.DisablePAFXFAST(true))
	if t.clients == nil {
		t.clients = make(map[api.NetworkProxyServer]*client.Client)
	}
	t.clients[s] = c
	return c, nil
}

// token returns a fresh proof for a service: each is good for one request.
func token(c *client.Client, service string) (string, error) {
	s := spnego.SPNEGOClient(c, service)
	if err := s.AcquireCred(); err != nil {
		return "", fmt.Errorf("logging in to the realm %s: %w", c.Credentials.Realm(), err)
	}
	made, err := s.InitSecContext()
	if err != nil {
		return "", fmt.Errorf("getting a ticket for %s: %w", service, err)
	}
	b, err := made.Marshal()
	if err != nil {
		return "", fmt.Errorf("making a proof for %s: %w", service, err)
	}
	return "Negotiate " + base64.StdEncoding.EncodeToString(b), nil
}
