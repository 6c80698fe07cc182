package rest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/rest"
)

// keeper is a backup that notes what it was asked for.
type keeper struct {
	failure error
	done    []string
}

func (k *keeper) Backup(context.Context) (rest.Stream, error) {
	return rest.Stream{MediaType: "application/gzip", Write: func(w io.Writer) error {
		_, err := io.WriteString(w, "archive")
		return err
	}}, k.failure
}

func (k *keeper) Restore(_ context.Context, archive io.Reader, skip []string) error {
	b, err := io.ReadAll(archive)
	k.done = append(k.done, fmt.Sprintf("restore %s %q", b, skip))
	return errors.Join(err, k.failure)
}

func (k *keeper) FactoryReset(_ context.Context, r api.SystemReset) error {
	k.done = append(k.done, fmt.Sprintf("reset %s %v", r.Seeds["incus"], r.WipeExistingSeeds))
	return k.failure
}

// A restore and a reset are answered, and then the machine restarts; one that
// could not be done restarts nothing.
func TestRestoreAndResetRestartAfterTheAnswer(t *testing.T) {
	tests := map[string]struct{ path, body, want string }{
		"a restore":             {"/1.0/system/:restore?skip=network-macs%2Ca&target=m", "archive", `restore archive ["network-macs" "a"]`},
		"a reset":               {"/1.0/system/:factory-reset", `{"seeds":{"incus":{"a":1}},"wipe_existing_seeds":true}`, `reset {"a":1} true`},
		"a reset without words": {"/1.0/system/:factory-reset", "", "reset  false"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			k, p := &keeper{}, &power{release: make(chan struct{})}
			m := machine()
			m.Backup, m.Power = k, p
			srv := httptest.NewServer(rest.Handler(m))
			resp, err := http.Post(srv.URL+tt.path, "", strings.NewReader(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil || string(body) != success+"{}}\n" || !slices.Equal(k.done, []string{tt.want}) {
				t.Errorf("read %q, %v before the restart, and did %q, want %q", body, err, k.done, tt.want)
			}
			resp.Body.Close()
			close(p.release)
			srv.Close() // waits for the handler
			if !slices.Equal(p.done, []string{"reboot"}) {
				t.Errorf("did %q, want a restart", p.done)
			}
			k.failure, p.done = errors.New("no"), nil
			if w := ask(m, httptest.NewRequest("POST", tt.path, strings.NewReader(tt.body))); w.Code != 500 || len(p.done) > 0 {
				t.Errorf("what failed: %d, did %q; want 500 and no restart", w.Code, p.done)
			}
		})
	}
}

func TestBackupIsAnArchiveOrAnError(t *testing.T) {
	k := &keeper{}
	m := machine()
	m.Backup = k
	w := ask(m, httptest.NewRequest("POST", "/1.0/system/:backup", strings.NewReader("{}")))
	if w.Code != 200 || w.Body.String() != "archive" || w.Header().Get("Content-Type") != "application/gzip" {
		t.Errorf("a backup: %d %q, %q", w.Code, w.Body, w.Header())
	}
	k.failure = api.Errorf(api.Conflict, "too long")
	if w := ask(m, httptest.NewRequest("POST", "/1.0/system/:backup", nil)); w.Code != 409 {
		t.Errorf("a backup that is too long: %d, want 409", w.Code)
	}
}
