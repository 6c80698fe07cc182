package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// Ways to say to a proxy who one is.
const (
	basic    = "basic"
	kerberos = "kerberos"
)

var errNotTaken = errors.New("it does not take the credentials of this machine (407); see auth, username and password of this proxy")

// url returns where the proxy is. Credentials are no part of it, so that they
// are in no error either.
func (w way) url() *url.URL {
	host, secure := w.server.Address()
	if secure {
		return &url.URL{Scheme: "https", Host: host}
	}
	return &url.URL{Scheme: "http", Host: host}
}

// credentials returns what the header of a request says to the proxy on the way,
// "" for nothing.
func (p *Proxy) credentials(ctx context.Context, w way) (string, error) {
	switch w.server.Auth {
	case basic:
		both := w.server.Username + ":" + string(w.server.Password)
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(both)), nil
	case kerberos:
		p.tickets.keep(p.config().Servers)
		return p.tickets.negotiate(ctx, w.server, w.url().Hostname())
	}
	return "", nil
}

// tunnel has the proxy connect to a destination, and says to it who asks (RFC
// 9110, section 9.3.6).
func (p *Proxy) tunnel(ctx context.Context, w way, to, says string) (net.Conn, error) {
	u := w.url()
	conn, err := p.dialer().DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return nil, err
	}
	if u.Scheme == "https" {
		conn = tls.Client(conn, p.tls(u.Hostname()))
	}
	through, err := ask(ctx, conn, to, says)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return through, nil
}

// tls is how a proxy called name proves that it is the one; "" if the caller
// fills it in.
func (p *Proxy) tls(name string) *tls.Config {
	return &tls.Config{ServerName: name, RootCAs: p.roots, MinVersion: tls.VersionTLS12}
}

// ask asks the proxy at the other end of conn for a tunnel.
func ask(ctx context.Context, conn net.Conn, to, says string) (net.Conn, error) {
	cut := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // what waits for it fails
	defer cut()
	r := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: to}, Host: to, Header: http.Header{"User-Agent": {"IncusOS"}}}
	if says != "" {
		r.Header.Set(proxyAuthorization, says)
	}
	if err := r.Write(conn); err != nil {
		return nil, fmt.Errorf("asking for a tunnel: %w", err)
	}
	from := bufio.NewReader(io.LimitReader(conn, mostHeader))
	answer, err := http.ReadResponse(from, r)
	if err != nil {
		return nil, fmt.Errorf("asking for a tunnel: %w", err)
	}
	switch {
	case answer.StatusCode == http.StatusProxyAuthRequired:
		return nil, errNotTaken
	case answer.StatusCode/100 != 2:
		return nil, fmt.Errorf("asking for a tunnel: it answers with status %d", answer.StatusCode)
	case !cut():
		return nil, ctx.Err()
	}
	return preceded(conn, from)
}
