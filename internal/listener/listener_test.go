package listener_test

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/incusos/incusos/api"
)

func TestOnlyTrustedClientsAreLetIn(t *testing.T) {
	s := serve(t, down)
	trusted, stranger := newPair(t), newPair(t)
	s.trust(trusted)
	url := "https://" + s.becomes(true)
	who := "/os listener:" + trusted.fingerprint[:12]
	tests := map[string]struct {
		client  []pair
		path    string
		headers []string
		code    int
		want    string // part of the answer
	}{
		"a trusted client":             {[]pair{trusted}, "/os/1.0", nil, 200, who + ` POST HTTP/2.0 /1.0 ""`},
		"the root":                     {[]pair{trusted}, "/os", nil, 200, ` / ""`},
		"an escaped path":              {[]pair{trusted}, "/os/1.0/a%2Fb%20c", nil, 200, ` /1.0/a%2Fb%20c ""`},
		"the prefix is cut off once":   {[]pair{trusted}, "/os/os/1.0", nil, 200, ` /os/1.0 ""`},
		"a faked prefix":               {[]pair{trusted}, "/os/1.0", []string{"X-IncusOS-Proxy: /evil"}, 200, who + ` POST HTTP/2.0 /1.0 ""`},
		"what Incus would answer":      {[]pair{trusted}, "/1.0", nil, 404, "its system does at /os/1.0"},
		"almost the prefix":            {[]pair{trusted}, "/osx", nil, 404, "its system does at /os/1.0"},
		"a page of another site":       {[]pair{trusted}, "/os/1.0", []string{"Sec-Fetch-Site: cross-site"}, 403, "another site"},
		"an unknown certificate":       {[]pair{stranger}, "/os/1.0", nil, 403, stranger.fingerprint + " is not trusted here"},
		"an unknown one elsewhere":     {[]pair{stranger}, "/1.0", nil, 403, "is not trusted here"},
		"no certificate":               {nil, "/os/1.0", nil, 403, "no client certificate"},
		"no certificate, other header": {nil, "/os/1.0", []string{"X-IncusOS-Proxy: /os"}, 403, "no client certificate"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			code, body := get(t, browser(t, tt.client...), url+tt.path, tt.headers...)
			if code != tt.code || !strings.Contains(body, tt.want) {
				t.Errorf("answered %d %s; want %d and %s", code, body, tt.code, tt.want)
			}
			var env api.Response
			if err := json.Unmarshal([]byte(body), &env); code != 200 && (err != nil || env.Type != "error" || env.ErrorCode != code) {
				t.Errorf("the refusal is no envelope: %s, %v", body, err)
			}
		})
	}
}

func TestOldProtocolsAreRefused(t *testing.T) {
	s := serve(t, down)
	client := newPair(t)
	s.trust(client)
	address := s.becomes(true)
	old := &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, Certificates: []tls.Certificate{client.Certificate}} //nolint:gosec // that is the point
	if conn, err := (&tls.Dialer{Config: old}).DialContext(t.Context(), "tcp", address); err == nil {
		conn.Close()
		t.Error("TLS 1.2 was accepted")
	}
	one := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}, Certificates: []tls.Certificate{client.Certificate}} //nolint:gosec // see browser
	plain := &http.Client{Transport: &http.Transport{TLSClientConfig: one, DisableKeepAlives: true}}
	if code, body := get(t, plain, "https://"+address+"/os/1.0"); code != 200 || !strings.Contains(body, " HTTP/1.1 ") {
		t.Errorf("HTTP/1.1: answered %d %s", code, body)
	}
	if code, _ := get(t, http.DefaultClient, "http://"+address+"/os/1.0"); code != 400 {
		t.Errorf("without TLS: answered %d, want 400", code)
	}
}

func TestItIsOpenOnlyWhileIncusDoesNotAnswer(t *testing.T) {
	s := serve(t, up)
	s.trust(newPair(t))
	time.Sleep(60 * time.Millisecond)
	if s.State().Active || len(s.Warnings()) > 0 {
		t.Fatalf("it is open although Incus answers: %+v, %q", s.State(), s.Warnings())
	}
	down(s.rig)
	address := s.becomes(true)
	if w := s.Warnings(); len(w) != 1 || !strings.Contains(w[0], "https://"+address+"/os") || !strings.Contains(w[0], s.State().Fingerprint) {
		t.Errorf("Warnings() = %q", w)
	}
	up(s.rig)
	s.becomes(false)
	if conn, err := net.Dial("tcp", address); err == nil {
		conn.Close()
		t.Error("it still listens")
	}
	s.Applications(errors.New("Incus does not answer"))
	s.becomes(true)
	s.Applications(nil)
	s.becomes(false)
	if len(s.news) != 4 {
		t.Errorf("%d news, want 4", len(s.news))
	}
}

// Incus needs the port while whoever repairs it is still connected.
func TestIncusFindsItsPortFree(t *testing.T) {
	s := serve(t, down)
	client := newPair(t)
	s.trust(client)
	address := s.becomes(true)
	c := browser(t, client)
	get(t, c, "https://"+address+"/os")
	s.rig.Units.Become(incus, "activating")
	s.becomes(false)
	port, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatalf("the port is not free: %v", err)
	}
	defer port.Close()
	if code, _ := get(t, c, "https://"+address+"/os"); code != 200 {
		t.Errorf("who is connected got %d", code)
	}
}

func TestRequestsInProgressAreAnswered(t *testing.T) {
	s := serve(t, down)
	client := newPair(t)
	s.trust(client)
	resp, err := browser(t, client).Get("https://" + s.becomes(true) + "/os/slow")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	up(s.rig)
	s.becomes(false)
	s.end()
	if b, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(b), "/slow") {
		t.Errorf("the answer is %q, %v", b, err)
	}
}
