package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/incusos/incusos/api"
)

// answerLimit is the longest document that is read, in bytes. Archives have no
// limit: they are handed on as they arrive.
const answerLimit = 16 << 20

// An Error is an answer of the machine that says no.
type Error struct {
	Status  int    // the HTTP status
	Message string // what the machine says, or the meaning of the status
}

func (e *Error) Error() string { return e.Message }

// A request is what is asked of the machine.
type request struct {
	method string
	path   string // below the root of the API
	query  url.Values
	body   any       // a document; nil: none
	upload io.Reader // a body that is no document; nil: none
	match  string    // the value of If-Match; "" for none
}

// get returns the document at path.
func get[T any](ctx context.Context, c *Client, path string) (T, error) {
	return fetch[T](ctx, c, request{method: http.MethodGet, path: path})
}

// fetch sends r and returns the document in the answer.
func fetch[T any](ctx context.Context, c *Client, r request) (T, error) {
	v, _, err := fetchTagged[T](ctx, c, r)
	return v, err
}

// fetchTagged is fetch with the ETag of the answer.
func fetchTagged[T any](ctx context.Context, c *Client, r request) (v T, etag string, err error) {
	resp, err := c.send(ctx, r)
	if err != nil {
		return v, "", err
	}
	defer resp.Body.Close()
	data, err := metadata(resp)
	if err != nil {
		return v, "", err
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return v, "", fmt.Errorf("reading %s: %w", r.path, err)
	}
	return v, resp.Header.Get("ETag"), nil
}

// post does something. Body is the document that says what; nil for none.
func (c *Client) post(ctx context.Context, path string, body any) error {
	return c.do(ctx, request{method: http.MethodPost, path: path, body: body})
}

// do sends r, of whose answer only matters whether it says no.
func (c *Client) do(ctx context.Context, r request) error {
	_, err := fetch[json.RawMessage](ctx, c, r)
	return err
}

// stream sends r and writes the archive in the answer to w as it arrives. After
// an error w may have got part of it.
func (c *Client) stream(ctx context.Context, r request, w io.Writer) error {
	resp, err := c.send(ctx, r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if kind := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || kind == "application/json" {
		if _, err := metadata(resp); err != nil {
			return err
		}
		return fmt.Errorf("%s answered with a document; want an archive", resp.Request.URL)
	}
	if _, err := io.Copy(w, resp.Body); err != nil {
		return fmt.Errorf("reading %s: %w", r.path, err)
	}
	return nil
}

// send sends r and returns the answer, whatever it is.
func (c *Client) send(ctx context.Context, r request) (*http.Response, error) {
	body, kind := r.upload, "application/octet-stream"
	if r.body != nil {
		data, err := json.Marshal(r.body)
		if err != nil {
			return nil, err
		}
		body, kind = bytes.NewReader(data), "application/json"
	}
	address := c.base + r.path
	if len(r.query) > 0 {
		address += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, address, body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", kind)
	}
	if r.match != "" {
		req.Header.Set("If-Match", r.match)
	}
	return c.roundTrip(req)
}

func (c *Client) roundTrip(req *http.Request) (*http.Response, error) {
	resp, err := c.http.Do(req)
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = fmt.Errorf("speaking to the machine: %w", e.Err) // the rest is an address that nobody wrote
	}
	return resp, err
}

// metadata takes what an answer is about out of its envelope. Not everything on
// the way speaks the envelope: incusd answers 502 with an empty body while the
// daemon is not there.
func metadata(resp *http.Response) (json.RawMessage, error) {
	where := resp.Request.URL
	data, err := io.ReadAll(io.LimitReader(resp.Body, answerLimit+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", where, err)
	}
	if len(data) > answerLimit {
		return nil, fmt.Errorf("reading %s: the answer is longer than %d MiB", where, answerLimit>>20)
	}
	var env api.Response
	err = json.Unmarshal(data, &env)
	switch {
	case err == nil && env.Type == "error" && env.Error != "":
		return nil, &Error{resp.StatusCode, env.Error}
	case resp.StatusCode != http.StatusOK:
		return nil, &Error{resp.StatusCode, fmt.Sprintf("%s answered %s", where, resp.Status)}
	case err != nil || env.Type != "sync":
		return nil, fmt.Errorf("%s answered something that is not the API of IncusOS", where)
	}
	return env.Metadata, nil
}

// at is the path of what is called name below dir, and what follows that.
func at(dir, name string, action ...string) string {
	return strings.Join(append([]string{dir, url.PathEscape(name)}, action...), "/")
}
