// Package incus is a client of Incus' REST API for the scenarios in test/vm. It
// speaks plain HTTP and JSON, so that what is tested is the wire and not
// somebody's library. It knows the few requests that a scenario makes and no
// more; image.go makes a container image out of one static program.
package incus

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// A Client speaks to one Incus.
type Client struct {
	base string
	http *http.Client
}

// New returns the client of the Incus at base, such as "https://127.0.0.1:8443".
func New(base string, config *tls.Config) *Client {
	// Each request has a connection of its own: machines restart in between, and
	// then QEMU's network accepts connections that nobody answers.
	return &Client{base, &http.Client{Transport: &http.Transport{
		TLSClientConfig:     config,
		TLSHandshakeTimeout: 20 * time.Second,
		DisableKeepAlives:   true,
	}}}
}

// An Error is an answer of Incus that says no.
type Error struct {
	Request string
	Code    int
	Text    string
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %d: %s", e.Request, e.Code, e.Text) }

// envelope is what every JSON answer comes in.
type envelope struct {
	Type      string          `json:"type"`
	Error     string          `json:"error"`
	ErrorCode int             `json:"error_code"`
	Operation string          `json:"operation"`
	Metadata  json.RawMessage `json:"metadata"`
}

// Get stores the document at path in result.
func (c *Client) Get(ctx context.Context, path string, result any) error {
	e, err := c.ask(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	return json.Unmarshal(e.Metadata, result)
}

// Post sends a document, nil being none, and waits for what it sets off. It
// stores the result of an operation in result unless that is nil.
func (c *Client) Post(ctx context.Context, path string, document, result any) error {
	return c.Do(ctx, http.MethodPost, path, document, result)
}

// Do is Post with another method.
func (c *Client) Do(ctx context.Context, method, path string, document, result any) error {
	var body io.Reader
	if document != nil {
		b, err := json.Marshal(document)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	e, err := c.ask(ctx, method, path, body)
	if err != nil {
		return err
	}
	return c.settle(ctx, e, result)
}

// Upload sends an image and returns its fingerprint.
func (c *Client) Upload(ctx context.Context, image []byte) (string, error) {
	e, err := c.ask(ctx, http.MethodPost, "/1.0/images", bytes.NewReader(image))
	if err != nil {
		return "", err
	}
	var result struct{ Fingerprint string }
	err = c.settle(ctx, e, &result)
	return result.Fingerprint, err
}

// Fetch posts to path, and returns the answer as it is: an archive.
func (c *Client) Fetch(ctx context.Context, path string) ([]byte, error) {
	resp, err := c.send(ctx, http.MethodPost, path, strings.NewReader("{}"))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = &Error{"POST " + path, resp.StatusCode, string(b)}
	}
	return b, err
}

// Feed posts octets to path, such as an archive, and stores the answer in result unless
// that is nil.
func (c *Client) Feed(ctx context.Context, path string, octets []byte, result any) error {
	e, err := c.ask(ctx, http.MethodPost, path, bytes.NewReader(octets))
	if err != nil || result == nil {
		return err
	}
	return json.Unmarshal(e.Metadata, result)
}

// operation is a task of Incus that has ended.
type operation struct {
	Description string          `json:"description"`
	StatusCode  int             `json:"status_code"`
	Err         string          `json:"err"`
	Metadata    json.RawMessage `json:"metadata"`
}

// settle waits for the operation that an answer speaks of, if any.
func (c *Client) settle(ctx context.Context, e envelope, result any) error {
	if e.Type != "async" {
		if result == nil {
			return nil
		}
		return json.Unmarshal(e.Metadata, result)
	}
	var op operation
	if err := c.Get(ctx, e.Operation+"/wait?timeout=-1", &op); err != nil {
		return err
	}
	if op.StatusCode != http.StatusOK {
		return &Error{op.Description, op.StatusCode, op.Err}
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(op.Metadata, result)
}

func (c *Client) ask(ctx context.Context, method, path string, body io.Reader) (envelope, error) {
	resp, err := c.send(ctx, method, path, body)
	if err != nil {
		return envelope{}, err
	}
	defer resp.Body.Close()
	var e envelope
	if err := json.NewDecoder(resp.Body).Decode(&e); err != nil {
		return e, fmt.Errorf("%s %s answered %s without a document: %w", method, path, resp.Status, err)
	}
	if e.Type == "error" {
		return e, &Error{method + " " + path, e.ErrorCode, e.Error}
	}
	return e, nil
}

func (c *Client) send(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, err
	}
	// Incus takes octets for an image, or for the backup of an instance.
	req.Header.Set("Content-Type", "application/json")
	if path == "/1.0/images" {
		req.Header.Set("Content-Type", "application/octet-stream")
	}
	return c.http.Do(req)
}

// Raw returns what is at path as it is: a log, the output of a command.
func (c *Client) Raw(ctx context.Context, path string) (string, error) {
	resp, err := c.send(ctx, http.MethodGet, path, nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = &Error{"GET " + path, resp.StatusCode, string(b)}
	}
	return string(b), err
}

// An Output is what a command in an instance came to.
type Output struct {
	Status int
	Stdout string
	Stderr string
}

// Exec runs a command in an instance to its end.
func (c *Client) Exec(ctx context.Context, instance string, command ...string) (Output, error) {
	var result struct {
		Return int               `json:"return"`
		Output map[string]string `json:"output"` // paths, by file descriptor
	}
	err := c.Post(ctx, "/1.0/instances/"+url.PathEscape(instance)+"/exec", map[string]any{
		"command": command, "record-output": true, "wait-for-websocket": false, "interactive": false,
	}, &result)
	if err != nil {
		return Output{}, err
	}
	out := Output{Status: result.Return}
	if out.Stdout, err = c.Raw(ctx, result.Output["1"]); err != nil {
		return out, err
	}
	out.Stderr, err = c.Raw(ctx, result.Output["2"])
	return out, err
}

// A State is what an instance does at the moment.
type State struct {
	Status  string `json:"status"` // "Running", "Stopped" and so on
	Network map[string]struct {
		Addresses []struct {
			Family  string `json:"family"`
			Address string `json:"address"`
			Scope   string `json:"scope"`
		} `json:"addresses"`
	} `json:"network"`
}

// State returns the state of an instance.
func (c *Client) State(ctx context.Context, instance string) (State, error) {
	var s State
	err := c.Get(ctx, "/1.0/instances/"+url.PathEscape(instance)+"/state", &s)
	return s, err
}

// IPv4 returns the addresses of a device that others can reach.
func (s State) IPv4(device string) []string {
	var all []string
	for _, a := range s.Network[device].Addresses {
		if a.Family == "inet" && a.Scope == "global" {
			all = append(all, a.Address)
		}
	}
	return all
}
