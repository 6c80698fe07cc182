package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"

	"github.com/incusos/incusos/api"
)

// bodyLimit is the longest body incusd passes on, in bytes.
const bodyLimit = 1 << 20

// Handler returns the API of m, rooted at /.
func Handler(m Machine) http.Handler {
	t := routes(m)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		value, err := dispatch(t, w, r)
		act, isLater := value.(later)
		if isLater {
			value = nil
		}
		answer(w, r, value, err)
		if isLater && err == nil {
			perform(w, r, act)
		}
	})
}

// dispatch finds the endpoint for r and asks it.
func dispatch(t table, w http.ResponseWriter, r *http.Request) (any, error) {
	methods, name := t.find(r.URL.Path)
	if methods == nil {
		return nil, fmt.Errorf("%q: %w; start at /1.0", r.URL.Path, errNotFound)
	}
	e, ok := methods[r.Method]
	if !ok {
		w.Header().Set("Allow", allow(methods))
		return nil, &methodError{r.Method, r.URL.Path, allow(methods)}
	}
	if err := complete(w, r); err != nil {
		return nil, err
	}
	r.SetPathValue("name", name)
	return e(r)
}

// complete reads the body of r, so that no endpoint acts on half of one. With
// GET a body says nothing; some clients send one all the same.
func complete(w http.ResponseWriter, r *http.Request) error {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		r.Body = http.NoBody
		return nil
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyLimit))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return errBodyTooLong
	}
	if err != nil {
		return errEndedEarly
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	return nil
}

// answer writes the envelope. Its length is announced, so that a client has
// all of it before a later begins.
func answer(w http.ResponseWriter, r *http.Request, value any, err error) {
	env := api.Response{Type: "sync", Status: "Success", StatusCode: http.StatusOK}
	if err == nil {
		env.Metadata, err = metadata(value)
	}
	code := http.StatusOK
	if err != nil {
		code = status(err)
		env = api.Response{Type: "error", Error: err.Error(), ErrorCode: code}
		slog.InfoContext(r.Context(), "Request refused", "method", r.Method, "path", r.URL.Path, "code", code, "err", err)
	}
	body, _ := json.Marshal(env) // of strings, numbers and JSON: cannot fail
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)+1))
	w.WriteHeader(code)
	_, _ = w.Write(append(body, '\n')) // whoever asked may be gone
}

func metadata(value any) (json.RawMessage, error) {
	if value == nil {
		return json.RawMessage("{}"), nil
	}
	return json.Marshal(value)
}

// perform does what was promised, whether or not the client waits for it.
func perform(w http.ResponseWriter, r *http.Request, act later) {
	_ = http.NewResponseController(w).Flush() // not every writer can
	if err := act(context.WithoutCancel(r.Context())); err != nil {
		slog.ErrorContext(r.Context(), "Cannot do what was asked for", "path", r.URL.Path, "err", err)
	}
}

// A methodError reports a method that a path does not have.
type methodError struct{ method, path, allow string }

func (e *methodError) Error() string {
	return fmt.Sprintf("%s does not know %s; want %s", e.path, e.method, e.allow)
}

// status is the one place where errors become status codes.
func status(err error) int {
	if _, ok := errors.AsType[*api.FieldError](err); ok {
		return http.StatusBadRequest
	}
	if _, ok := errors.AsType[*methodError](err); ok {
		return http.StatusMethodNotAllowed
	}
	switch {
	case errors.Is(err, errNotFound):
		return http.StatusNotFound
	case errors.Is(err, errNotHere):
		return http.StatusNotImplemented
	case errors.Is(err, errBodyTooLong):
		return http.StatusRequestEntityTooLarge
	case errors.Is(err, errEndedEarly):
		return http.StatusBadRequest
	}
	return http.StatusInternalServerError
}

// prefix is what incusd has taken off the front of every path, and what must
// be put back. A client can send the header too, but incusd adds its own after
// it: only the last one counts.
func prefix(r *http.Request) string {
	values := r.Header.Values("X-IncusOS-Proxy")
	if len(values) > 0 && values[len(values)-1] == "/os" {
		return "/os"
	}
	return ""
}
