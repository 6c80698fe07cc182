package client

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/incusos/incusos/api"
)

// A Resource is a configuration of the machine, and what the machine makes of
// it. D is its document, C the configuration in it.
type Resource[D, C any] struct {
	c    *Client
	path string
}

// At returns the resource at a path such as "/1.0/services/nvme", for those
// whose documents have no method here that names their types.
func At[D, C any](c *Client, path string) Resource[D, C] { return Resource[D, C]{c, path} }

// TryOptions say how careful a change is made. The zero value saves at once.
type TryOptions struct {
	// Within undoes the change unless it is confirmed within that time.
	Within time.Duration
	// IfMatch is the tag of the configuration that the change is made from, as
	// Tagged returns it: the machine refuses with status 412 if somebody else
	// has changed it since.
	IfMatch string
}

// Get returns the document.
func (r Resource[D, C]) Get(ctx context.Context) (D, error) { return get[D](ctx, r.c, r.path) }

// Tagged returns the document and the tag of the configuration in it.
func (r Resource[D, C]) Tagged(ctx context.Context) (doc D, tag string, err error) {
	return fetchTagged[D](ctx, r.c, request{method: http.MethodGet, path: r.path})
}

// Plan returns what a change would do. Nothing is changed.
func (r Resource[D, C]) Plan(ctx context.Context, config C) (api.DryRun, error) {
	return fetch[api.DryRun](ctx, r.c, r.put(config, url.Values{"dry-run": {""}}))
}

// Put changes the configuration. If it fails, the machine is back on what is
// saved, or the error says otherwise.
func (r Resource[D, C]) Put(ctx context.Context, config C, o TryOptions) error {
	query := make(url.Values)
	if o.Within != 0 {
		query.Set("confirmation_timeout", o.Within.String())
	}
	req := r.put(config, query)
	req.match = o.IfMatch
	return r.c.do(ctx, req)
}

// Confirm keeps the change that is on trial.
func (r Resource[D, C]) Confirm(ctx context.Context) error {
	return r.c.post(ctx, r.path+"/:confirm", nil)
}

func (r Resource[D, C]) put(config C, query url.Values) request {
	body := struct {
		Config C `json:"config"`
	}{config}
	return request{method: http.MethodPut, path: r.path, query: query, body: body}
}
