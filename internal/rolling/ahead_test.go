package rolling_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/incus"
)

const newer = "202611280100"

var errRefused = errors.New("connection refused")

// open is nil if the Incus of a member serves. One that waits for others does not answer.
func (d door) open(ctx context.Context) error {
	d.mu.Lock()
	waiting, down := d.waiting[d.name], d.down[d.name]
	d.mu.Unlock()
	if down {
		return errRefused
	}
	if waiting {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

// Ahead says which members an Incus waits for.
func (d door) Ahead(context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.down[d.name]:
		return errRefused
	case !d.waiting[d.name]:
		return nil
	}
	return &incus.AheadError{Of: d.older(d.name)}
}

// older returns the members that have an older schema than one has.
func (c *cluster) older(name string) (list []string) {
	for _, other := range slices.Sorted(maps.Keys(c.schema)) {
		if c.schema[other] < c.schema[name] {
			list = append(list, other)
		}
	}
	return list
}

// shown is the status of a member as Incus shows it.
func (c *cluster) shown(name string) string {
	for other := range c.schema {
		if c.status[name] == "Online" && c.schema[name] < c.schema[other] {
			return "Blocked"
		}
	}
	return c.status[name]
}

// is returns the status of a member as it is written down.
func (c *cluster) is(name string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status[name]
}

// last returns what a machine has said last.
func (m *machine) last() string {
	m.door.mu.Lock()
	defer m.door.mu.Unlock()
	return m.said[len(m.said)-1]
}

// stop ends the Incus of a member.
func (c *cluster) stop(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down[name], c.waiting[name] = true, false
}

// start starts the Incus of a member, as EnsureSchema of Incus does: it does not come up
// when another one is newer, waits while another one is older, and has all go on when
// they are as new.
func (c *cluster) start(name string, schema int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.schema[name] = schema
	for other := range c.schema {
		if c.schema[other] > schema {
			return
		}
	}
	c.down[name] = false
	if c.waiting[name] = len(c.older(name)) > 0; !c.waiting[name] {
		clear(c.waiting)
	}
}

// restart is what becomes of a machine that restarts into a version which brings a
// schema, until its place in the cluster is as it should be, or ctx ends. It is bad for a
// reason, and the machine runs the old version then.
func (m *machine) restart(ctx context.Context, schema int, bad error) (err error) {
	name := m.door.name
	before := m.door.is(name)
	m.door.stop(name)
	m.door.become(name, "Offline")
	time.Sleep(3 * time.Minute)
	m.door.become(name, before)
	m.door.start(name, schema)
	for {
		if err = m.Return(ctx, func(string) error { return bad }); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(15 * time.Second):
		}
	}
}

func (c *cluster) machines(t *testing.T) (all []*machine) {
	for i := range len(c.schema) {
		all = append(all, newMachine(t, c, name(i)))
	}
	return all
}

// check expects all members to have restarted, and nothing to be left.
func (c *cluster) check(t *testing.T, machines []*machine) {
	t.Helper()
	for _, m := range machines {
		if m.power != 1 || c.status[m.door.name] != "Online" || c.schema[m.door.name] != 2 || m.door.open(t.Context()) != nil {
			t.Errorf("%s restarted %d times, is %s and has schema %d; it said %q", m.door.name, m.power, c.status[m.door.name], c.schema[m.door.name], m.said)
		}
	}
	if left := c.get(board); left != "" {
		t.Errorf("the board still says %s", left)
	}
}

// A newer Incus serves nothing before all members have it. The others follow at once and
// ever more at a time, though it cannot write anything down by itself, and all come back.
func TestNewerIncusIsTakenByAll(t *testing.T) {
	for _, n := range []struct {
		members, most int
		longest       time.Duration
	}{{2, 1, time.Hour}, {3, 1, time.Hour}, {20, 5, 2 * time.Hour}, {60, 1, 2 * time.Hour}} {
		t.Run(fmt.Sprint(n.members, " by ", n.most), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, began := newCluster(n.members), time.Now()
				c.set(most, strconv.Itoa(n.most))
				machines := c.machines(t)
				var all sync.WaitGroup
				for _, m := range machines {
					all.Go(func() {
						if err := m.Restart(t.Context(), newer); err != nil {
							t.Errorf("%s: %v", m.door.name, err)
						}
						c.fewAway(t, n.most)
						if err := m.restart(t.Context(), 2, nil); err != nil {
							t.Errorf("%s: %v", m.door.name, err)
						}
					})
				}
				all.Wait()
				c.check(t, machines)
				took := time.Since(began)
				if t.Logf("it took %v", took); took > n.longest {
					t.Errorf("want at most %v", n.longest)
				}
				for i, mode := range c.modes {
					if moves := i < n.most; moves != (mode == "") {
						t.Errorf("the member that left as number %d had its instances evacuated by %q", i+1, mode)
					}
				}
			})
		})
	}
}

// fewAway expects no more members to be away than may be, besides those that wait.
func (c *cluster) fewAway(t *testing.T, most int) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	away, waiting := 1, 0
	for name := range c.schema {
		if c.waiting[name] {
			waiting++
		} else if c.down[name] {
			away++
		}
	}
	if away > max(most, waiting) {
		t.Errorf("%d members are away while %d wait; want at most as many, or %d", away, waiting, most)
	}
}

// ahead makes the first member of a cluster one that waits for the others.
func ahead(t *testing.T, c *cluster, first *machine) (done func()) {
	t.Helper()
	if err := first.Restart(t.Context(), newer); err != nil {
		t.Fatal(err)
	}
	var back sync.WaitGroup
	back.Go(func() {
		if err := first.restart(t.Context(), 2, nil); err != nil {
			t.Errorf("the first one: %v", err)
		}
	})
	time.Sleep(10 * time.Minute)
	s := first.State(t.Context())
	if s == nil || len(s.Turns) != 1 || s.Turns[0].Phase != api.RollingWaiting || s.Member != name(0) {
		t.Fatalf("the first one shows %+v; want it to wait", s)
	}
	if last := first.last(); !strings.Contains(last, "serves nothing before they have it too: node001, node002") {
		t.Errorf("the first one says %q", last)
	}
	return back.Wait
}

// follow has members restart into the newer version, all at once.
func follow(t *testing.T, c *cluster, members []*machine) {
	t.Helper()
	var all sync.WaitGroup
	for _, m := range members {
		all.Go(func() {
			if err := errors.Join(m.Restart(t.Context(), newer), m.restart(t.Context(), 2, nil)); err != nil {
				t.Errorf("%s: %v", m.door.name, err)
			}
			if c.is(m.door.name) == "Offline" {
				c.become(m.door.name, "Online") // by its heartbeat
			}
		})
	}
	all.Wait()
}

// The old Incus of a member that lost its power does not start any more. The member has
// others tell whose turn it is, and where nobody is left who could, it does without.
func TestOldIncusThatDoesNotStart(t *testing.T) {
	for _, lost := range [][]int{{2}, {1, 2}} {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(3)
			machines := c.machines(t)
			for _, m := range machines[1:] { // they know the others
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
				m.Hold = nil
				c.set(board, `{"paused":"a test"}`)
				if err := m.Restart(ctx, newer); !errors.Is(err, context.DeadlineExceeded) {
					t.Fatal(err)
				}
				cancel()
				c.set(board, "")
			}
			done := ahead(t, c, machines[0])
			for _, i := range lost {
				c.stop(name(i))
				c.become(name(i), "Offline")
				c.start(name(i), 1)
			}
			follow(t, c, machines[1:])
			done()
			c.check(t, machines)
		})
	}
}

// A version that does not stay on one member, while another one waits for it, has all
// pause until a person says so, who need not know which ones wait.
func TestFailureWhileAMemberWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(3)
		machines := c.machines(t)
		done := ahead(t, c, machines[0])
		if err := machines[1].Restart(t.Context(), newer); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := machines[1].restart(ctx, 1, errors.New("network: there is no address")); err == nil {
			t.Fatal("a member with an old Incus came back, though another one is ahead")
		}
		if s := machines[2].State(t.Context()); s.Paused != "node001: version "+newer+": network: there is no address" {
			t.Fatalf("another member shows %+v", s)
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := machines[2].Restart(ctx, newer); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("the next one did not wait: %v", err)
		}
		machines[1].power = 0
		c.set(board, "")
		follow(t, c, machines[1:])
		done()
		c.check(t, machines)
	})
}

// A window that has closed keeps a member from restarting, but not when others have
// their instances stopped until it does.
func TestUrgentIsWhenInstancesAreStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(3)
		machines := c.machines(t)
		done := ahead(t, c, machines[0])
		held := func(urgent bool) string {
			if urgent {
				return ""
			}
			return "the maintenance window is closed"
		}
		machines[2].Hold = held
		ctx, cancel := context.WithTimeout(t.Context(), 6*time.Hour)
		defer cancel()
		if err := machines[2].Restart(ctx, newer); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("with one that waits, whose instances others have: %v", err)
		}
		follow(t, c, machines[1:])
		done()
		c.check(t, machines)
	})
}
