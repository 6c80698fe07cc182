package systest_test

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/incusos/incusos/internal/seed"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/sys/systest"
)

// ask sends a request to the Incus of a tree and returns the answer's metadata.
func ask(t *testing.T, d sys.Dir, method, path, body string) (any, error) {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return d.DialUnix(ctx, "/var/lib/incus/unix.socket")
		},
		DisableKeepAlives: true,
	}}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://incus"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var doc struct {
		Metadata any `json:"metadata"`
	}
	err = json.NewDecoder(resp.Body).Decode(&doc)
	return doc.Metadata, err
}

// The tree lies deeper than the name of a socket may be long.
func TestIncusAnswersWhileItsServiceIsActive(t *testing.T) {
	root := filepath.Join(t.TempDir(), strings.Repeat("deep/", 30))
	rig, err := systest.Pretend(root, systest.Sensible())
	if err != nil {
		t.Fatal(err)
	}
	d := rig.Host.Files
	t.Cleanup(systest.NewIncus(rig).Close)
	if _, err := ask(t, d, http.MethodGet, "/1.0", ""); err == nil {
		t.Error("Incus answers before it was started")
	}
	for range 2 { // the second start is none
		if err := rig.Units.Start(t.Context(), "incus.service"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ask(t, d, http.MethodPost, "/1.0/networks", `{"name": "br0"}`); err != nil {
		t.Error(err)
	}
	if err := rig.Units.Stop(t.Context(), "incus.service"); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(t, d, http.MethodGet, "/1.0", ""); err == nil {
		t.Error("Incus answers after it was stopped")
	}

	again, err := systest.Pretend(root, systest.Sensible())
	if err != nil {
		t.Fatal(err)
	}
	incus := systest.NewIncus(again)
	t.Cleanup(incus.Close)
	if err := again.Units.Start(t.Context(), "incus.service"); err != nil {
		t.Fatal(err)
	}
	if incus.Object("/1.0/networks/br0") == nil {
		t.Error("the network is gone after a start of the machine")
	}
}

func TestSeedIncus(t *testing.T) {
	d := systest.New(t, systest.Sensible()).Host.Files
	for range 2 {
		if err := systest.SeedIncus(d); err != nil {
			t.Fatal(err)
		}
	}
	s, err := seed.Open(sys.Host{Files: d})
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Applications(); len(got) != 1 || got[0].Name != "incus" || got[0].Version != "202601010000" {
		t.Errorf("the seed has %+v, want an image of Incus", got)
	}
	if err := systest.WriteSeed(d, map[string]string{"network.yaml": ""}); err != nil {
		t.Fatal(err)
	}
	if err := systest.SeedIncus(d); err != nil {
		t.Fatal(err)
	}
	if s, err := seed.Open(sys.Host{Files: d}); err != nil || !s.Has("network") || len(s.Applications()) != 0 {
		t.Errorf("the seed somebody wrote was replaced: %+v, %v", s, err)
	}
}
