package daemon

import (
	"context"
	"sync"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/audit"
	"github.com/incusos/incusos/internal/console"
)

// keyTime is how long consoles show a recovery key to whoever set the machine up, and
// may have to look for a telephone first.
const keyTime = 15 * time.Minute

// A keyDisplay has the consoles show the recovery key of root once the machine is set
// up, if its seed asks for that: for some time, or until somebody says over the API that
// it was written down. The seed is not read again later, so that no other start does.
type keyDisplay struct {
	wanted   bool
	screen   *console.Console
	security securityArea
	log      *audit.Log

	mu   sync.Mutex
	over bool // it was shown, or is not to be any more
}

func (*keyDisplay) Name() string { return "recovery key" }

func (k *keyDisplay) Reconcile(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.wanted || k.over || k.security.doc.get().RecoveryKeys {
		return nil
	}
	keys, err := k.security.seal.SavedKeys()
	if err != nil || len(keys) == 0 {
		return err
	}
	k.log.Record(ctx, api.AuditEntry{Time: time.Now().UTC(), Who: "system", Action: "show the recovery key on the consoles", Result: "ok"})
	k.screen.Reveal(keyTime, "This key opens the disk when the TPM does not. Keep it where passwords are.", string(keys[0]),
		"It goes after 15 minutes, or when you say that you have it:",
		"incusos os system security retrieved")
	k.over = true
	return nil
}

// acknowledge takes the key off the screen.
func (k *keyDisplay) acknowledge() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.over = true
	k.screen.Conceal()
}
