// Package incus speaks to the Incus of this machine over its Unix socket, as root, in
// the few requests that the system itself makes: package apps sets it up with them, and
// package rolling takes turns with other members of a cluster. Operators' clients are
// none of its business.
//
//	incus.go   requests and their answers
//	member.go  an Incus that waits for other members, and speaking to theirs
package incus

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys"
)

const socket = "/var/lib/incus/unix.socket"

// longest is the most that is read of an answer, in bytes.
const longest = 16 << 20

// A Client speaks to the Incus of this machine, or of another member of its cluster.
type Client struct {
	base string // "https://192.0.2.7:8443"
	http *http.Client
}

// Here reports whether Incus was ever started on this machine.
func Here(files sys.Dir) bool { return files.Exists(socket) }

// Dial returns a client. It sends nothing yet.
func Dial(files sys.Dir) *Client {
	return &Client{"http://unix", &http.Client{Transport: &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return files.DialUnix(ctx, socket) },
		DisableKeepAlives: true, // there are minutes between two uses
	}}}
}

// A Refusal is an answer of Incus that says no.
type Refusal struct {
	Code int // HTTP status
	Text string
}

func (r *Refusal) Error() string { return "Incus says: " + r.Text }

// NotFound reports whether Incus has no such thing.
func NotFound(err error) bool { return refused(err, http.StatusNotFound) }

// Changed reports whether something was changed by somebody else since the ETag was
// taken.
func Changed(err error) bool { return refused(err, http.StatusPreconditionFailed) }

func refused(err error, code int) bool {
	r, ok := errors.AsType[*Refusal](err)
	return ok && r.Code == code
}

// Get decodes what is at a path into out, and returns its ETag.
func (c *Client) Get(ctx context.Context, path string, out any) (etag string, err error) {
	r, etag, err := c.send(ctx, http.MethodGet, path, "", nil)
	if err != nil {
		return "", err
	}
	if err := json.Unmarshal(r.Metadata, out); err != nil {
		return "", fmt.Errorf("reading the answer to GET %s: %w", path, err)
	}
	return etag, nil
}

// Put replaces what is at a path if it still has the ETag.
func (c *Client) Put(ctx context.Context, path, etag string, body any) error {
	_, _, err := c.send(ctx, http.MethodPut, path, etag, body)
	return err
}

// Do sends a request with body as JSON, unless it is nil, and decodes the
// answer's metadata into out, unless that is nil. When Incus goes on in the
// background, Do waits for the end.
func (c *Client) Do(ctx context.Context, method, path string, body, out any) error {
	r, _, err := c.send(ctx, method, path, "", body)
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

func (c *Client) send(ctx context.Context, method, path, etag string, body any) (r api.Response, current string, err error) {
	data := []byte{}
	if body != nil {
		if data, err = json.Marshal(body); err != nil {
			return r, "", err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(data))
	if err != nil {
		return r, "", err
	}
	req.Header.Set("Content-Type", "application/json")
	if etag != "" {
		req.Header.Set("If-Match", etag)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return r, "", err
	}
	defer resp.Body.Close() //nolint:errcheck // it was read
	if err := json.NewDecoder(io.LimitReader(resp.Body, longest)).Decode(&r); err != nil {
		return r, "", fmt.Errorf("reading the answer to %s %s (%s): %w", method, path, resp.Status, err)
	}
	if r.Type == "error" || resp.StatusCode >= http.StatusBadRequest {
		return r, "", &Refusal{max(resp.StatusCode, r.ErrorCode), r.Error}
	}
	return r, resp.Header.Get("ETag"), nil
}

// await returns when the operation has ended.
func (c *Client) await(ctx context.Context, operation string) error {
	operation, _, _ = strings.Cut(operation, "?")
	r, _, err := c.send(ctx, http.MethodGet, operation+"/wait", "", nil)
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
		return &Refusal{end.StatusCode, end.Err}
	}
	return nil
}
