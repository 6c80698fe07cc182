package listener_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/incusos/incusos/internal/listener"
	"github.com/incusos/incusos/internal/sys/systest"
)

func TestTheMachineShowsTheCertificateOfIncus(t *testing.T) {
	server, cluster := newPair(t), newPair(t)
	write := func(name string, p pair) func(*systest.Rig) {
		return func(rig *systest.Rig) {
			err := errors.Join(rig.Host.Files.WriteFile("/var/lib/incus/"+name+".crt", []byte(p.cert), 0o644), rig.Host.Files.WriteFile("/var/lib/incus/"+name+".key", []byte(p.key), 0o600))
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, tt := range map[string]struct {
		prepare []func(*systest.Rig)
		want    string // "" is one of its own
	}{
		"of a server":       {[]func(*systest.Rig){write("server", server)}, server.fingerprint},
		"of a cluster":      {[]func(*systest.Rig){write("server", server), write("cluster", cluster)}, cluster.fingerprint},
		"that is damaged":   {[]func(*systest.Rig){write("server", pair{cert: "x", key: "y"})}, ""},
		"that is not there": {nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, func(rig *systest.Rig) {
				down(rig)
				for _, p := range tt.prepare {
					p(rig)
				}
			})
			client := newPair(t)
			s.trust(client)
			resp, err := browser(t, client).Get("https://" + s.becomes(true) + "/os")
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			sum := sha256.Sum256(resp.TLS.PeerCertificates[0].Raw)
			shown := hex.EncodeToString(sum[:])
			if tt.want != "" && shown != tt.want || shown != s.State().Fingerprint {
				t.Errorf("it shows %s and says %s, want %s", shown, s.State().Fingerprint, tt.want)
			}
			fi, err := s.rig.Host.Files.Stat(own)
			if tt.want == "" && (err != nil || fi.Mode().Perm() != 0o600) || tt.want != "" && err == nil {
				t.Errorf("its own certificate: %v, %v", fi, err)
			}
		})
	}
}

func TestItsOwnCertificateStays(t *testing.T) {
	rig := systest.New(t, systest.Sensible())
	show := func() string {
		l := listener.New(rig.Host, listener.Options{Mark: mark})
		l.Patience = time.Nanosecond
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan struct{})
		defer func() { cancel(); <-done }()
		go func() { defer close(done); l.Serve(ctx, http.NotFoundHandler()) }()
		s := &served{Listener: l, t: t, rig: rig}
		s.trust(newPair(t))
		s.becomes(true)
		return s.State().Fingerprint
	}
	first := show()
	if second := show(); second != first {
		t.Errorf("after a restart it is %s, was %s", second, first)
	}
	if err := rig.Host.Files.WriteFile(own, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if third := show(); third == first || len(third) != 64 {
		t.Errorf("after damage it is %q, was %s", third, first)
	}
}
