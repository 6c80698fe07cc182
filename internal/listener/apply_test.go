package listener_test

import (
	"bytes"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/listener"
	"github.com/incusos/incusos/internal/sys/systest"
)

func TestAPortThatIsTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	s := serve(t, up)
	config := api.SystemFallbackListenerConfig{ListenAddress: taken.Addr().String(), TrustedClientCertificates: []string{newPair(t).cert}}
	s.Applications(errors.New("a pool is missing"))
	time.Sleep(60 * time.Millisecond)
	if err := s.Apply(t.Context(), config); err != nil || len(s.Warnings()) > 0 {
		t.Errorf("by Incus itself: %v, %q; want no complaint", err, s.Warnings())
	}
	s.rig.Units.Become(incus, "inactive")
	for range 400 {
		if len(s.Warnings()) > 0 {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if w := s.Warnings(); len(w) != 1 || !strings.Contains(w[0], "address already in use") {
		t.Errorf("by somebody else: Warnings() = %q", w)
	}
	if e, ok := errors.AsType[*api.Error](s.Apply(t.Context(), config)); !ok || e.Kind != api.Conflict {
		t.Errorf("by somebody else: Apply() = %v, want a conflict", e)
	}
}

func TestAnAddressThatTheMachineDoesNotHave(t *testing.T) {
	s := serve(t, down)
	config := api.SystemFallbackListenerConfig{ListenAddress: "192.0.2.1:8443", TrustedClientCertificates: []string{newPair(t).cert}}
	var err error
	for range 400 { // it is opened once Incus has not answered for a while
		if err = s.Apply(t.Context(), config); err != nil {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if f, ok := errors.AsType[*api.FieldError](err); !ok || f.Field != "listen_address" {
		t.Errorf("Apply() = %v, want it to blame listen_address", err)
	}
}

// Fail each effect once: applying again makes up for it.
func TestApplyConverges(t *testing.T) {
	fail := true
	s := serve(t, func(rig *systest.Rig) {
		down(rig)
		rig.Host.Files = rig.Host.Files.WithFault(func(string, string) error {
			if fail {
				fail = false
				return errors.New("cut")
			}
			return nil
		})
	})
	time.Sleep(60 * time.Millisecond)
	config := api.SystemFallbackListenerConfig{ListenAddress: "127.0.0.1:0", TrustedClientCertificates: []string{newPair(t).cert}}
	if err := s.Apply(t.Context(), config); err == nil || !strings.Contains(err.Error(), "making a certificate for the fallback listener") {
		t.Errorf("Apply() = %v, want the fault", err)
	}
	if err := s.Apply(t.Context(), config); err != nil || !s.State().Active {
		t.Errorf("Apply() once more = %v, the listener is %+v", err, s.State())
	}
	if p, err := s.Plan(t.Context(), config); err != nil || !p.Empty() {
		t.Errorf("Plan() afterwards = %v, %v; want nothing", p, err)
	}
}

func TestPlan(t *testing.T) {
	a, b := newPair(t), newPair(t)
	s := serve(t, up)
	check := func(want string, address string, clients ...pair) {
		t.Helper()
		c := api.SystemFallbackListenerConfig{ListenAddress: address}
		for _, p := range clients {
			c.TrustedClientCertificates = append(c.TrustedClientCertificates, p.cert)
		}
		p, err := s.Plan(t.Context(), c)
		if err != nil || p.String() != want {
			t.Errorf("Plan() = %q, %v; want %q", p.String(), err, want)
		}
		if err := s.Apply(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	check("", "")
	check("listen on [::]:8443 while Incus does not answer\ntrust the client certificate "+a.fingerprint+"\n", "", a)
	check("move the fallback listener from [::]:8443 to 127.0.0.1:1\n", "127.0.0.1:1", a)
	check("trust the client certificate "+b.fingerprint+"\ndistrust the client certificate "+a.fingerprint+"\n", "127.0.0.1:1", b)
	check("give up the fallback listener on 127.0.0.1:1 (no way in while Incus does not answer)\ndistrust the client certificate "+b.fingerprint+"\n", "")
}

func TestSeeded(t *testing.T) {
	a, b := newPair(t), newPair(t)
	item := func(p pair, fields map[string]any) any {
		fields["certificate"] = p.cert
		return fields
	}
	for name, tt := range map[string]struct {
		list any
		want string
	}{
		"nobody":                     {nil, ""},
		"of no type, and one client": {[]any{item(a, map[string]any{}), item(b, map[string]any{"type": "client", "restricted": false})}, a.cert + b.cert},
		"metrics":                    {[]any{item(a, map[string]any{"type": "metrics"})}, ""},
		"restricted":                 {[]any{item(a, map[string]any{"restricted": true}), item(b, map[string]any{"restricted": "true"})}, ""},
		"no certificate":             {[]any{map[string]any{"certificate": a.key}, "text", map[string]any{"certificate": 1}}, ""},
		"no list":                    {"text", ""},
		"text around it":             {[]any{item(pair{cert: "of alice\n" + a.cert + "\n"}, map[string]any{})}, a.cert},
	} {
		t.Run(name, func(t *testing.T) {
			got := listener.Seeded(&api.SeedIncus{Preseed: map[string]any{"certificates": tt.list}})
			var text bytes.Buffer
			if got != nil {
				text.WriteString(strings.Join(got.TrustedClientCertificates, ""))
			}
			if text.String() != tt.want {
				t.Errorf("trusts %q, want %q", text.String(), tt.want)
			}
		})
	}
	if listener.Seeded(nil) != nil {
		t.Error("no seed trusts somebody")
	}
}

func TestWithoutTrustedClientsThereIsNone(t *testing.T) {
	s := serve(t, down)
	s.trust()
	time.Sleep(60 * time.Millisecond)
	if s.State().Active {
		t.Error("it is open and trusts nobody")
	}
	client, other := newPair(t), newPair(t)
	s.trust(client, other)
	url := "https://" + s.becomes(true) + "/os"
	c := browser(t, client)
	if code, _ := get(t, c, url); code != 200 {
		t.Fatalf("answered %d", code)
	}
	s.trust(other)
	if code, _ := get(t, c, url); code != 403 {
		t.Errorf("on the same connection, a client that is trusted no more got %d", code)
	}
	s.trust()
	s.becomes(false)
}
