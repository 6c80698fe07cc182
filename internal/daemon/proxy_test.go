package daemon_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/daemon"
)

// What is on trial is what counts, and what was before counts again after it.
func TestTheWayOutFollowsATrial(t *testing.T) {
	answer := func(what string) *httptest.Server {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, what, r.URL.Path) }))
		t.Cleanup(s.Close)
		return s
	}
	site, corp := answer("the site"), answer("the proxy")
	var o daemon.Options
	m := start(t, machine(t), func(parts *daemon.Options) { parts.Proxy = "127.0.0.1:0"; o = *parts })
	m.waitFor("is ready")
	client := &http.Client{Transport: &http.Transport{Proxy: o.Outward.Through, DisableKeepAlives: true}}
	get := func() string {
		r, err := client.Get(site.URL + "/x")
		if err != nil {
			return err.Error()
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return err.Error()
		}
		return string(b)
	}
	if got := get(); got != "the site/x" {
		t.Errorf("without a proxy %q answers", got)
	}
	config := api.NetworkConfig{Proxy: api.NetworkProxy{Servers: map[string]api.NetworkProxyServer{"corp": {Host: corp.Listener.Addr().String(), Auth: "anonymous"}}}}
	if err := o.Machine.Network.Try(context.WithoutCancel(t.Context()), config, time.Second); err != nil {
		t.Fatal(err)
	}
	if got := get(); got != "the proxy/x" {
		t.Errorf("on trial %q answers", got)
	}
	for end := time.Now().Add(20 * time.Second); get() != "the site/x"; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after the trial %q answers", get())
		}
	}
}

// Incus asks where the daemon serves.
func TestIncusKnowsTheWayOut(t *testing.T) {
	unit, err := os.ReadFile("../../image/mkosi.images/incus/mkosi.extra/usr/lib/systemd/system/incus.service")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"} {
		if !strings.Contains(string(unit), name+"=http://"+daemon.ProxyAddress) {
			t.Errorf("the unit of Incus has no %s that leads to %s", name, daemon.ProxyAddress)
		}
	}
}
