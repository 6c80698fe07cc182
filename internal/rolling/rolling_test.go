package rolling_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/incus"
	"github.com/incusos/incusos/internal/rolling"
	"github.com/incusos/incusos/internal/sys"
)

const (
	project = "/1.0/projects/default"

	board = "user.incusos.rolling"
	most  = "user.incusos.rolling.max_unavailable"
)

// A cluster is what all members' Incus know. It compares an ETag and writes in two
// steps with time between them, as Incus does.
type cluster struct {
	mu      sync.Mutex
	config  map[string]string
	writes  int
	status  map[string]string
	away    int            // members that are not online
	mostly  int            // most of them at a time
	trouble int            // one of so many writes fails; 0: none
	refuses map[string]int // what an action on a member is answered, "evacuate node3"
	modes   []string       // how members were evacuated, in that order

	// What a newer Incus changes; see ahead_test.go.
	schema  map[string]int  // of the database of each member
	waiting map[string]bool // members whose Incus waits for the others
	down    map[string]bool // members without an Incus
}

func newCluster(n int) *cluster {
	c := &cluster{
		config: make(map[string]string), status: make(map[string]string), refuses: make(map[string]int),
		schema: make(map[string]int), waiting: make(map[string]bool), down: make(map[string]bool),
	}
	for i := range n {
		c.schema[name(i)] = 1
		c.status[name(i)] = "Online"
	}
	return c
}

func name(i int) string { return fmt.Sprintf("node%03d", i) }

func (c *cluster) set(key, value string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.config[key] = value
	c.writes++
}

func (c *cluster) get(key string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.config[key]
}

func (c *cluster) become(member, status string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status[member] = status
	c.away = 0
	for _, s := range c.status {
		if s != "Online" {
			c.away++
		}
	}
	c.mostly = max(c.mostly, c.away)
}

// A door is a member's own Incus.
type door struct {
	*cluster
	name string // "" for a machine in no cluster
}

func (d door) Get(ctx context.Context, path string, out any) (string, error) {
	if err := d.open(ctx); err != nil {
		return "", err
	}
	time.Sleep(rand.N(500 * time.Millisecond))
	d.mu.Lock()
	defer d.mu.Unlock()
	var answer any
	switch path {
	case "/1.0":
		answer = map[string]any{"environment": map[string]any{"server_clustered": d.name != "", "server_name": d.name}}
	case project:
		answer = map[string]any{"config": d.config, "description": "Default Incus project", "name": "default"}
	case "/1.0/cluster/members?recursion=1":
		var list []map[string]string
		for _, name := range slices.Sorted(maps.Keys(d.status)) {
			list = append(list, map[string]string{"server_name": name, "status": d.shown(name), "url": "https://" + name + ":8443"})
		}
		answer = list
	default:
		return "", &incus.Refusal{Code: http.StatusNotFound, Text: path}
	}
	b, err := json.Marshal(answer)
	if err != nil {
		return "", err
	}
	return strconv.Itoa(d.writes), json.Unmarshal(b, out)
}

func (d door) Put(ctx context.Context, path, etag string, body any) error {
	if err := d.open(ctx); err != nil {
		return err
	}
	d.mu.Lock()
	same, trouble := strconv.Itoa(d.writes) == etag, d.trouble > 0 && rand.IntN(d.trouble) == 0
	d.mu.Unlock()
	switch {
	case path != project:
		return &incus.Refusal{Code: http.StatusNotFound, Text: path}
	case !same:
		return &incus.Refusal{Code: http.StatusPreconditionFailed, Text: "the ETag does not match"}
	case trouble:
		return &incus.Refusal{Code: http.StatusInternalServerError, Text: "there is no leader"}
	}
	time.Sleep(rand.N(2 * time.Second))
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	var next struct{ Config map[string]string }
	if err := json.Unmarshal(b, &next); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.writes++
	d.config = next.Config
	return nil
}

func (d door) Do(ctx context.Context, method, path string, body, _ any) error {
	if err := d.open(ctx); err != nil {
		return err
	}
	action := body.(map[string]string)["action"]
	if method != http.MethodPost || path != "/1.0/cluster/members/"+d.name+"/state" {
		return &incus.Refusal{Code: http.StatusNotFound, Text: path}
	}
	d.mu.Lock()
	code := d.refuses[action+" "+d.name]
	if action == "evacuate" {
		d.modes = append(d.modes, body.(map[string]string)["mode"])
	}
	d.mu.Unlock()
	if code != 0 {
		return &incus.Refusal{Code: code, Text: "there is no room for web1"}
	}
	time.Sleep(rand.N(time.Minute))
	d.become(d.name, map[string]string{"evacuate": "Evacuated", "restore": "Online"}[action])
	return nil
}

// A machine is a member with its disk.
type machine struct {
	*rolling.Member
	door  door
	said  []string
	power int // how often it was restarted
}

func newMachine(t *testing.T, c *cluster, name string) *machine {
	t.Helper()
	m := &machine{door: door{c, name}}
	files := sys.NewDir(t.TempDir())
	if err := errors.Join(files.MkdirAll("/var/lib/incus-os", 0o700), files.MkdirAll("/var/lib/incus", 0o700)); err != nil {
		t.Fatal(err)
	}
	if name != "" {
		if err := files.WriteFile("/var/lib/incus/cluster.crt", nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	m.Member = &rolling.Member{
		Files: files, Incus: m.door, Now: time.Now,
		Say: func(format string, args ...any) {
			c.mu.Lock()
			defer c.mu.Unlock()
			m.said = append(m.said, fmt.Sprintf(format, args...))
		},
		Power: func(context.Context) error { m.power++; return nil },
		Peer:  func(address string) (rolling.Incus, error) { return door{c, strings.TrimSuffix(address, ":8443")}, nil },
	}
	return m
}

// update is what a machine does with a new version, which is good or not.
func (m *machine) update(ctx context.Context, bad error) error {
	if err := m.Restart(ctx, "202611280100"); err != nil {
		return err
	}
	before := "Evacuated"
	m.door.become(m.door.name, "Offline")
	time.Sleep(time.Minute + rand.N(3*time.Minute))
	m.door.become(m.door.name, before)
	return m.Return(ctx, func(string) error { return bad })
}

// All members restart, never more than wanted at a time, though Incus would let two
// write at once.
func TestMembersTakeTurns(t *testing.T) {
	for _, n := range []struct{ members, most, trouble int }{{3, 1, 0}, {20, 1, 3}, {60, 5, 0}} {
		t.Run(fmt.Sprint(n.members, " by ", n.most), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(n.members)
				c.set(most, strconv.Itoa(n.most))
				c.set("features.images", "true")
				c.trouble = n.trouble
				var all sync.WaitGroup
				machines := make([]*machine, n.members)
				for i := range machines {
					machines[i] = newMachine(t, c, name(i))
					all.Go(func() {
						time.Sleep(rand.N(10 * time.Minute))
						if err := machines[i].update(t.Context(), nil); err != nil {
							t.Errorf("%s: %v", name(i), err)
						}
					})
				}
				all.Wait()
				for i, m := range machines {
					if m.power != 1 || c.status[name(i)] != "Online" {
						t.Errorf("%s restarted %d times and is %s; it said %q", name(i), m.power, c.status[name(i)], m.said)
					}
				}
				if c.mostly > n.most {
					t.Errorf("%d members were away at a time; want at most %d", c.mostly, n.most)
				}
				if left := c.get(board); left != "" || c.get("features.images") != "true" {
					t.Errorf("the board still says %s, and the rest is %v", left, c.config)
				}
			})
		})
	}
}

// After a version that was not good nobody begins, until a person says so.
func TestFailurePausesTheCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(3)
		machines := []*machine{newMachine(t, c, name(0)), newMachine(t, c, name(1)), newMachine(t, c, name(2))}
		if err := machines[0].update(t.Context(), errors.New("incus: it does not answer")); err != nil {
			t.Fatal(err)
		}
		if c.status[name(0)] != "Online" {
			t.Errorf("the member that failed is %s; want it back", c.status[name(0)])
		}
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		if err := machines[1].update(ctx, nil); !errors.Is(err, context.DeadlineExceeded) || machines[1].power != 0 {
			t.Fatalf("the next member did not wait: %v", err)
		}
		state := machines[2].State(t.Context())
		want := "node000: version 202611280100: incus: it does not answer"
		if state == nil || state.Paused != want || state.Member != name(2) || !slices.Equal(state.Waiting, []string{name(1)}) {
			t.Fatalf("another member shows %+v; want it paused by %q", state, want)
		}
		if last := machines[1].said[len(machines[1].said)-1]; !strings.Contains(last, want) || !strings.Contains(last, "unset "+board) {
			t.Errorf("the member that waits says %q", last)
		}
		c.set(board, "")
		if err := machines[1].update(t.Context(), nil); err != nil || machines[1].power != 1 {
			t.Errorf("after the pause: %v", err)
		}
	})
}

// A member that cannot give its instances away stays, and says why to all.
func TestMemberThatCannotLeaveStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(2)
		c.refuses["evacuate node000"] = http.StatusInternalServerError
		m := newMachine(t, c, name(0))
		err := m.Restart(t.Context(), "202611280100")
		if err == nil || !strings.Contains(err.Error(), "there is no room for web1") || m.power != 0 {
			t.Fatalf("Restart() = %v with %d restarts; want what Incus says and none", err, m.power)
		}
		if s := m.State(t.Context()); !strings.Contains(s.Paused, "there is no room for web1") || len(s.Turns) > 0 {
			t.Errorf("the cluster shows %+v", s)
		}
		if m.Files.Exists("/var/lib/incus-os/rolling.json") {
			t.Error("the member still believes to be away")
		}
	})
}

// Whoever is away for another reason counts too.
func TestMembersThatAreAwayCount(t *testing.T) {
	for _, status := range []string{"Offline", "Evacuated"} {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(3)
			c.become(name(2), status)
			m := newMachine(t, c, name(0))
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			if err := m.Restart(ctx, "202611280100"); !errors.Is(err, context.DeadlineExceeded) || m.power != 0 {
				t.Fatalf("Restart() = %v with a member that is %s", err, status)
			}
			if want := "node002 (" + strings.ToLower(status) + ")"; !strings.Contains(m.said[0], want) {
				t.Errorf("it says %q; want %q in it", m.said[0], want)
			}
			c.become(name(2), "Online")
			if err := m.Restart(t.Context(), "202611280100"); err != nil || m.power != 1 {
				t.Errorf("once all are there: %v", err)
			}
		})
	}
}

// A member that somebody restarts while it waits does not keep the others waiting, and
// one that lost its power in its turn goes on where it was.
func TestMemberGoesOnAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(3)
		c.become(name(2), "Offline")
		m := newMachine(t, c, name(0))
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := m.Restart(ctx, "202611280100"); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if err := m.Return(t.Context(), nil); err != nil || c.get(board) != "" {
			t.Errorf("after a restart by hand: %v, and the board says %q", err, c.get(board))
		}
		c.become(name(2), "Online")
		if err := m.Restart(t.Context(), "202611280100"); err != nil {
			t.Fatal(err)
		}
		again := &rolling.Member{Files: m.Files, Incus: m.door, Say: m.Say, Now: m.Now, Power: m.Power}
		state := again.State(t.Context())
		if len(state.Turns) != 1 || state.Turns[0].Phase != api.RollingRestarting || state.Turns[0].Version != "202611280100" {
			t.Errorf("in its turn a member shows %+v", state)
		}
		if err := again.Return(t.Context(), func(version string) error {
			if version != "202611280100" {
				t.Errorf("asked about version %s", version)
			}
			return nil
		}); err != nil || c.status[name(0)] != "Online" || c.get(board) != "" {
			t.Errorf("after its turn: %v, %s, %q", err, c.status[name(0)], c.get(board))
		}
	})
}

// A member whose window is closed lets others go first.
func TestMemberThatMustNotRestartLetsOthersGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(2)
		opens := time.Now().Add(6 * time.Hour)
		held, other := newMachine(t, c, name(0)), newMachine(t, c, name(1))
		held.Hold = func(bool) string {
			if time.Now().Before(opens) {
				return "its maintenance window is closed"
			}
			return ""
		}
		var all sync.WaitGroup
		all.Go(func() {
			if err := held.update(t.Context(), nil); err != nil || time.Now().Before(opens) {
				t.Errorf("the one that is held: %v, at %v", err, time.Now())
			}
		})
		all.Go(func() {
			if err := other.update(t.Context(), nil); err != nil || time.Now().After(opens) {
				t.Errorf("the other one: %v, at %v", err, time.Now())
			}
		})
		all.Wait()
		if !strings.Contains(held.said[0], "its maintenance window is closed") {
			t.Errorf("it said %q", held.said[0])
		}
	})
}

// Where Incus does not answer, a member waits, and a machine that is in no cluster restarts:
// the new version may be what Incus lacks.
func TestIncusThatDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t, newCluster(0), "")
		m.Incus = silent{}
		if err := m.Restart(t.Context(), "202611280100"); err != nil || m.power != 1 {
			t.Errorf("Restart() = %v after %d restarts", err, m.power)
		}
		if err := m.Files.WriteFile("/var/lib/incus/cluster.crt", nil, 0o644); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := m.Restart(ctx, "202611280100"); !errors.Is(err, context.DeadlineExceeded) || m.power != 1 || !strings.Contains(m.said[0], "refused") {
			t.Errorf("a member: Restart() = %v after %d restarts; it said %q", err, m.power, m.said)
		}
	})
}

// silent is an Incus that does not answer.
type silent struct{ door }

func (silent) Get(context.Context, string, any) (string, error) {
	return "", errors.New("connection refused")
}

func (silent) Ahead(context.Context) error { return errors.New("connection refused") }

func TestMachineInNoClusterRestarts(t *testing.T) {
	m := newMachine(t, newCluster(0), "")
	if err := m.Restart(t.Context(), "202611280100"); err != nil || m.power != 1 {
		t.Errorf("Restart() = %v after %d restarts", err, m.power)
	}
	if err := m.Return(t.Context(), nil); err != nil {
		t.Error(err)
	}
	if s := m.State(t.Context()); s != nil {
		t.Errorf("State() = %+v, want none", s)
	}
}

// What an operator can mend is waited for.
func TestWhatIsWrittenInTheConfigurationIsChecked(t *testing.T) {
	for key, value := range map[string]string{most: "half", board: "{"} {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(2)
			c.set(key, value)
			m := newMachine(t, c, name(0))
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			if err := m.Restart(ctx, "202611280100"); !errors.Is(err, context.DeadlineExceeded) || m.power != 0 {
				t.Errorf("with %s: Restart() = %v", value, err)
			}
			if !strings.Contains(m.said[0], key) {
				t.Errorf("with %s it says %q, want it to name the key", value, m.said[0])
			}
			c.set(key, "")
			if err := m.Restart(t.Context(), "202611280100"); err != nil || m.power != 1 {
				t.Errorf("once that is mended: %v", err)
			}
		})
	}
}

// A write of another member that Incus was slow with may take a turn away that stood.
func TestTurnThatIsWrittenOverIsNotTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(2)
		m := newMachine(t, c, name(0))
		go func() {
			for !m.Files.Exists("/var/lib/incus-os/rolling.json") { // it is about to leave
				time.Sleep(time.Millisecond)
			}
			c.set(board, `{"turns":[{"member":"node001","version":"202611280100","phase":"leaving","since":"2026-11-28T00:00:00Z"}]}`)
		}()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := m.Restart(ctx, "202611280100"); !errors.Is(err, context.DeadlineExceeded) || m.power != 0 {
			t.Errorf("Restart() = %v after %d restarts, want it to wait", err, m.power)
		}
		if c.status[name(0)] != "Online" || m.Files.Exists("/var/lib/incus-os/rolling.json") {
			t.Errorf("the member is %s, or believes to be away", c.status[name(0)])
		}
	})
}
