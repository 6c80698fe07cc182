// Package client talks to the API of an IncusOS machine.
//
// There is one method per route of /os/1.0, named after what it returns or
// does. On the machine itself New goes to the daemon's unix socket; from
// elsewhere Remote goes through Incus, which serves the same API below /os to
// clients it trusts. The documents are those of package api.
package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/incusos/incusos/api"
)

// answerLimit is the longest answer that is read, in bytes.
const answerLimit = 16 << 20

// A Client talks to one machine. Its methods may be called from several
// goroutines.
type Client struct {
	http *http.Client
	base string
}

// New returns the client of the daemon that listens on the unix socket.
func New(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	return &Client{&http.Client{Transport: &http.Transport{DialContext: dial}}, "http://incus-os"}
}

// Remote returns the client of the machine whose Incus is at base, such as
// "https://192.0.2.10:8443". The HTTP client brings the certificates.
func Remote(c *http.Client, base string) *Client {
	return &Client{c, strings.TrimSuffix(base, "/") + "/os"}
}

// An Error is an answer of the machine that says no.
type Error struct {
	Status  int    // the HTTP status
	Message string // what the machine says, or the meaning of the status
}

func (e *Error) Error() string { return e.Message }

// Roots returns the versions of the API, as paths.
func (c *Client) Roots(ctx context.Context) ([]string, error) { return get[[]string](ctx, c, "/") }

// Server returns what the machine is and runs.
func (c *Client) Server(ctx context.Context) (api.Server, error) {
	return get[api.Server](ctx, c, "/1.0")
}

// System returns the parts of the system that can be configured, as paths.
func (c *Client) System(ctx context.Context) ([]string, error) {
	return get[[]string](ctx, c, "/1.0/system")
}

// Network returns the network's configuration and state.
func (c *Client) Network(ctx context.Context) (api.Network, error) {
	return get[api.Network](ctx, c, "/1.0/system/network")
}

// Security returns trust, keys and the state of both.
func (c *Client) Security(ctx context.Context) (api.SystemSecurity, error) {
	return get[api.SystemSecurity](ctx, c, "/1.0/system/security")
}

// Storage returns drives and pools.
func (c *Client) Storage(ctx context.Context) (api.SystemStorage, error) {
	return get[api.SystemStorage](ctx, c, "/1.0/system/storage")
}

// Applications returns what is installed, as paths.
func (c *Client) Applications(ctx context.Context) ([]string, error) {
	return get[[]string](ctx, c, "/1.0/applications")
}

// Application returns the document of one application; its form depends on
// which one it is.
func (c *Client) Application(ctx context.Context, name string) (json.RawMessage, error) {
	return get[json.RawMessage](ctx, c, "/1.0/applications/"+url.PathEscape(name))
}

// Services returns the services that can be configured, as paths.
func (c *Client) Services(ctx context.Context) ([]string, error) {
	return get[[]string](ctx, c, "/1.0/services")
}

// Service returns the document of one service; its form depends on which one
// it is.
func (c *Client) Service(ctx context.Context, name string) (json.RawMessage, error) {
	return get[json.RawMessage](ctx, c, "/1.0/services/"+url.PathEscape(name))
}

// Reboot restarts the machine. It returns when the machine has accepted, which
// is before it acts.
func (c *Client) Reboot(ctx context.Context) error {
	_, err := c.call(ctx, http.MethodPost, "/1.0/system/:reboot")
	return err
}

// Poweroff turns the machine off. It returns when the machine has accepted,
// which is before it acts.
func (c *Client) Poweroff(ctx context.Context) error {
	_, err := c.call(ctx, http.MethodPost, "/1.0/system/:poweroff")
	return err
}

func get[T any](ctx context.Context, c *Client, path string) (v T, err error) {
	data, err := c.call(ctx, http.MethodGet, path)
	if err != nil {
		return v, err
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return v, fmt.Errorf("reading %s: %w", path, err)
	}
	return v, nil
}

// call sends a request and returns the metadata of the answer.
func (c *Client) call(ctx context.Context, method, path string) (json.RawMessage, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, answerLimit+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	if len(data) > answerLimit {
		return nil, fmt.Errorf("reading %s: the answer is longer than %d MiB", path, answerLimit>>20)
	}
	return open(resp, data)
}

// open takes the metadata out of its envelope. Not everything on the way
// speaks the envelope: incusd answers 502 with an empty body while the daemon
// is not there.
func open(resp *http.Response, data []byte) (json.RawMessage, error) {
	var env api.Response
	err := json.Unmarshal(data, &env)
	switch {
	case err == nil && env.Type == "error" && env.Error != "":
		return nil, &Error{resp.StatusCode, env.Error}
	case resp.StatusCode != http.StatusOK:
		return nil, &Error{resp.StatusCode, fmt.Sprintf("%s answered %s", resp.Request.URL, resp.Status)}
	case err != nil || env.Type != "sync":
		return nil, fmt.Errorf("%s answered something that is not the API of IncusOS", resp.Request.URL)
	}
	return env.Metadata, nil
}
