// Package rolling has the members of an Incus cluster start anew for a new version one
// after the other: a member waits for its turn, hands its instances to the others,
// restarts, takes its instances back and gives the turn away. When one of them fails
// nobody begins any more. Members agree by what they write into the cluster's own
// configuration; there is no other server. When a new version is to be started is for
// package update to say, and package incus speaks to Incus.
//
//	rolling.go  a member's turn
//	board.go    what members write down, and who may begin
//	peers.go    a member whose own Incus does not serve
//
// A version may bring an Incus whose database has a newer schema. Such an Incus serves
// nothing before all members have it, and one that is older does not even start any
// more. So the first member that comes up with it is away until the last one has
// restarted. It says by way of another member's Incus that it is well, and the others
// follow, ever more at a time. As nobody is left who could take them over, those stop
// their instances where they are.
package rolling

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/incus"
	"github.com/incusos/incusos/internal/sys"
)

const (
	// file has what this member was at when it restarted.
	file = "/var/lib/incus-os/rolling.json"
	// again is how long to wait before asking for a turn once more. With members by
	// the hundred each asks its own database, and at another time than the others.
	again = time.Minute
	// rarest is how much more rarely those ask at most who are far behind.
	rarest = 10
	// settles is how long a turn has to stand before it counts: Incus compares the
	// ETag and writes in two steps, so that of two members that wrote at once the
	// later one has the turn.
	settles = 10 * time.Second
	// patience is how long Incus may fail to take what is written down: its database
	// stands still while another member becomes the leader.
	patience = 2 * time.Minute
	// showTime is how long Incus may take when somebody only wants to know.
	showTime = 2 * time.Second
	// soon is how long to wait before asking once more while members wait for all to
	// have a new Incus.
	soon = 20 * time.Second
)

// A Member is this machine as a member of a cluster. On a machine that is in none,
// Restart restarts and all else does nothing.
type Member struct {
	Files sys.Dir
	Incus Incus
	// Peer returns the Incus of another member, by its address; nil: there is no way to it.
	Peer  func(address string) (Incus, error)
	Power func(context.Context) error // restarts the machine
	// Hold says why this machine must not restart now, "" if it may; nil: it may. It is
	// urgent when instances are stopped until it has.
	Hold func(urgent bool) string
	Say  func(format string, args ...any)
	Now  func() time.Time

	waited bool // the Incus of this machine did, for others
}

// Incus is the Incus of a machine, as package incus reaches it.
type Incus interface {
	// Get decodes what is at a path into out, and returns its ETag.
	Get(ctx context.Context, path string, out any) (etag string, err error)
	// Put replaces what is at a path; incus.Changed says whether it has another ETag.
	Put(ctx context.Context, path, etag string, body any) error
	// Do sends a request and waits for what it starts.
	Do(ctx context.Context, method, path string, body, out any) error
	// Ahead is an incus.AheadError if it waits until other members are as new.
	Ahead(ctx context.Context) error
}

// A memory is what a member that restarts is at.
type memory struct {
	Version string `json:"version"`
	Told    bool   `json:"told,omitempty"` // the others know that it did not stay
}

// errLost is a turn that somebody else wrote over.
var errLost = errors.New("another member was faster")

// Restart waits until this member may be away, has Incus move or stop its instances, and
// restarts the machine. It returns early only when ctx ends, or when the member cannot
// leave, which the cluster knows then; nothing is changed else.
func (m *Member) Restart(ctx context.Context, version string) error {
	var last lastOne
	for {
		b, err := m.read(ctx)
		if err == nil && b.name == "" {
			return m.Power(ctx)
		}
		if last.is(err, m.Now()) && m.held(true) == "" {
			return errors.Join(m.save(memory{Version: version}), m.Power(ctx))
		}
		begun, why := false, ""
		if err == nil {
			begun, why, err = m.try(ctx, b, version)
		}
		if begun {
			err = m.leave(ctx, b, version)
			if !errors.Is(err, errLost) {
				return err
			}
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case incus.Changed(err):
			why = errLost.Error()
		case err != nil:
			why = err.Error()
		}
		m.Say("Version %s is staged and waits for its turn in the cluster: %s", version, why)
		if err := sleep(ctx, b.rest()); err != nil {
			return err
		}
	}
}

// rest returns how long to wait before asking once more: those who are far behind ask
// rarely.
func (b *read) rest() time.Duration {
	behind, every := 0, again
	if b != nil {
		behind = max(0, slices.Index(b.board.Waiting, b.name)) / max(1, b.room())
		if b.board.ahead() > 0 {
			every = soon
		}
	}
	return time.Duration(min(1+behind, rarest)) * (every/2 + rand.N(every)) //nolint:gosec // not a secret
}

// held says why this machine must not restart.
func (m *Member) held(urgent bool) string {
	if m.Hold == nil {
		return ""
	}
	return m.Hold(urgent)
}

// try asks for the turn, unless this machine must not restart: then others go first.
func (m *Member) try(ctx context.Context, b *read, version string) (begun bool, why string, err error) {
	if why := m.held(b.urgent()); why != "" {
		return false, why, m.write(ctx, b, b.board.without(b.name))
	}
	return m.ask(ctx, b, version)
}

// ask takes the turn if it is this member's, and otherwise says why not.
func (m *Member) ask(ctx context.Context, b *read, version string) (begun bool, why string, err error) {
	members, err := b.members(ctx)
	if err == nil {
		err = m.keepPeers(b.name, members)
	}
	if err != nil {
		return false, "", err
	}
	next, why := b.want(version, members, m.Now())
	if err := m.write(ctx, b, next); err != nil {
		return false, "", err
	}
	if why != "" {
		return false, why, nil
	}
	if err := sleep(ctx, settles); err != nil {
		return false, "", errors.Join(err, m.giveBack())
	}
	b, err = m.read(ctx)
	if err != nil {
		return false, "", err
	}
	if b.board.turn(b.name) == nil {
		return false, "", errLost
	}
	return true, "", nil
}

// leave hands the instances over and restarts the machine. What fails before that is
// undone, and keeps the others from trying it. It is an errLost when nothing was done as
// somebody else has the turn.
func (m *Member) leave(ctx context.Context, b *read, version string) error {
	err := m.save(memory{Version: version})
	if err == nil {
		err = m.phase(ctx, api.RollingLeaving)
	}
	if errors.Is(err, errLost) {
		return errors.Join(err, m.forget())
	}
	if err == nil {
		err = m.evacuate(ctx, b, version)
	}
	if err == nil { // that it is evacuated keeps the others waiting, whatever is written
		err = m.phase(ctx, api.RollingRestarting)
	}
	if err == nil || errors.Is(err, errLost) {
		err = m.Power(ctx)
	}
	if err == nil {
		return nil
	}
	err = fmt.Errorf("leaving the cluster for a restart: %w", err)
	return errors.Join(err, m.Return(context.WithoutCancel(ctx), func(string) error { return err }))
}

// evacuate has Incus hand the instances over, or only stop them when too many members
// are away to take them in.
func (m *Member) evacuate(ctx context.Context, b *read, version string) error {
	if !b.own {
		m.Say("Restarting into version %s: the Incus of this one is too old for the cluster", version)
		return nil // and it runs nothing
	}
	if b.crowded() {
		m.Say("Stopping the instances for version %s: the Incus of %d members waits for the others to have it too", version, b.board.ahead())
		return m.become(ctx, b.name, map[string]string{"action": "evacuate", "mode": "stop"})
	}
	m.Say("Handing the instances to the other members of the cluster, for version %s", version)
	return m.become(ctx, b.name, map[string]string{"action": "evacuate"})
}

// Return takes the instances back after a restart and lets the next member begin. When
// verdict has an error, which is why a version did not stay, nobody begins until a
// person says so. On a member that was at nothing it does nothing. Until Incus serves,
// it is an error.
func (m *Member) Return(ctx context.Context, verdict func(version string) error) error {
	was, err := m.load()
	if err != nil {
		return err
	}
	b, err := m.read(ctx)
	if err != nil {
		return fmt.Errorf("coming back to the cluster: %w", err)
	}
	if b.name == "" {
		return nil
	}
	if was == nil {
		if b.board.has(b.name) { // it was restarted by somebody while it waited
			return m.change(ctx, func(name string, o Board) Board { return o.without(name) })
		}
		return nil
	}
	if !b.own {
		return m.report(ctx, *was, verdict(was.Version))
	}
	if err := m.phase(ctx, api.RollingReturning); err != nil && !errors.Is(err, errLost) {
		return err
	}
	bad := errors.Join(verdict(was.Version), m.back(ctx, b))
	if err := m.end(ctx, was.Version, bad); err != nil {
		return fmt.Errorf("giving the turn away: %w", err)
	}
	if err := m.forget(); err != nil {
		return err
	}
	if m.waited {
		m.waited = false
		m.Say("Version %s runs, and all members of the cluster have an Incus as new as its", was.Version)
		m.confirm(ctx, was.Version)
	}
	return nil
}

// forget ends what this member was at.
func (m *Member) forget() error {
	if err := m.Files.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forgetting about a turn that is over: %w", err)
	}
	return nil
}

func (m *Member) end(ctx context.Context, version string, bad error) error {
	return m.change(ctx, func(name string, o Board) Board {
		o = o.without(name)
		if bad != nil {
			o.Paused = fmt.Sprintf("%s: version %s: %v", name, version, bad)
		}
		return o
	})
}

// back has Incus take the instances back, if it gave them away.
func (m *Member) back(ctx context.Context, b *read) error {
	members, err := b.members(ctx)
	if err != nil {
		return err
	}
	for _, o := range members {
		if o.Name == b.name && o.Status == evacuated {
			return m.become(ctx, b.name, map[string]string{"action": "restore"})
		}
	}
	return nil
}

// State returns what is known of the cluster, nil if there is none or it does not say.
func (m *Member) State(ctx context.Context) *api.RollingState {
	ctx, cancel := context.WithTimeout(ctx, showTime)
	defer cancel()
	b, err := m.read(ctx)
	if err != nil {
		slog.DebugContext(ctx, "Cannot see whose turn it is", "err", err)
		return nil
	}
	if b.name == "" {
		return nil
	}
	return &api.RollingState{Member: b.name, MaxUnavailable: b.most, Turns: b.board.Turns, Waiting: b.board.Waiting, Paused: b.board.Paused}
}

// become changes the state of this member and waits for it.
func (m *Member) become(ctx context.Context, name string, state map[string]string) error {
	path := "/1.0/cluster/members/" + url.PathEscape(name) + "/state"
	if err := m.Incus.Do(ctx, http.MethodPost, path, state, nil); err != nil {
		return fmt.Errorf("asking Incus to %s this member: %w", state["action"], err)
	}
	return nil
}

// phase writes down how far this member is; it is an errLost if it has no turn any more.
func (m *Member) phase(ctx context.Context, p api.RollingPhase) error {
	mine := false
	err := m.change(ctx, func(name string, o Board) Board {
		t := o.turn(name)
		if mine = t != nil; mine {
			t.Phase = p
		}
		return o
	})
	if err != nil {
		return fmt.Errorf("telling the cluster of a member that is %s: %w", p, err)
	}
	if !mine {
		return errLost
	}
	return nil
}

// giveBack gives away a turn that was not used.
func (m *Member) giveBack() error {
	ctx, cancel := context.WithTimeout(context.Background(), again)
	defer cancel()
	return m.change(ctx, func(name string, o Board) Board { return o.without(name) })
}

func (m *Member) save(was memory) error { return m.keep(file, was, "what this member is at") }

// keep writes a document, which is about what.
func (m *Member) keep(name string, document any, what string) error {
	b, err := json.Marshal(document)
	if err == nil {
		err = m.Files.WriteFile(name, append(b, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("remembering %s: %w", what, err)
	}
	return nil
}

// load returns what this member was at, nil if nothing.
func (m *Member) load() (*memory, error) {
	b, err := m.Files.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // nothing is an answer
	}
	if err != nil {
		return nil, fmt.Errorf("reading what this member was at: %w", err)
	}
	was := new(memory)
	if err := json.Unmarshal(b, was); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return was, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
