package client

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/incusos/incusos/api"
)

const debug = "/1.0/debug"

// Debug returns what can be looked at, as paths.
func (c *Client) Debug(ctx context.Context) ([]string, error) { return get[[]string](ctx, c, debug) }

// DebugKernel returns the kernel and its modules.
func (c *Client) DebugKernel(ctx context.Context) (api.DebugKernel, error) {
	return get[api.DebugKernel](ctx, c, debug+"/kernel")
}

// Log returns entries of the log, oldest first.
func (c *Client) Log(ctx context.Context, q api.DebugLogQuery) ([]api.LogEntry, error) {
	query := make(url.Values)
	for key, value := range map[string]string{"unit": q.Unit, "boot": q.Boot, "since": q.Since, "until": q.Until} {
		if value != "" {
			query.Set(key, value)
		}
	}
	if q.Entries > 0 {
		query.Set("entries", strconv.Itoa(q.Entries))
	}
	return fetch[[]api.LogEntry](ctx, c, request{method: http.MethodGet, path: debug + "/log", query: query})
}

// Processes returns what runs, as a table.
func (c *Client) Processes(ctx context.Context) (string, error) {
	return get[string](ctx, c, debug+"/processes")
}

// Report returns figures about the machine; only those with one of the words of
// match in their name if there are any.
func (c *Client) Report(ctx context.Context, match ...string) (api.DebugReport, error) {
	query := make(url.Values)
	if len(match) > 0 {
		query["match"] = match
	}
	return fetch[api.DebugReport](ctx, c, request{method: http.MethodGet, path: debug + "/report", query: query})
}

// Bundle writes everything that helps to find a fault to w, as an archive
// without secrets. After an error w may have got part of it.
func (c *Client) Bundle(ctx context.Context, w io.Writer) error {
	return c.stream(ctx, request{method: http.MethodGet, path: debug + "/bundle"}, w)
}

// RunScript runs a script that the support key signed, and returns what it
// prints.
func (c *Client) RunScript(ctx context.Context, signed io.Reader) (string, error) {
	out, err := fetch[any](ctx, c, request{method: http.MethodPost, path: debug + "/:run-script", upload: signed})
	text, _ := out.(string) // {} if it prints nothing
	return text, err
}

// SecureBoot returns what there is about Secure Boot, as paths.
func (c *Client) SecureBoot(ctx context.Context) ([]string, error) {
	return get[[]string](ctx, c, debug+"/secureboot")
}

// EventLog returns what was measured while the machine started.
func (c *Client) EventLog(ctx context.Context) (api.SecureBootEventLog, error) {
	return get[api.SecureBootEventLog](ctx, c, debug+"/secureboot/event-log")
}

// Doctor returns whether the next start will unlock the disk by itself, and what
// stands in the way.
func (c *Client) Doctor(ctx context.Context) (api.SecureBootDoctor, error) {
	return get[api.SecureBootDoctor](ctx, c, debug+"/secureboot/doctor")
}

// UpdateSecureBoot applies signed updates of the Secure Boot databases.
func (c *Client) UpdateSecureBoot(ctx context.Context, updates io.Reader) error {
	return c.do(ctx, request{method: http.MethodPost, path: debug + "/secureboot/:update", upload: updates})
}
