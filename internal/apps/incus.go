package apps

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys"
)

const incusSocket = "/var/lib/incus/unix.socket"

// An incus speaks to the Incus of this machine, as root.
type incus struct{ http *http.Client }

func dial(files sys.Dir) *incus {
	return &incus{&http.Client{Transport: &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return files.DialUnix(ctx, incusSocket) },
		DisableKeepAlives: true, // there are minutes between two uses
	}}}
}

// A refusal is an answer of Incus that says no.
type refusal struct {
	code int // HTTP status
	text string
}

func (r *refusal) Error() string { return "Incus says: " + r.text }

func notFound(err error) bool {
	r, ok := errors.AsType[*refusal](err)
	return ok && r.code == http.StatusNotFound
}

// version waits until Incus answers, at most for limit, and returns what it
// says it is. Its socket is there before it is: one request is enough.
func (c *incus) version(ctx context.Context, limit time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var server struct {
		Environment struct {
			ServerVersion string `json:"server_version"`
		} `json:"environment"`
	}
	if err := c.do(ctx, http.MethodGet, "/1.0", nil, &server); err != nil {
		return "", fmt.Errorf("waiting for Incus: %w", err)
	}
	return server.Environment.ServerVersion, nil
}

// nobodyTrusted reports whether no certificate at all could log in.
func (c *incus) nobodyTrusted(ctx context.Context) (bool, error) {
	var certificates []string
	if err := c.do(ctx, http.MethodGet, "/1.0/certificates", nil, &certificates); err != nil {
		return false, fmt.Errorf("listing who may log in: %w", err)
	}
	return len(certificates) == 0, nil
}

// do sends a request with body as JSON, unless it is nil, and decodes the
// answer's metadata into out, unless that is nil. When Incus goes on in the
// background, do waits for the end.
func (c *incus) do(ctx context.Context, method, path string, body, out any) error {
	r, err := c.send(ctx, method, path, body)
	if err != nil {
		return err
	}
	if r.Type == "async" {
		return c.await(ctx, r.Operation)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(r.Metadata, out); err != nil {
		return fmt.Errorf("reading the answer to %s %s: %w", method, path, err)
	}
	return nil
}

func (c *incus) send(ctx context.Context, method, path string, body any) (api.Response, error) {
	var r api.Response
	data := []byte{}
	if body != nil {
		var err error
		if data, err = json.Marshal(body); err != nil {
			return r, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://unix"+path, bytes.NewReader(data))
	if err != nil {
		return r, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return r, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&r); err != nil {
		return r, fmt.Errorf("reading the answer to %s %s (%s): %w", method, path, resp.Status, err)
	}
	if r.Type == "error" || resp.StatusCode >= http.StatusBadRequest {
		return r, &refusal{max(resp.StatusCode, r.ErrorCode), r.Error}
	}
	return r, nil
}

// await returns when the operation has ended.
func (c *incus) await(ctx context.Context, operation string) error {
	operation, _, _ = strings.Cut(operation, "?")
	r, err := c.send(ctx, http.MethodGet, operation+"/wait", nil)
	if err != nil {
		return err
	}
	var end struct {
		StatusCode int    `json:"status_code"`
		Err        string `json:"err"`
	}
	if err := json.Unmarshal(r.Metadata, &end); err != nil {
		return fmt.Errorf("reading how %s ended: %w", operation, err)
	}
	if end.StatusCode >= http.StatusBadRequest || end.Err != "" {
		return &refusal{end.StatusCode, end.Err}
	}
	return nil
}
