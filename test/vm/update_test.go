//go:build vm

package vm_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/publish"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/vm"
	"github.com/incusos/incusos/test/vm/incus"
)

// TestUpdate brings a machine from the built image to the next one, which it builds
// and publishes as an operator does: found, fetched, tried and found good, with what
// the machine had, and without a recovery key.
func TestUpdate(t *testing.T) {
	u := newUpdates(t)
	id := newIdentity(t)
	r, _ := installed(t, newMachine(t), newMedium(t, id, nil))
	c := clientOf(r, id)
	trusted(t, r, c)
	key := recoveryKey(t, r, c)
	belongs(t, r, c, u.built)

	u.announce(t, r, c)
	began := time.Now()
	if err := c.Post(within(t, r, time.Minute), "/os/1.0/system/update/:check", map[string]any{}, nil); err != nil {
		t.Fatal(err)
	}
	reached(t, r, c, "a version that waits for a restart", func(s api.SystemUpdateState) bool { return s.NeedsReboot && s.Version == u.next })
	t.Logf("version %s was fetched and staged in %v, by %d bytes of %d", u.next, time.Since(began).Round(time.Second), u.sent.Load(), u.size(t))

	if err := c.Post(within(t, r, time.Minute), "/os/1.0/system/:reboot", nil, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Console.Expect(t.Context(), r.Scale.Of(time.Minute), says.starting); err != nil {
		t.Fatal(err)
	}
	ready, err := r.Ready(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if ready.Groups[1] != u.next {
		t.Fatalf("version %s is up, want %s:\n%s", ready.Groups[1], u.next, r.Console.Tail(30))
	}
	trusted(t, r, c)
	reached(t, r, c, "the version to be found good", func(s api.SystemUpdateState) bool { return s.Phase == "" && len(s.Failed) == 0 })
	answersThroughIncus(t, r, c, u.next)
	if stored := belongs(t, r, c, u.next).AvailableVersions; !slices.Contains(stored, u.built) {
		t.Errorf("images of Incus are %q; want that of %s too, which the machine might go back to", stored, u.built)
	}
	secure(t, r, c) // unlocked by the TPM
	stored(t, r, c)
	if got := recoveryKey(t, r, c); got != key {
		t.Error("the recovery key is another one")
	}
}

// belongs expects that Incus runs from the image that belongs to a version of the
// system, and returns what there is to say about it.
func belongs(t *testing.T, r *vm.Running, c *incus.Client, version string) api.ApplicationState {
	t.Helper()
	var app api.Application
	if err := c.Get(within(t, r, time.Minute), "/os/1.0/applications/incus", &app); err != nil {
		t.Fatal(err)
	}
	if app.State.Version != version {
		t.Errorf("Incus runs from the image of %s; want that of %s: %+v", app.State.Version, version, app.State)
	}
	return app.State
}

// updates is a repository with the next version of the built image, and a server.
type updates struct {
	dir, next, url string
	built          string // version of the built image
	root           []byte
	image          string // directory of the next version
	sent           *counter
	asked          func(path string) (answered func()) // told of each request; nil: nobody
}

func newUpdates(t *testing.T) *updates {
	t.Helper()
	built := input(t, "INCUSOS_IMAGE_DIR", "image", "make image")
	i, err := vm.FindImage(built)
	if err != nil {
		t.Fatal(err)
	}
	at, err := time.Parse("200601021504", i.Version)
	if err != nil {
		t.Fatal(err)
	}
	work := scratch(t)
	u := &updates{built: i.Version, dir: filepath.Join(work, "updates"), image: filepath.Join(work, "image"), next: at.Add(time.Minute).Format("200601021504"), sent: new(counter)}
	keys := input(t, "INCUSOS_KEYS", "keys", "make keys")
	incusos := filepath.Join(work, "incusos")
	run(t, "../..", "go", "build", "-o", incusos, "./cmd/incusos")
	run(t, "../..", incusos, "image", "build", "--cache", cache(t), "--keys", keys, "--version", u.next, "--output", u.image)
	run(t, work, incusos, "repo", "init", "--keys", keys, u.dir)
	run(t, work, incusos, "repo", "publish", "--keys", keys, "--image", u.image, "--channel", "stable", u.dir)
	u.root = run(t, work, incusos, "repo", "root", u.dir)
	u.serve(t)
	return u
}

func run(t *testing.T, dir, name string, args ...string) []byte {
	t.Helper()
	c := sys.Command(name, args...)
	c.Dir = dir
	out, err := sys.Real().Exec.Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// serve serves the repository where the guest finds this host.
func (u *updates) serve(t *testing.T) {
	t.Helper()
	dir, err := os.OpenRoot(u.dir)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	handler := publish.Handler(dir, "")
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u.asked != nil {
			defer u.asked(r.URL.Path)()
		}
		handler.ServeHTTP(u.sent.count(w), r)
	})}
	go func() { _ = server.Serve(l) }() // until it is closed
	t.Cleanup(func() {
		_ = server.Close()
		_ = dir.Close()
	})
	u.url = fmt.Sprintf("http://%s:%d", gateway, l.Addr().(*net.TCPAddr).Port)
}

// size is that of all that a release consists of.
func (u *updates) size(t *testing.T) (all int64) {
	t.Helper()
	err := filepath.Walk(filepath.Join(u.dir, "targets"), func(_ string, fi os.FileInfo, err error) error {
		if err == nil && fi.Mode().IsRegular() {
			all += fi.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// announce tells a machine of the repository.
func (u *updates) announce(t *testing.T, r *vm.Running, c *incus.Client) {
	t.Helper()
	ctx := within(t, r, time.Minute)
	for path, config := range map[string]any{
		"/os/1.0/system/provider": api.SystemProviderConfig{Name: "images", Config: api.ProviderSettings{ServerURL: u.url, Root: string(u.root)}},
		"/os/1.0/system/update":   api.SystemUpdateConfig{CheckFrequency: "never"},
	} {
		if err := c.Do(ctx, "PUT", path, map[string]any{"config": config}, nil); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
}

// reached waits until the updates of a machine are as they should be.
func reached(t *testing.T, r *vm.Running, c *incus.Client, what string, is func(api.SystemUpdateState) bool) {
	t.Helper()
	ctx := within(t, r, 3*time.Minute)
	err := retry(ctx, func() error {
		var doc api.SystemUpdate
		if err := c.Get(ctx, "/os/1.0/system/update", &doc); err != nil {
			return err
		}
		if !is(doc.State) {
			return fmt.Errorf("updates are %+v, want %s", doc.State, what)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, r.Console.Tail(20))
	}
}
