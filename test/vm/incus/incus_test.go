package incus_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/incusos/incusos/test/vm/incus"
)

// fake answers like an Incus that has one container, c1.
func fake(t *testing.T) *incus.Client {
	t.Helper()
	mux := http.NewServeMux()
	answer := func(pattern, text string) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text) })
	}
	answer("GET /1.0", `{"type":"sync","metadata":{"auth":"trusted"}}`)
	answer("POST /1.0/instances/c1/exec", `{"type":"async","operation":"/1.0/operations/exec"}`)
	answer("GET /1.0/operations/exec/wait", `{"type":"sync","metadata":{"status_code":200,"metadata":{"return":3,"output":{"1":"/out","2":"/err"}}}}`)
	answer("GET /out", "to stdout\n")
	answer("GET /err", "to stderr\n")
	answer("GET /1.0/instances/c1/state", `{"type":"sync","metadata":{"status":"Running","network":{"eth0":{"addresses":[
		{"family":"inet6","address":"fe80::1","scope":"link"},{"family":"inet","address":"10.0.0.2","scope":"global"}]}}}}`)
	answer("POST /1.0/instances", `{"type":"async","operation":"/1.0/operations/broken"}`)
	answer("GET /1.0/operations/broken/wait", `{"type":"sync","metadata":{"status_code":400,"description":"Creating instance","err":"no space"}}`)
	answer("POST /1.0/images", `{"type":"async","operation":"/1.0/operations/image"}`)
	answer("GET /1.0/operations/image/wait", `{"type":"sync","metadata":{"status_code":200,"metadata":{"fingerprint":"abc"}}}`)
	answer("GET /denied", `{"type":"error","error":"not authorized","error_code":403}`)
	answer("POST /os/1.0/system/{action}", `{"type":"sync","metadata":{}}`)
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return incus.New(s.URL, nil)
}

func TestExecReturnsWhatTheCommandCameTo(t *testing.T) {
	got, err := fake(t).Exec(t.Context(), "c1", "false")
	want := incus.Output{Status: 3, Stdout: "to stdout\n", Stderr: "to stderr\n"}
	if err != nil || got != want {
		t.Errorf("Exec() = %+v, %v, want %+v", got, err, want)
	}
}

func TestStateLeavesOutAddressesOfTheLink(t *testing.T) {
	s, err := fake(t).State(t.Context(), "c1")
	if got := s.IPv4("eth0"); err != nil || len(got) != 1 || got[0] != "10.0.0.2" {
		t.Errorf("IPv4() = %q, %v, want 10.0.0.2", got, err)
	}
}

func TestUploadReturnsTheFingerprint(t *testing.T) {
	if got, err := fake(t).Upload(t.Context(), []byte("image")); err != nil || got != "abc" {
		t.Errorf("Upload() = %q, %v, want %q", got, err, "abc")
	}
}

func TestPostTakesAnAnswerWithoutOperation(t *testing.T) {
	if err := fake(t).Post(t.Context(), "/os/1.0/system/:reboot", nil, nil); err != nil {
		t.Errorf("Post() = %v, want nil", err)
	}
}

func TestArchivesGoBothWays(t *testing.T) {
	c := fake(t)
	if got, err := c.Fetch(t.Context(), "/os/1.0/system/:backup"); err != nil || string(got) != `{"type":"sync","metadata":{}}` {
		t.Errorf("Fetch() = %q, %v, want the answer as it is", got, err)
	}
	if err := c.Feed(t.Context(), "/os/1.0/system/:restore", []byte("archive"), nil); err != nil {
		t.Errorf("Feed() = %v", err)
	}
	_, err := c.Fetch(t.Context(), "/nowhere")
	if e, ok := errors.AsType[*incus.Error](err); !ok || e.Code != 404 {
		t.Errorf("Fetch() = %v, want an Error with code 404", err)
	}
}

func TestRefusalsAreErrors(t *testing.T) {
	c := fake(t)
	tests := map[string]struct {
		err  error
		code int
	}{
		"at once":             {c.Get(t.Context(), "/denied", new(any)), 403},
		"after the operation": {c.Post(t.Context(), "/1.0/instances", map[string]string{}, nil), 400},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if e, ok := errors.AsType[*incus.Error](tt.err); !ok || e.Code != tt.code {
				t.Errorf("got %v, want an Error with code %d", tt.err, tt.code)
			}
		})
	}
}

func TestImageHasAnInit(t *testing.T) {
	b, err := incus.Image([]byte("program"), "x86_64")
	if err != nil {
		t.Fatal(err)
	}
	modes := make(map[string]int64)
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		modes[h.Name] = h.Mode
	}
	if modes["rootfs/sbin/init"] != 0o755 || modes["rootfs/bin/busybox"] != 0o755 || modes["metadata.yaml"] != 0o644 {
		t.Errorf("the image has %v, want metadata, init and busybox", modes)
	}
}
