package incus_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"strings"
	"testing"

	"github.com/incusos/incusos/internal/incus"
	"github.com/incusos/incusos/internal/sys"
)

// serve answers as Incus on its socket, and returns the machine that it is on.
func serve(t *testing.T, answer http.HandlerFunc) sys.Dir {
	t.Helper()
	dir, err := os.MkdirTemp("", "incus") // short: it becomes part of a socket's name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) }) //nolint:errcheck // a temporary directory
	files := sys.NewDir(dir)
	if err := files.MkdirAll("/var/lib/incus", 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", path.Join(dir, "/var/lib/incus/unix.socket"))
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(answer)
	s.Listener.Close() //nolint:errcheck // another one takes its place
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	return files
}

// says answers every request with the same.
func says(code int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("ETag", "the first")
		w.WriteHeader(code)
		fmt.Fprint(w, text)
	}
}

func TestHere(t *testing.T) {
	if incus.Here(sys.NewDir(t.TempDir())) {
		t.Error("Incus is on a machine where it never was")
	}
	if !incus.Here(serve(t, says(http.StatusOK, ""))) {
		t.Error("Incus is not on a machine where it serves its socket")
	}
}

func TestGet(t *testing.T) {
	c := incus.Dial(serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.URL.String() != "/1.0/cluster/members?recursion=1" || r.Header.Get("If-Match") != "" {
			t.Errorf("it asks for %s %s", r.Method, r.URL)
		}
		says(http.StatusOK, `{"type": "sync", "status_code": 200, "metadata": [{"server_name": "one", "more": 1}]}`)(w, r)
	}))
	var list []struct {
		Name string `json:"server_name"`
	}
	etag, err := c.Get(t.Context(), "/1.0/cluster/members?recursion=1", &list)
	if err != nil || etag != "the first" || len(list) != 1 || list[0].Name != "one" {
		t.Errorf("Get() = %q, %v with %+v", etag, err, list)
	}
}

// Incus changes what is there only if nobody else did.
func TestPutComparesAndSwaps(t *testing.T) {
	now := "the first"
	c := incus.Dial(serve(t, func(w http.ResponseWriter, r *http.Request) {
		var body map[string]string
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil || r.Method != http.MethodPut || body["description"] != "mine" {
			t.Errorf("%s sends %v (%v)", r.Method, body, err)
		}
		if r.Header.Get("If-Match") != now {
			says(http.StatusPreconditionFailed, `{"type": "error", "error_code": 412, "error": "ETag does not match"}`)(w, r)
			return
		}
		now = "the second"
		says(http.StatusOK, `{"type": "sync"}`)(w, r)
	}))
	body := map[string]string{"description": "mine"}
	if err := c.Put(t.Context(), "/1.0/projects/default", "the first", body); err != nil {
		t.Error(err)
	}
	err := c.Put(t.Context(), "/1.0/projects/default", "the first", body)
	if !incus.Changed(err) || incus.NotFound(err) || err.Error() != "Incus says: ETag does not match" {
		t.Errorf("the second Put() = %v, want that it was changed", err)
	}
}

func TestDoWaits(t *testing.T) {
	tests := map[string]struct{ end, want string }{
		"well":      {`{"type": "sync", "metadata": {"status_code": 200, "err": ""}}`, ""},
		"failed":    {`{"type": "sync", "metadata": {"status_code": 400, "err": "no room for web1"}}`, "Incus says: no room for web1"},
		"odd":       {`{"type": "sync", "metadata": {"status_code": 200, "err": "no room"}}`, "Incus says: no room"},
		"forgotten": {`{"type": "error", "error_code": 404, "error": "Operation not found"}`, "Incus says: Operation not found"},
		"no end":    {`{"type": "sync", "metadata": []}`, "reading how /1.0/operations/4c1c ended"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := incus.Dial(serve(t, func(w http.ResponseWriter, r *http.Request) {
				switch r.Method + " " + r.URL.String() {
				case "POST /1.0/cluster/members/one/state":
					says(http.StatusAccepted, `{"type": "async", "operation": "/1.0/operations/4c1c?project=default"}`)(w, r)
				case "GET /1.0/operations/4c1c/wait":
					says(http.StatusOK, tt.end)(w, r)
				default:
					t.Errorf("it asks for %s %s", r.Method, r.URL)
				}
			}))
			err := c.Do(t.Context(), http.MethodPost, "/1.0/cluster/members/one/state", map[string]string{"action": "evacuate"}, nil)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Do() = %v, want %q", err, tt.want)
			}
		})
	}
}

func TestAnswersThatAreNone(t *testing.T) {
	tests := map[string]struct {
		code int
		text string
		want string
	}{
		"no JSON":            {http.StatusBadGateway, "<html>", "reading the answer to GET /1.0 (502 Bad Gateway)"},
		"cut":                {http.StatusOK, `{"type": "sync", "meta`, "reading the answer to GET /1.0"},
		"another kind":       {http.StatusOK, `{"type": "sync", "metadata": "text"}`, "reading the answer to GET /1.0"},
		"not found":          {http.StatusNotFound, `{"type": "error", "error_code": 404, "error": "Not found"}`, "Incus says: Not found"},
		"error without code": {http.StatusOK, `{"type": "error", "error": "odd"}`, "Incus says: odd"},
		"endless":            {http.StatusOK, `{"type": "sync", "metadata": "` + strings.Repeat("x", 17<<20), "unexpected EOF"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var out map[string]any
			_, err := incus.Dial(serve(t, says(tt.code, tt.text))).Get(t.Context(), "/1.0", &out)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("Get() = %v, want %q", err, tt.want)
			}
			if got := incus.NotFound(err); got != (name == "not found") {
				t.Errorf("NotFound(%v) = %v", err, got)
			}
		})
	}
}

func TestIncusThatDoesNotAnswer(t *testing.T) {
	var out map[string]any
	if _, err := incus.Dial(sys.NewDir(t.TempDir())).Get(t.Context(), "/1.0", &out); err == nil {
		t.Error("there is no socket, and it answers")
	}
	ctx, cancel := context.WithCancel(t.Context())
	c := incus.Dial(serve(t, func(_ http.ResponseWriter, r *http.Request) { cancel(); <-r.Context().Done() }))
	if err := c.Do(ctx, http.MethodGet, "/1.0", nil, &out); !errors.Is(err, context.Canceled) {
		t.Errorf("Do() = %v, want that it was cancelled", err)
	}
}
