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
	"github.com/incusos/incusos/internal/change"
)

// bodyLimit is the longest document, in bytes: what incusd passes on. Archives
// that are uploaded on the machine's own sockets may be longer.
const bodyLimit = 1 << 20

// Handler returns the API of m, rooted at /.
func Handler(m Machine) http.Handler {
	t := newTable(Routes(m))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		note := &note{}
		r = r.WithContext(context.WithValue(r.Context(), noteKey{}, note))
		value, route, err := dispatch(t, w, r)
		m.record(r, route, note, err)
		switch value := value.(type) {
		case Stream:
			send(w, r, value)
		case later:
			answer(w, r, nil, err)
			if err == nil {
				perform(w, r, value)
			}
		default:
			answer(w, r, value, err)
		}
	})
}

// dispatch finds the route for r and asks its endpoint.
func dispatch(t table, w http.ResponseWriter, r *http.Request) (any, Route, error) {
	methods, name := t.find(r.URL.Path)
	if methods == nil {
		return nil, Route{}, api.Errorf(api.NotFound, "%q: not found; start at /1.0", r.URL.Path)
	}
	route, ok := methods[r.Method]
	if !ok {
		w.Header().Set("Allow", allow(methods))
		return nil, Route{}, &methodError{r.Method, r.URL.Path, allow(methods)}
	}
	r.SetPathValue("name", name)
	if err := complete(w, r, route); err != nil {
		return nil, route, err
	}
	value, err := route.do(r)
	if err != nil {
		value = nil
	}
	return value, route, err
}

// complete reads the body of r, so that no endpoint acts on half of one; one
// that takes an archive has to see to that itself. With GET a body says nothing;
// some clients send one all the same.
func complete(w http.ResponseWriter, r *http.Request, route Route) error {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		r.Body = http.NoBody
		return nil
	}
	if route.Upload == gzip {
		r.Body = upload{r.Body}
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

// An upload is a body that says in our words that it was cut short.
type upload struct{ io.ReadCloser }

func (u upload) Read(p []byte) (int, error) {
	n, err := u.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = errEndedEarly
	}
	return n, err
}

// answer writes the envelope. Its length is announced, so that a client has
// all of it before a later begins.
func answer(w http.ResponseWriter, r *http.Request, value any, err error) {
	if t, ok := value.(tagged); ok {
		value = t.value
		w.Header().Set("ETag", t.etag)
	}
	var body []byte
	if err == nil {
		body, err = envelope(value)
	}
	code := http.StatusOK
	if err != nil {
		code = status(err)
		body, _ = json.Marshal(api.Response{Type: "error", Error: err.Error(), ErrorCode: code}) // cannot fail
		slog.Log(r.Context(), loudness(code), "Request refused", "method", r.Method, "path", r.URL.Path, "code", code, "err", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)+1))
	w.WriteHeader(code)
	_, _ = w.Write(append(body, '\n')) // whoever asked may be gone
}

// loudness is how a refusal is logged: what is not there is no news, since Incus
// and its clients ask for everything they know of.
func loudness(code int) slog.Level {
	switch code {
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

// envelope puts value into an api.Response. It does so in one go: a Metadata that
// is JSON already would be read and written once more.
func envelope(value any) ([]byte, error) {
	if value == nil {
		value = struct{}{}
	}
	return json.Marshal(struct {
		api.Response
		Metadata any `json:"metadata"`
	}{api.Response{Type: "sync", Status: "Success", StatusCode: http.StatusOK}, value})
}

// send sends what is no document. Once it has begun there is no way to report an
// error but to cut it short, which clients notice.
func send(w http.ResponseWriter, r *http.Request, s Stream) {
	w.Header().Set("Content-Type", s.MediaType)
	if err := s.Write(w); err != nil {
		slog.WarnContext(r.Context(), "Cannot send all of an answer", "path", r.URL.Path, "err", err)
		panic(http.ErrAbortHandler)
	}
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

// status is the one place where errors become status codes. A change that could
// not be made has that of its reason: whoever asked may be able to mend that. A
// machine that could not go back either is another matter.
func status(err error) int {
	if f, ok := errors.AsType[*change.Failure](err); ok && f.Back != nil {
		return http.StatusInternalServerError
	}
	if _, ok := errors.AsType[*api.FieldError](err); ok {
		return http.StatusBadRequest
	}
	if _, ok := errors.AsType[*methodError](err); ok {
		return http.StatusMethodNotAllowed
	}
	if _, ok := errors.AsType[*change.PendingError](err); ok {
		return http.StatusConflict
	}
	if e, ok := errors.AsType[*api.Error](err); ok {
		return kindStatus(e.Kind)
	}
	switch {
	case errors.Is(err, change.ErrNoTrial):
		return http.StatusBadRequest // as the reference system says it
	case errors.Is(err, errBodyTooLong):
		return http.StatusRequestEntityTooLarge
	case errors.Is(err, errEndedEarly):
		return http.StatusBadRequest
	}
	return http.StatusInternalServerError
}

func kindStatus(k api.Kind) int {
	switch k {
	case api.Invalid:
		return http.StatusBadRequest
	case api.Forbidden:
		return http.StatusForbidden
	case api.NotFound:
		return http.StatusNotFound
	case api.Conflict:
		return http.StatusConflict
	case api.Changed:
		return http.StatusPreconditionFailed
	case api.Unsupported:
		return http.StatusNotImplemented
	case api.Unavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

var (
	errEndedEarly  = errors.New("the request ended before its body was complete; send it again")
	errBodyTooLong = errors.New("the request's body is longer than 1 MiB")
)
