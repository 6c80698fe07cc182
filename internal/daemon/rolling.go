package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/incusos/incusos/internal/incus"
	"github.com/incusos/incusos/internal/rolling"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/update"
)

// comeBackEvery is how long to wait before trying once more to come back to a cluster:
// Incus may not be up yet.
const comeBackEvery = 15 * time.Second

// newMember returns this machine as a member of its Incus cluster.
func newMember(m sys.Host, u *updates) *rolling.Member {
	power := func(ctx context.Context) error { return u.agent.Restart(ctx) }
	peer := func(address string) (rolling.Incus, error) { return incus.Peer(m.Files, address) }
	return &rolling.Member{Files: m.Files, Incus: incus.Dial(m.Files), Peer: peer, Power: power, Now: time.Now, Say: u.agent.Say, Hold: u.hold}
}

// hold says why the machine must not restart now. When instances of other members are
// stopped until it has restarted too, a window that has closed meanwhile is no reason.
func (u *updates) hold(urgent bool) string {
	s, err := u.settings()
	switch {
	case err != nil:
		return err.Error()
	case s.Paused:
		return update.ErrPaused.Error()
	case !s.AutoReboot:
		return "the machine restarts only when somebody says so, as auto_reboot is off"
	case !urgent && update.Allowed(s.Windows, time.Now()) > 0:
		return "the maintenance window is closed"
	}
	return ""
}

// takeTurn restarts the machine into a version once it may. It does not wait for that,
// and whoever asked may have gone by then: the task that staged the version ends.
func (u *updates) takeTurn(ctx context.Context, version string) error {
	if !u.queues.CompareAndSwap(false, true) {
		return nil // for an older version; whatever is staged then starts
	}
	ctx = context.WithoutCancel(ctx)
	go func() {
		defer u.queues.Store(false)
		if err := u.member.Restart(ctx, version); err != nil {
			slog.ErrorContext(ctx, "Cannot restart into a new version", "version", version, "err", err)
			u.agent.Say("Version %s is staged, but the machine cannot restart: %v", version, err)
		}
	}()
	return nil
}

// comeBack has the machine take its place in the cluster again, after a restart into a
// version that is settled now. It ends when that is done, or with ctx.
func (u *updates) comeBack(ctx context.Context) {
	if !incus.Here(u.host.Files) {
		return
	}
	for told := false; ; told = true {
		err := u.member.Return(ctx, u.verdict)
		if err == nil {
			return
		}
		if !told {
			slog.WarnContext(ctx, "Not back in the cluster yet", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(comeBackEvery):
		}
	}
}

// verdict returns why a version did not stay, nil if it did.
func (u *updates) verdict(version string) error {
	r, err := u.agent.Records.Load()
	if err != nil {
		return err
	}
	if f, ok := r.Failed[version]; ok {
		return errors.New(f.Reason)
	}
	if running, err := u.running(); err != nil || running < version {
		return errors.Join(err, fmt.Errorf("version %s runs instead", running))
	}
	return nil
}
