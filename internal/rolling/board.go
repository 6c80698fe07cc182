package rolling

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/incus"
)

// Members write into the configuration of the project that every Incus has. The server's
// own configuration would not do: each member answers from a copy of it in memory, which
// for good may be the older of two that were written at once, and when a member has just
// gone Incus takes a change back after it told some of the others. What belongs to a
// project it reads from the cluster's database each time.
const (
	project = "/1.0/projects/default"
	// boardKey is there; Incus keeps what begins with "user." as it is.
	boardKey = "user.incusos.rolling"
	// mostKey is set by an operator: how many members may be away at once.
	mostKey = "user.incusos.rolling.max_unavailable"
)

// clusterFile is the certificate of the cluster, which Incus has when it is in one: a
// machine that is in none may need a new version for Incus to answer.
const clusterFile = "/var/lib/incus/cluster.crt"

// What Incus says of its members (GET /1.0/cluster/members).
const (
	online    = "Online"
	evacuated = "Evacuated"
	// blocked is a member that serves, and whose Incus is older than another member's.
	blocked = "Blocked"
)

// A Board is what the members write down for each other, as JSON in the cluster's
// configuration. Versions of the system before and after this one read it too: fields
// are only ever added.
type Board struct {
	Turns   []api.RollingTurn `json:"turns,omitempty"`   // members that are at it
	Waiting []string          `json:"waiting,omitempty"` // members that want to be, in order
	Paused  string            `json:"paused,omitempty"`  // what failed, and where; "" nothing
}

// A member is one of the cluster, as Incus knows it.
type member struct {
	Name   string `json:"server_name"`
	Status string `json:"status"`
	URL    string `json:"url"` // "https://192.0.2.7:8443"
}

// A read is what was written down at some time.
type read struct {
	by    Incus  // who says so
	own   bool   // it is the Incus of this machine
	name  string // of this member; "" if there is no cluster
	board Board
	most  int // members that may be away at once
	etag  string
	all   configuration // with the board
}

// A configuration is all that can be written of a project.
type configuration struct {
	Config      map[string]string `json:"config"`
	Description string            `json:"description"`
}

// readOwn returns what is written down now, by the Incus of this machine.
func (m *Member) readOwn(ctx context.Context) (*read, error) {
	if ahead, ok := errors.AsType[*incus.AheadError](m.Incus.Ahead(ctx)); ok {
		return nil, ahead
	}
	var server struct {
		Environment struct {
			Clustered bool   `json:"server_clustered"`
			Name      string `json:"server_name"`
		} `json:"environment"`
	}
	_, err := m.Incus.Get(ctx, "/1.0", &server)
	if _, alone := m.Files.Stat(clusterFile); err != nil && !errors.Is(alone, fs.ErrNotExist) {
		return nil, fmt.Errorf("asking Incus for its cluster: %w", err)
	}
	if !server.Environment.Clustered {
		return &read{own: true}, nil
	}
	return readBy(ctx, m.Incus, server.Environment.Name)
}

// readBy returns what is written down by what an Incus says, for a member.
func readBy(ctx context.Context, by Incus, name string) (r *read, err error) {
	r = &read{by: by, own: true, name: name, most: 1}
	if r.etag, err = by.Get(ctx, project, &r.all); err != nil {
		return nil, fmt.Errorf("asking Incus whose turn it is: %w", err)
	}
	if text := r.all.Config[boardKey]; text != "" {
		if err := json.Unmarshal([]byte(text), &r.board); err != nil {
			return nil, fmt.Errorf("the configuration key %s of the project default: %w; unset it, and members begin anew", boardKey, err)
		}
	}
	if text := r.all.Config[mostKey]; text != "" {
		if r.most, err = strconv.Atoi(text); err != nil || r.most < 1 {
			return nil, fmt.Errorf("the configuration key %s of the project default is %q; want a number from 1 on", mostKey, text)
		}
	}
	return r, nil
}

// write puts a board in the place of the one that was read, unless somebody else did.
// Of a project Incus takes all or nothing.
func (m *Member) write(ctx context.Context, was *read, b Board) error {
	if b.same(was.board) {
		return nil
	}
	text, err := b.encode()
	if err != nil {
		return err
	}
	next := configuration{maps.Clone(was.all.Config), was.all.Description}
	if next.Config[boardKey] = text; text == "" {
		delete(next.Config, boardKey)
	}
	return was.by.Put(ctx, project, was.etag, next)
}

// encode returns "" for an empty board.
func (b Board) encode() (string, error) {
	if len(b.Turns) == 0 && len(b.Waiting) == 0 && b.Paused == "" {
		return "", nil
	}
	text, err := json.Marshal(b)
	return string(text), err
}

// change changes the board until the change stands: what two members write at once is
// lost for one of them, which only shows some time later. To has to change nothing where
// it is done. Incus may be choosing another leader, which takes it a while.
func (m *Member) change(ctx context.Context, to func(name string, b Board) Board) error {
	var failing time.Time // since when; zero: it is not
	for wrote := false; ; {
		stands, err := m.once(ctx, to)
		switch {
		case err == nil && stands && wrote:
			return nil
		case err == nil || incus.Changed(err):
			failing = time.Time{}
		case failing.IsZero():
			failing = m.Now()
		case m.Now().Sub(failing) > patience:
			return err
		}
		wrote = err == nil
		wait := settles
		if !wrote {
			wait = rand.N(settles) //nolint:gosec // not a secret
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// once changes the board, unless it is as it should be.
func (m *Member) once(ctx context.Context, to func(name string, b Board) Board) (stands bool, err error) {
	b, err := m.read(ctx)
	if err != nil {
		return false, err
	}
	next := to(b.name, b.board.clone())
	return next.same(b.board), m.write(ctx, b, next)
}

func (b *read) members(ctx context.Context) (list []member, err error) {
	if _, err := b.by.Get(ctx, "/1.0/cluster/members?recursion=1", &list); err != nil {
		return nil, fmt.Errorf("asking Incus for the members of its cluster: %w", err)
	}
	return list, nil
}

// want returns the board once a member wants to restart: with its turn, or with the
// member among those that wait and why it has to.
func (b *read) want(version string, members []member, now time.Time) (next Board, why string) {
	next = b.board.clone()
	if t := next.turn(b.name); t != nil {
		t.Version = version // a restart that did not come about, or another version since
		return next, ""
	}
	if !slices.Contains(next.Waiting, b.name) {
		next.Waiting = append(next.Waiting, b.name)
		slices.Sort(next.Waiting)
	}
	if why := b.hinders(next.Waiting, members); why != "" {
		return next, why
	}
	next = next.without(b.name)
	next.Turns = append(next.Turns, api.RollingTurn{Member: b.name, Version: version, Phase: api.RollingBeginning, Since: now.UTC().Truncate(time.Second)})
	return next, ""
}

// hinders returns what keeps a member from being the next, "" for nothing.
func (b *read) hinders(waiting []string, members []member) string {
	switch {
	case b.board.Paused != "":
		return "paused by " + b.board.Paused + "; see to it, and unset " + boardKey + " in the configuration of the project default"
	case !b.own:
		return "" // its Incus serves nothing as it is: the member is away already
	}
	away := make([]string, 0, len(b.board.Turns))
	for _, t := range b.board.Turns {
		if t.Phase != api.RollingWaiting {
			away = append(away, fmt.Sprintf("%s (%s since %s)", t.Member, t.Phase, t.Since.Format(time.RFC3339)))
		}
	}
	first := true
	for _, o := range members {
		switch {
		case o.Name == b.name || b.board.turn(o.Name) != nil:
		case o.Status != online && o.Status != blocked:
			away = append(away, o.Name+" ("+strings.ToLower(o.Status)+")")
		case o.Name < b.name && slices.Contains(waiting, o.Name):
			first = false
		}
	}
	if room := b.room(); len(away) >= room {
		return fmt.Sprintf("at most %d may be away, and there is %s", room, strings.Join(away, ", "))
	}
	if !first {
		return "others come before it: " + strings.Join(waiting[:slices.Index(waiting, b.name)], ", ")
	}
	return ""
}

// room is how many members may be away at once besides those whose Incus waits for the
// others, which come back only when all are through it. So as many follow at a time as
// have come through it already: one, two, four. No more are away than wait, so that most
// of those who keep the cluster's database are there.
func (b *read) room() int { return max(b.most, b.board.ahead()) }

// urgent reports whether instances are stopped until all members have a new Incus.
func (b *read) urgent() bool { return b.board.ahead() > b.most }

// crowded reports whether more members are away than the others can stand in for.
func (b *read) crowded() bool { return len(b.board.without(b.name).Turns) >= b.most }

// ahead is how many members have an Incus that waits for the others.
func (b Board) ahead() (n int) {
	for _, t := range b.Turns {
		if t.Phase == api.RollingWaiting {
			n++
		}
	}
	return n
}

// same reports whether two boards say the same.
func (b Board) same(other Board) bool {
	one, err := b.encode()
	two, otherErr := other.encode()
	return err == nil && otherErr == nil && one == two
}

// turn returns a member's turn, nil if it has none.
func (b Board) turn(name string) *api.RollingTurn {
	i := slices.IndexFunc(b.Turns, func(t api.RollingTurn) bool { return t.Member == name })
	if i < 0 {
		return nil
	}
	return &b.Turns[i]
}

// has reports whether a member is on the board.
func (b Board) has(name string) bool { return b.turn(name) != nil || slices.Contains(b.Waiting, name) }

func (b Board) without(name string) Board {
	b = b.clone()
	b.Turns = slices.DeleteFunc(b.Turns, func(t api.RollingTurn) bool { return t.Member == name })
	b.Waiting = slices.DeleteFunc(b.Waiting, func(w string) bool { return w == name })
	return b
}

func (b Board) clone() Board {
	b.Turns, b.Waiting = slices.Clone(b.Turns), slices.Clone(b.Waiting)
	return b
}
