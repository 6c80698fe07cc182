// Package fetch downloads from an update repository: small files whole, large ones
// in the ranges that are missing. The server is taken for hostile, and the link for
// bad: everything has a size that was known before, is checked against a hash, and
// has to arrive in time; what is cut off is gone on with from there.
//
//	fetch.go   a server, and one request
//	file.go    files as a whole
//	blocks.go  blocks of an image, written where they belong
//
// Any web server that answers range requests will do (RFC 9110, 14), and so will a
// directory. What is fetched, and whether it is trusted, package repo says; which
// blocks are missing, package verity.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/incusos/incusos/internal/repo"
)

// Options say how to talk to a server. The zero value is for machines.
type Options struct {
	Token     string          // sent as a bearer token; "" for none
	UserAgent string          // such as "IncusOS/202611271200"
	Transport *http.Transport // proxy and certificates; nil: those of the process
	Proxy     Way             // comes before that of the transport; nil: none does
	Patience  time.Duration   // how long to wait for the first byte; default 30 s
	Backoff   time.Duration   // how long to wait after a first failure; default 1 s, then twice as long each time
	Attempts  int             // how many failures in a row without any progress; default 6
}

// A Way says for a request over which proxy it goes, nil for none, as the field Proxy
// of http.Transport does. With an error the request is not sent at all.
type Way func(*http.Request) (*url.URL, error)

// A Server is where a repository is.
type Server struct {
	base   *url.URL
	client *http.Client
	o      Options
}

// slowest is the rate below which a server is as good as none, in bytes a second.
const slowest = 8 << 10

// Open names a server: "https://example.net/incusos", or a directory. It sends
// nothing.
func Open(address string, o Options) (*Server, error) {
	if o.Patience == 0 {
		o.Patience = 30 * time.Second
	}
	if o.Backoff == 0 {
		o.Backoff = time.Second
	}
	if o.Attempts == 0 {
		o.Attempts = 6
	}
	transport := o.transport()
	s := &Server{client: &http.Client{Transport: transport}, o: o}
	if !strings.Contains(address, "://") {
		dir, err := filepath.Abs(address)
		if err != nil {
			return nil, err
		}
		transport.RegisterProtocol("file", http.NewFileTransportFS(os.DirFS(dir)))
		s.base = &url.URL{Scheme: "file", Path: "/"}
		return s, nil
	}
	base, err := url.Parse(address)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return nil, fmt.Errorf("%q is no address of a repository; want https://HOST/PATH, or a directory", address)
	}
	if base.User != nil {
		return nil, errors.New("the address of the repository has a password in it; give it as a token instead")
	}
	s.base = base
	return s, nil
}

// transport returns what requests are sent with.
func (o Options) transport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // it is one
	if o.Transport != nil {
		t = o.Transport.Clone()
	}
	if o.Proxy != nil {
		t.Proxy, t.OnProxyConnectResponse = o.Proxy, tunnelled
	}
	t.DisableCompression = true // ranges are of what is there
	return t
}

// tunnelled reports why a proxy made no tunnel. The proxy of the machine says that in
// one line of text.
func tunnelled(_ context.Context, _ *url.URL, _ *http.Request, answer *http.Response) error {
	if answer.StatusCode == http.StatusOK {
		return nil
	}
	b, err := io.ReadAll(io.LimitReader(answer.Body, 512))
	line, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	if err != nil || line == "" {
		line = answer.Status
	}
	return fmt.Errorf("the proxy refuses: %q", line)
}

// errStopped is for what no further attempt would change.
type errStopped struct{ error }

func (e errStopped) Unwrap() error { return e.error }

// get asks for length bytes of a file from the byte at on, or for all of a file of
// unknown length if length is negative, and lets read have them. It ends in time
// even if the server sends a byte now and then.
func (s *Server) get(ctx context.Context, name string, at, length int64, read func(io.Reader) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.o.Patience+time.Duration(max(length, 0)/slowest)*time.Second,
		fmt.Errorf("the server is too slow: less than %d KiB a second", slowest>>10))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.base.JoinPath(name).String(), nil)
	if err != nil {
		return errStopped{err}
	}
	if s.o.UserAgent != "" {
		req.Header.Set("User-Agent", s.o.UserAgent)
	}
	if s.o.Token != "" {
		req.Header.Set("Authorization", "Bearer "+s.o.Token)
	}
	if length > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", at, at+length-1))
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return because(ctx, err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	if err := checkAnswer(resp, at, length); err != nil {
		return err
	}
	return because(ctx, read(resp.Body))
}

// because says that it was the time that was over, if it was.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	return err
}

// checkAnswer looks whether the server sends what was asked for.
func checkAnswer(resp *http.Response, at, length int64) error {
	switch code := resp.StatusCode; {
	case code == http.StatusNotFound || code == http.StatusGone:
		return errStopped{repo.ErrNotFound}
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		return errStopped{fmt.Errorf("the server refuses: %s; it may want a token", resp.Status)}
	case code == http.StatusOK && (length <= 0 || at == 0 && resp.ContentLength == length):
		return nil
	case code == http.StatusOK:
		return errStopped{errors.New("the server does not answer range requests; use one that does")}
	case code == http.StatusRequestedRangeNotSatisfiable:
		return errStopped{errors.New("the file is shorter than it should be")}
	case code != http.StatusPartialContent || length <= 0:
		return fmt.Errorf("the server answers %s", resp.Status)
	}
	want := fmt.Sprintf("bytes %d-%d/", at, at+length-1)
	if got := resp.Header.Get("Content-Range"); !strings.HasPrefix(got, want) {
		return fmt.Errorf("the server sends %q; want %q", got, want)
	}
	return nil
}

// again calls try until it ends well, waiting longer after each failure. Try
// reports how many bytes it got on; as long as it does, it may go on failing.
func (s *Server) again(ctx context.Context, name string, try func() (progress int64, err error)) error {
	wait, failures := s.o.Backoff, 0
	for {
		progress, err := try()
		if err == nil {
			return nil
		}
		if progress > 0 {
			wait, failures = s.o.Backoff, 0
		}
		failures++
		if stopped := (errStopped{}); errors.As(err, &stopped) || failures >= s.o.Attempts || ctx.Err() != nil {
			return fmt.Errorf("fetching %s: %w", name, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("fetching %s: %w", name, context.Cause(ctx))
		case <-time.After(wait/2 + rand.N(wait)): //nolint:gosec // not a secret
		}
		wait = min(2*wait, time.Minute)
	}
}
