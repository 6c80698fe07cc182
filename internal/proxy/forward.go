package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// handler serves both kinds of requests. Tunnels end with ctx.
func (p *Proxy) handler(ctx context.Context) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch from, err := netip.ParseAddrPort(r.RemoteAddr); {
		case err != nil || !from.Addr().Unmap().IsLoopback():
			http.Error(w, "this proxy is for the machine itself", http.StatusForbidden)
		case r.Method == http.MethodConnect:
			p.connect(ctx, w, r)
		case r.URL.Scheme != "http" || r.URL.Host == "":
			http.Error(w, "this is a proxy; want a request for an address that begins with http://, or CONNECT", http.StatusBadRequest)
		default:
			p.page(w, r)
		}
	})
}

// routed is the key of the way that a request takes.
type routed struct{}

// page forwards a request for a page.
func (p *Proxy) page(w http.ResponseWriter, r *http.Request) {
	way, err := route(p.config(), r.URL.Hostname())
	if err == nil {
		err = p.authorize(r.Context(), way, r.Header)
	}
	if err != nil {
		p.fail(w, r, way, err)
		return
	}
	p.pages.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), routed{}, way)))
}

// proxyAuthorization is the header that says to a proxy who one is.
const proxyAuthorization = "Proxy-Authorization"

// authorize has the header say to the proxy on the way who the machine is, and
// nothing of what the client said.
func (p *Proxy) authorize(ctx context.Context, w way, h http.Header) error {
	h.Del(proxyAuthorization)
	says, err := p.credentials(ctx, w)
	if err == nil && says != "" {
		h.Set(proxyAuthorization, says)
	}
	return err
}

// newPages returns what forwards requests that authorize has been at.
func (p *Proxy) newPages() http.Handler {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			// It was taken out as a header between two stations, which it is.
			if says := r.In.Header.Get(proxyAuthorization); says != "" {
				r.Out.Header.Set(proxyAuthorization, says)
			}
		},
		Transport:     p.pool,
		FlushInterval: -1,
		ModifyResponse: func(r *http.Response) error {
			if r.StatusCode == http.StatusProxyAuthRequired {
				return errNotTaken
			}
			way := wayOf(r.Request)
			p.upstream.note(way.name, nil)
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) { p.fail(w, r, wayOf(r), err) },
		ErrorLog:     slog.NewLogLogger(slog.Default().Handler(), slog.LevelDebug),
	}
}

func wayOf(r *http.Request) way {
	w, _ := r.Context().Value(routed{}).(way) // directly, if there is none
	return w
}

// newPool returns the connections for pages.
func (p *Proxy) newPool() *http.Transport {
	return &http.Transport{
		Proxy: func(r *http.Request) (*url.URL, error) {
			if w := wayOf(r); !w.direct() {
				return w.url(), nil
			}
			return nil, nil //nolint:nilnil // what http.Transport takes for "directly"
		},
		DialContext:            p.dialer().DialContext,
		TLSClientConfig:        p.tls(""),
		TLSHandshakeTimeout:    dialTime,
		ResponseHeaderTimeout:  answerTime,
		IdleConnTimeout:        keepTime,
		MaxIdleConns:           32,
		MaxResponseHeaderBytes: mostHeader,
		DisableCompression:     true,
	}
}

// connect makes a tunnel.
func (p *Proxy) connect(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	host, err := destination(r.Host)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	way, err := route(p.config(), host)
	if err != nil {
		p.fail(w, r, way, err)
		return
	}
	dialing, cancel := context.WithTimeout(r.Context(), dialTime)
	defer cancel()
	far, err := p.dial(dialing, way, r.Host)
	if err != nil {
		p.fail(w, r, way, err)
		return
	}
	defer far.Close()
	p.upstream.note(way.name, nil)
	near, early, err := hijack(w)
	if err != nil {
		slog.DebugContext(ctx, "A tunnel was given up", "err", err)
		return
	}
	defer near.Close()
	if _, err := io.WriteString(near, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return // the client is gone
	}
	join(ctx, early, far, silentTime)
}

// destination returns the host of "host:port".
func destination(s string) (string, error) {
	host, port, err := net.SplitHostPort(s)
	if n, convErr := strconv.Atoi(port); err != nil || convErr != nil || n < 1 || n > 65535 || host == "" || strings.ContainsAny(host, " /@") {
		return "", fmt.Errorf("%q is nothing to connect to; want a host and a port such as %q", s, "example.net:443")
	}
	return host, nil
}

// dial returns a connection that leads to a destination.
func (p *Proxy) dial(ctx context.Context, w way, to string) (net.Conn, error) {
	if w.direct() {
		return p.dialer().DialContext(ctx, "tcp", to)
	}
	says, err := p.credentials(ctx, w)
	if err != nil {
		return nil, err
	}
	return p.tunnel(ctx, w, to, says)
}

// dialer makes connections to anything but the proxy itself, which would ask
// itself for ever.
func (p *Proxy) dialer() *net.Dialer {
	return &net.Dialer{
		Timeout: dialTime,
		Control: func(_, address string, _ syscall.RawConn) error {
			p.mu.Lock()
			open := p.open
			p.mu.Unlock()
			if itself(address, open) {
				return errors.New("the destination is the proxy itself")
			}
			return nil
		},
	}
}

// itself reports whether who connects to an address gets to the one that is
// open. Unspecified addresses lead to the loopback.
func itself(address, open string) bool {
	to, err := netip.ParseAddrPort(address)
	own, ownErr := netip.ParseAddrPort(open)
	if err != nil || ownErr != nil {
		return false
	}
	ip := to.Addr().Unmap()
	return to.Port() == own.Port() && (ip.IsLoopback() || ip.IsUnspecified())
}

// fail tells a client, and whoever looks after the machine, why there is no way.
func (p *Proxy) fail(w http.ResponseWriter, r *http.Request, over way, err error) {
	code := http.StatusBadGateway
	switch refused, ok := errors.AsType[*refusedError](err); {
	case ok:
		code, err = http.StatusForbidden, refused
	case r.Context().Err() != nil:
		return // nobody waits for the answer
	case !over.direct():
		err = fmt.Errorf("over the proxy %q: %w", over.name, err)
		p.upstream.note(over.name, err)
	}
	http.Error(w, err.Error(), code)
}

// hijack takes a client's connection over. What it sent early is read first.
func hijack(w http.ResponseWriter) (near, early net.Conn, err error) {
	near, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, nil, err
	}
	if err := near.SetDeadline(time.Time{}); err != nil {
		return nil, nil, errors.Join(err, near.Close())
	}
	early, err = preceded(near, buffered.Reader)
	if err != nil {
		return nil, nil, errors.Join(err, near.Close())
	}
	return near, early, nil
}

// preceded returns conn with what a reader of it has buffered.
func preceded(conn net.Conn, r interface {
	Buffered() int
	Peek(int) ([]byte, error)
}) (net.Conn, error) {
	b, err := r.Peek(r.Buffered())
	if err != nil {
		return nil, err
	}
	return &prefixed{conn, io.MultiReader(bytes.NewReader(bytes.Clone(b)), conn)}, nil
}

// A prefixed connection is read from elsewhere.
type prefixed struct {
	net.Conn
	from io.Reader
}

func (p *prefixed) Read(b []byte) (int, error) { return p.from.Read(b) }

// CloseWrite tells the other side that nothing more comes.
func (p *prefixed) CloseWrite() error { return closeWrite(p.Conn) }
