package rolling

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"strings"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/incus"
)

const (
	// peersFile has the other members, for when the Incus of this one does not say.
	peersFile = "/var/lib/incus-os/rolling-peers.json"
	// ownTime is how long the Incus of this machine may take before others are asked.
	ownTime = time.Minute
	// peerTime is how long another member may take to say whether it serves.
	peerTime = 3 * time.Second
	// mostLooks is how often at most to see whether a turn stays given away.
	mostLooks = 60
	// lonely is how long nobody has to serve the cluster before a member believes that
	// all others wait for it.
	lonely = 10 * time.Minute
)

// peers are this member and the addresses of the others.
type peers struct {
	Name      string   `json:"name"`
	Addresses []string `json:"addresses"` // "192.0.2.7:8443"
}

// errNobody is a cluster that nobody serves, since members wait for others.
var errNobody = errors.New("no member serves the cluster, and some wait for others to have a new Incus")

// read returns what is written down now, by the Incus of another member if that of this
// one does not serve.
func (m *Member) read(ctx context.Context) (*read, error) {
	limited, cancel := context.WithTimeout(ctx, ownTime)
	defer cancel()
	r, err := m.readOwn(limited)
	if err == nil || ctx.Err() != nil {
		return r, err
	}
	r, waits := m.readOther(ctx)
	switch {
	case r != nil:
		return r, nil
	case waits:
		return nil, fmt.Errorf("%w: %w", errNobody, err)
	}
	return nil, err
}

// readOther asks the other members in any order until one serves; nil says that
// none does. Some may wait for others.
func (m *Member) readOther(ctx context.Context) (r *read, waits bool) {
	p, err := m.loadPeers()
	if err != nil || m.Peer == nil {
		return nil, false
	}
	for _, i := range rand.Perm(len(p.Addresses)) { //nolint:gosec // not a secret
		r, err := m.readPeer(ctx, p.Addresses[i], p.Name)
		if err == nil {
			r.own = false
			return r, false
		}
		_, ahead := errors.AsType[*incus.AheadError](err)
		waits = waits || ahead
	}
	return nil, waits
}

// readPeer asks another member, which may wait for others itself.
func (m *Member) readPeer(ctx context.Context, address, name string) (*read, error) {
	peer, err := m.Peer(address)
	if err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, peerTime)
	defer cancel()
	if err := peer.Ahead(limited); err != nil {
		return nil, err
	}
	return readBy(ctx, peer, name)
}

// keepPeers remembers the other members.
func (m *Member) keepPeers(name string, members []member) error {
	p := peers{Name: name}
	for _, o := range members {
		if o.Name != name {
			p.Addresses = append(p.Addresses, strings.TrimPrefix(o.URL, "https://"))
		}
	}
	if old, err := m.loadPeers(); err == nil && reflect.DeepEqual(old, p) {
		return nil
	}
	return m.keep(peersFile, p, "the other members of the cluster")
}

func (m *Member) loadPeers() (p peers, err error) {
	b, err := m.Files.ReadFile(peersFile)
	if errors.Is(err, fs.ErrNotExist) {
		return peers{}, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &p)
	}
	return p, err
}

// report tells the others how this member is while its own Incus does not serve, and
// returns why that is so.
func (m *Member) report(ctx context.Context, was memory, bad error) error {
	if bad != nil {
		return errors.Join(m.tell(ctx, was, bad), bad)
	}
	err := m.Incus.Ahead(ctx)
	if _, ok := errors.AsType[*incus.AheadError](err); !ok {
		return fmt.Errorf("coming back to the cluster, whose other members serve: %w", err)
	}
	m.waited = true
	m.Say("Version %s runs. %v", was.Version, err)
	return errors.Join(m.waits(ctx, was.Version), err)
}

// tell has the others pause, once: a person may have said since that they go on.
func (m *Member) tell(ctx context.Context, was memory, bad error) error {
	if was.Told {
		return nil
	}
	if err := m.end(ctx, was.Version, bad); err != nil {
		return err
	}
	was.Told = true
	return m.save(was)
}

// waits writes down that this member runs a version, and that its Incus waits for the
// others. Who unset the board meant those that failed.
func (m *Member) waits(ctx context.Context, version string) error {
	since := m.Now().UTC().Truncate(time.Second)
	return m.change(ctx, func(name string, o Board) Board {
		if o.turn(name) == nil {
			o = o.without(name)
			o.Turns = append(o.Turns, api.RollingTurn{Member: name, Version: version, Since: since})
		}
		o.turn(name).Phase = api.RollingWaiting
		return o
	})
}

// confirm sees to it that a turn stays given away. When all members come back at once, so
// many write that one may bring back what it has read before others wrote, and later than
// a turn has to stand. It looks until nobody is at it any more.
func (m *Member) confirm(ctx context.Context, version string) {
	stale := func(t *api.RollingTurn) bool {
		return t != nil && t.Phase == api.RollingReturning && t.Version == version
	}
	for quiet, looks := 0, 0; quiet < 2 && looks < mostLooks; looks++ {
		if sleep(ctx, again/2+rand.N(again)) != nil { //nolint:gosec // not a secret
			return
		}
		b, err := m.read(ctx)
		switch {
		case err != nil:
		case stale(b.board.turn(b.name)):
			quiet = 0
			err = m.change(ctx, func(name string, o Board) Board {
				if stale(o.turn(name)) {
					return o.without(name)
				}
				return o
			})
		case len(b.board.Turns) == 0:
			quiet++
		}
		if err != nil {
			slog.DebugContext(ctx, "Cannot see whether a turn is over", "err", err)
		}
	}
}

// A lastOne finds out whether a member is the only one that is left with an old Incus.
// That does not start any more, for which others have to be ahead, and all others wait
// for it: there is nobody left to ask. The same is seen for a while when several have an
// old one and restart at once.
type lastOne struct{ since time.Time }

func (l *lastOne) is(err error, now time.Time) bool {
	switch {
	case !errors.Is(err, errNobody):
		l.since = time.Time{}
	case l.since.IsZero():
		l.since = now
	}
	return !l.since.IsZero() && now.Sub(l.since) >= lonely
}
