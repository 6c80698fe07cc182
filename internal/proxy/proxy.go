// Package proxy is the way out of the machine: a forward proxy on the loopback
// that Incus and the updates of the system use, and that knows by rules where
// each destination is reached: directly, over a proxy of the operator's, or not
// at all.
//
//	proxy.go     what is served, to whom, and how much of it
//	rules.go     which way leads to a destination                 (pure)
//	plan.go      what another configuration means, in words       (pure)
//	forward.go   requests for a page, and requests for a tunnel
//	tunnel.go    the bytes of a tunnel
//	upstream.go  how one asks a proxy of the operator's for a tunnel
//	kerberos.go  tickets for such a proxy
//	health.go    which proxies do as they are asked
//
// It is there whether or not a proxy is configured, so that Incus keeps one
// address for as long as it runs: what is configured is looked up for each
// request, and a change, its trial and its roll-back count at once and restart
// nothing. The configuration is part of the network's document; package daemon
// hands it over.
package proxy

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"time"

	"github.com/incusos/incusos/api"
)

// Address is where the proxy of a real machine listens. The unit of Incus has
// it in its environment.
const Address = "127.0.0.1:3128"

const (
	mostConnections = 256              // further ones wait
	mostHeader      = 64 << 10         // bytes, of requests and of answers
	headTime        = 10 * time.Second // for the head of a request
	keepTime        = time.Minute      // between requests
	dialTime        = 30 * time.Second // until there is a way to the destination
	answerTime      = 5 * time.Minute  // for the head of an answer
	silentTime      = time.Hour        // without a byte in a tunnel
	endTime         = time.Second      // for requests in progress when it ends
	againTime       = 5 * time.Second  // until it tries to listen again
)

// A Proxy is the forward proxy of one machine. Its methods may be called from
// several goroutines.
type Proxy struct {
	config   func() api.NetworkProxy
	pages    http.Handler // requests that are no tunnels
	pool     *http.Transport
	roots    *x509.CertPool // of proxies that speak TLS; nil are the machine's
	tickets  tickets
	upstream health

	mu      sync.Mutex // guards what follows
	wanted  bool       // somebody serves
	open    string     // where it listens; "" nowhere
	failure error      // why it does not
}

// New returns a proxy that listens nowhere yet. Config returns the configuration
// in force, which must be valid.
func New(config func() api.NetworkProxy) *Proxy {
	p := &Proxy{config: config}
	p.pool = p.newPool()
	p.pages = p.newPages()
	return p
}

// Name is the area's name in health reports.
func (*Proxy) Name() string { return "proxy" }

// Reconcile reports why the proxy does not listen. It tries by itself.
func (p *Proxy) Reconcile(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failure
}

// Through is where the daemon's own clients ask, for http.Transport.Proxy: here,
// or nobody where no proxy is served. An error says that the proxy does not
// listen: going past it is not for a client to decide.
func (p *Proxy) Through(*http.Request) (*url.URL, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.open != "":
		return &url.URL{Scheme: "http", Host: p.open}, nil
	case p.wanted:
		return nil, errors.Join(errors.New("the proxy of this machine does not listen"), p.failure)
	}
	return nil, nil //nolint:nilnil // what http.Transport takes for "directly"
}

// Serve listens at address, which must be one of the loopback, and serves until
// ctx ends. Where it cannot listen it tries again.
func (p *Proxy) Serve(ctx context.Context, address string) {
	p.note(address, "", nil)
	for ctx.Err() == nil {
		err := p.serve(ctx, address)
		if ctx.Err() != nil {
			return
		}
		p.note(address, "", err)
		slog.ErrorContext(ctx, "The proxy does not listen", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(againTime):
		}
	}
}

// serve listens once, until that ends.
func (p *Proxy) serve(ctx context.Context, address string) error {
	if where, err := netip.ParseAddrPort(address); err != nil || !where.Addr().IsLoopback() {
		return fmt.Errorf("%q is no address of the loopback; whoever reaches the proxy may use it", address)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	p.note(address, l.Addr().String(), nil)
	srv := p.server(ctx)
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(&limited{l, make(chan struct{}, mostConnections)}) }()
	select {
	case err = <-ended:
	case <-ctx.Done():
		p.stop(ctx, srv)
	}
	p.tickets.keep(nil)
	p.pool.CloseIdleConnections()
	return err
}

func (p *Proxy) server(ctx context.Context) *http.Server {
	return &http.Server{
		Handler:           p.handler(ctx),
		ReadHeaderTimeout: headTime,
		IdleTimeout:       keepTime,
		MaxHeaderBytes:    mostHeader,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(slog.Default().Handler(), slog.LevelDebug), // whatever clients send
	}
}

// stop ends what is served. Tunnels end with the context of Serve.
func (p *Proxy) stop(ctx context.Context, srv *http.Server) {
	p.note("", "", nil)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil {
		_ = srv.Close() // there is nobody left to tell
	}
}

// note keeps that somebody wants the proxy at an address, "" for nobody, and
// where it is open, or why it is not.
func (p *Proxy) note(wanted, open string, failure error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wanted, p.open, p.failure = wanted != "", open, failure
}

// A limited listener has so many connections at once; further ones wait.
type limited struct {
	net.Listener
	slots chan struct{}
}

// Accept implements net.Listener.
func (l *limited) Accept() (net.Conn, error) {
	l.slots <- struct{}{}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &slotted{Conn: conn, free: sync.OnceFunc(func() { <-l.slots })}, nil
}

// A slotted connection gives its slot back when it is closed.
type slotted struct {
	net.Conn
	free func()
}

// Close implements net.Conn.
func (s *slotted) Close() error {
	defer s.free()
	return s.Conn.Close()
}

// CloseWrite tells the other side that nothing more comes.
func (s *slotted) CloseWrite() error { return closeWrite(s.Conn) }
