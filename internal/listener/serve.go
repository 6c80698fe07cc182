package listener

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/incusos/incusos/api"
)

const (
	prefix = "/os" // as Incus has it before the API
	// proxyHeader is what incusd says what it took off a path with. Nobody else
	// may say so.
	proxyHeader = "X-IncusOS-Proxy"

	mostConnections = 64
	mostHeader      = 64 << 10         // bytes
	helloTime       = 10 * time.Second // for the handshake, and for the head of a request
	idleTime        = time.Minute      // between requests
	endTime         = 5 * time.Second  // for requests in progress when it closes
)

// An opening is the time from opening to closing.
type opening struct {
	wanted      string // address as configured
	address     string // where it really listens
	fingerprint string // of the machine's certificate
	listener    net.Listener
	server      *http.Server
}

// listen opens the listener.
func (l *Listener) listen(ctx context.Context, address string) (*opening, error) {
	cert, err := l.identity()
	if err != nil {
		return nil, err
	}
	inner, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	o := &opening{wanted: address, address: inner.Addr().String(), fingerprint: fingerprint(cert.Certificate[0])}
	o.listener = &limited{Listener: inner, slots: make(chan struct{}, mostConnections)}
	o.server = &http.Server{
		Handler:           l.handler,
		TLSConfig:         tlsConfig(cert),
		ReadHeaderTimeout: helloTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    mostHeader,
		ErrorLog:          slog.NewLogLogger(slog.Default().Handler(), slog.LevelDebug), // whatever the network sends
	}
	go func() {
		if err := o.server.ServeTLS(o.listener, "", ""); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			slog.Error("The fallback listener broke off", "err", err)
		}
	}()
	return o, nil
}

// tlsConfig asks for the client's certificate and leaves it to admit what to make
// of it, since a refused handshake tells the operator nothing.
func tlsConfig(cert tls.Certificate) *tls.Config {
	return &tls.Config{
		Certificates:           []tls.Certificate{cert},
		ClientAuth:             tls.RequestClientCert,
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{"h2", "http/1.1"},
		SessionTicketsDisabled: true,
	}
}

// stop stops listening; connections stay.
func (o *opening) stop() error { return o.listener.Close() }

// end ends all connections, those with requests in progress after a while.
func (o *opening) end(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
	defer cancel()
	if err := o.server.Shutdown(ctx); err != nil {
		slog.Warn("Requests to the fallback listener were cut off", "err", errors.Join(err, o.server.Close()))
	}
}

// admit lets trusted clients through to the API, which is below /os.
func (l *Listener) admit(next http.Handler) http.Handler {
	var browsers http.CrossOriginProtection // a page must not use the certificate of whoever looks at it
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		client, err := l.client(r.TLS)
		if err == nil && browsers.Check(r) != nil {
			err = api.Errorf(api.Forbidden, "the request comes from a page of another site")
		}
		if err != nil {
			w.Header().Set("Connection", "close") // make room for others
			refuse(w, http.StatusForbidden, err)
			return
		}
		path, ok := strings.CutPrefix(r.URL.Path, prefix)
		if !ok || path != "" && path[0] != '/' {
			refuse(w, http.StatusNotFound, fmt.Errorf("%q: Incus does not answer on this machine at present; its system does at /os/1.0", r.URL.Path))
			return
		}
		r = r.Clone(l.mark(r.Context(), prefix, "listener:"+client[:12]))
		r.Header.Del(proxyHeader)
		r.URL.Path, r.URL.RawPath = cmp.Or(path, "/"), strings.TrimPrefix(r.URL.RawPath, prefix)
		next.ServeHTTP(w, r)
	})
}

// client returns the fingerprint of a client's certificate. What is trusted is
// that very certificate: who issued it does not matter, nor until when, since
// the clock of a machine in trouble may be wrong.
func (l *Listener) client(c *tls.ConnectionState) (string, error) {
	if c == nil || len(c.PeerCertificates) == 0 {
		return "", errors.New("no client certificate; want one that is in trusted_client_certificates of the fallback listener")
	}
	f := fingerprint(c.PeerCertificates[0].Raw)
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.trusted[f] {
		return "", fmt.Errorf("the client certificate %s is not trusted here; want one that is in trusted_client_certificates of the fallback listener", f)
	}
	return f, nil
}

// refuse answers in the envelope of the API.
func refuse(w http.ResponseWriter, code int, err error) {
	body, _ := json.Marshal(api.Response{Type: "error", ErrorCode: code, Error: err.Error()}) // of strings and numbers: cannot fail
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(body, '\n')) // whoever asked may be gone
}

// fingerprints returns those of the certificates in c. Those that cannot be read
// were refused by Validate.
func fingerprints(c api.SystemFallbackListenerConfig) []string {
	var all []string
	for _, text := range c.TrustedClientCertificates {
		if block, _ := pem.Decode([]byte(text)); block != nil {
			all = append(all, fingerprint(block.Bytes))
		}
	}
	return all
}

// fingerprint is what people compare of a certificate in DER.
func fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// A limited listener has so many connections at once, and closes any further
// one.
type limited struct {
	net.Listener
	slots chan struct{}
}

func (l *limited) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.slots <- struct{}{}:
			return &slotted{Conn: conn, free: sync.OnceFunc(func() { <-l.slots })}, nil
		default:
			_ = conn.Close() // too many
		}
	}
}

// A slotted connection gives its slot back when it is closed.
type slotted struct {
	net.Conn
	free func()
}

func (s *slotted) Close() error {
	s.free()
	return s.Conn.Close()
}
