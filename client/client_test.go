package client_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/incusos/incusos/client"
)

func TestAnswersThatSayNo(t *testing.T) {
	tests := map[string]struct {
		code   int
		body   string
		status int    // of the Error; 0: another kind of error
		text   string // in it
	}{
		"a refusal":               {404, `{"type":"error","error":"not found","error_code":404}`, 404, "not found"},
		"a refusal sent as 200":   {200, `{"type":"error","error":"no","error_code":500}`, 200, "no"},
		"the daemon is not there": {502, "", 502, "502 Bad Gateway"},
		"a refusal of Incus":      {403, `{"type":"error","error":"not authorized","error_code":403}`, 403, "not authorized"},
		"some other web server":   {200, "<html>", 0, "not the API of IncusOS"},
		"an answer of no use":     {200, `{"type":"sync","metadata":7}`, 0, "cannot unmarshal number"},
		"no end":                  {200, strings.Repeat(" ", 17<<20), 0, "longer than 16 MiB"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := server(t, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(tt.code)
				fmt.Fprint(w, tt.body)
			})
			_, err := c.Server(t.Context())
			status := 0
			if e, ok := errors.AsType[*client.Error](err); ok {
				status = e.Status
			}
			if err == nil || status != tt.status || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("error is %v with status %d; want status %d and %q in it", err, status, tt.status, tt.text)
			}
		})
	}
}

func TestUnixSocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"type":"sync","metadata":[%q]}`, r.URL.Path)
	})}}
	srv.Start()
	defer srv.Close()
	got, err := client.New(socket).Services(t.Context())
	if err != nil || fmt.Sprint(got) != "[/1.0/services]" {
		t.Errorf("Services() = %v, %v", got, err)
	}
}

// server returns the remote client of a machine that answers with h.
func server(t *testing.T, h http.HandlerFunc) *client.Client {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return client.Remote(srv.Client(), srv.URL+"/")
}
