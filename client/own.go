package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/incusos/incusos/api"
)

const tasks = "/1.0/tasks"

// metricsAddress is where a machine shows its metrics to itself.
const metricsAddress = "127.0.0.1:9100"

// Tasks returns work that takes longer than a request, newest first.
func (c *Client) Tasks(ctx context.Context) ([]api.Task, error) {
	return get[[]api.Task](ctx, c, tasks)
}

// Task returns one task.
func (c *Client) Task(ctx context.Context, id string) (api.Task, error) {
	return get[api.Task](ctx, c, at(tasks, id))
}

// CancelTask asks a task to stop.
func (c *Client) CancelTask(ctx context.Context, id string) error {
	return c.post(ctx, at(tasks, id, ":cancel"), nil)
}

// Trial returns the change that waits to be confirmed; nil if none does.
func (c *Client) Trial(ctx context.Context) (*api.Trial, error) {
	t, err := get[*api.Trial](ctx, c, "/1.0/trial")
	if t != nil && t.Resource == "" {
		t = nil // {} is none too
	}
	return t, err
}

// Audit returns the newest entries of the log of changes, oldest first; 0 are as
// many as the machine gives by itself.
func (c *Client) Audit(ctx context.Context, newest int) ([]api.AuditEntry, error) {
	query := make(url.Values)
	if newest > 0 {
		query.Set("entries", strconv.Itoa(newest))
	}
	return fetch[[]api.AuditEntry](ctx, c, request{method: http.MethodGet, path: "/1.0/audit", query: query})
}

// Metrics writes the metrics of the machine to w, as OpenMetrics text. They are
// no route of the API: on the machine they are the daemon's, and from elsewhere
// Incus gives its own and adds those.
func (c *Client) Metrics(ctx context.Context, w io.Writer) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.metrics, nil)
	if err != nil {
		return err
	}
	resp, err := c.roundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		_, err := metadata(resp)
		return err
	}
	if _, err := io.Copy(w, resp.Body); err != nil {
		return fmt.Errorf("reading %s: %w", c.metrics, err)
	}
	return nil
}
