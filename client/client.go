// Package client talks to the API of an IncusOS machine.
//
// There is one method per route of /os/1.0, named after what it returns or
// does; what can be read and changed is a Resource. On the machine itself New
// goes to the daemon's unix socket; from elsewhere Connect and Remote go through
// Incus, which serves the same API below /os to clients it trusts. The documents
// are those of package api.
//
//	client.go        where the machine is, what it is and runs
//	request.go       requests, envelopes, refusals and streams
//	resource.go      reading, planning, trying and confirming a configuration
//	tls.go           certificates
//	system.go        /1.0/system; storage.go has its actions on drives and pools
//	applications.go  /1.0/applications and /1.0/services
//	debug.go         /1.0/debug
//	own.go           tasks, the trial, the audit log and metrics
//
// Nothing is retried and nothing is kept: a method is one request.
package client

import (
	"context"
	"net"
	"net/http"
	"strings"

	"github.com/incusos/incusos/api"
)

// A Client talks to one machine. Its methods may be called from several
// goroutines.
type Client struct {
	http    *http.Client
	base    string // what comes before "/1.0"
	metrics string // where the metrics are
}

// New returns the client of the daemon that listens on the unix socket.
func New(socket string) *Client {
	t := &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		if address == metricsAddress {
			return (&net.Dialer{}).DialContext(ctx, network, address)
		}
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	// Not the host that incusd names when it asks by itself: what is read here
	// belongs into the audit log each time.
	return &Client{&http.Client{Transport: t}, "http://local", "http://" + metricsAddress + "/metrics"}
}

// Remote returns the client of the machine whose Incus is at base, such as
// "https://192.0.2.10:8443". The HTTP client brings the certificates.
func Remote(c *http.Client, base string) *Client {
	base = strings.TrimSuffix(base, "/")
	return &Client{c, base + "/os", base + "/1.0/metrics"}
}

// Roots returns the versions of the API, as paths.
func (c *Client) Roots(ctx context.Context) ([]string, error) { return get[[]string](ctx, c, "/") }

// Server returns what the machine is and runs.
func (c *Client) Server(ctx context.Context) (api.Server, error) {
	return get[api.Server](ctx, c, "/1.0")
}
