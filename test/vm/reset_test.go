//go:build vm

package vm_test

import (
	"bytes"
	"fmt"
	"regexp"
	"testing"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/vm"
	"github.com/incusos/incusos/test/vm/incus"
)

// resetAndRestored backs a machine up, restores the backup, makes the machine as
// it was first installed, and restores the backup once more: root and the pool
// are new by then, and their keys must stay.
func resetAndRestored(t *testing.T, m *vm.Machine, id vm.Identity) {
	r := start(t, m, vm.Boot{})
	if _, err := r.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := clientOf(r, id)
	trusted(t, r, c)
	key := recoveryKey(t, r, c)
	archive := backUp(t, r, c)

	restore(t, r, c, archive)
	restarted(t, r, c, says.starting)
	if got := recoveryKey(t, r, c); got != key {
		t.Error("after a restore the machine has another recovery key")
	}
	stored(t, r, c)
	if again := backUp(t, r, c); !bytes.Equal(again, archive) {
		t.Errorf("a backup of what was restored has %d bytes and differs from that of %d bytes", len(again), len(archive))
	}

	reset := api.SystemReset{}
	if err := c.Post(within(t, r, time.Minute), "/os/1.0/system/:factory-reset", reset, nil); err != nil {
		t.Fatal(err)
	}
	restarted(t, r, c, says.firstStart)
	fresh := recoveryKey(t, r, c)
	if fresh == key {
		t.Error("after a factory reset the machine has the same recovery key")
	}
	secure(t, r, c)
	stored(t, r, c)

	restore(t, r, c, archive)
	restarted(t, r, c, says.starting)
	if got := recoveryKey(t, r, c); got != fresh {
		t.Error("after the restore of an older backup the recovery key is not the one of this disk")
	}
	stored(t, r, c)
}

// trusted waits until Incus takes the client.
func trusted(t *testing.T, r *vm.Running, c *incus.Client) {
	t.Helper()
	ctx := within(t, r, time.Minute)
	var server struct{ Auth string }
	err := retry(ctx, func() error {
		if err := c.Get(ctx, "/1.0", &server); err != nil || server.Auth != "trusted" {
			return fmt.Errorf("the client is taken as %q: %w", server.Auth, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// restarted waits for a start that says something, and until it is over.
func restarted(t *testing.T, r *vm.Running, c *incus.Client, word *regexp.Regexp) {
	t.Helper()
	if _, err := r.Console.Expect(t.Context(), 3*time.Minute, word); err != nil {
		t.Fatal(err)
	}
	ready, err := r.Ready(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("ready again after %v", ready.At.Round(time.Second))
	trusted(t, r, c)
}

func backUp(t *testing.T, r *vm.Running, c *incus.Client) []byte {
	t.Helper()
	archive, err := c.Fetch(within(t, r, 20*time.Second), "/os/1.0/system/:backup")
	if err != nil || len(archive) == 0 || len(archive) > 1<<20 {
		t.Fatalf("a backup has %d bytes, %v", len(archive), err)
	}
	return archive
}

func restore(t *testing.T, r *vm.Running, c *incus.Client, archive []byte) {
	t.Helper()
	if err := c.Feed(within(t, r, 20*time.Second), "/os/1.0/system/:restore?skip=network-macs", archive, nil); err != nil {
		t.Fatal(err)
	}
}
