//go:build vm

// Package cluster_test has three machines that are members of one Incus cluster update
// themselves, one after the other. The machines are pretended; their incus-osd is the
// real one, and so are the three incusd of Debian and the cluster that they form.
//
//	ahead_test.go    a version whose Incus waits for all to have it
//	machine_test.go  a machine: incus-osd, incusd, and what its firmware and boot loader do
//	site_test.go     the repository that they update from
//	watch_test.go    what the cluster shows meanwhile
//
// It needs root, for namespaces, and a tree of Debian, as test/client does: so it has
// the build tag vm, though it starts no virtual machine. Elections, heartbeats and turns
// take their time, so that it runs for a quarter of an hour.
package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/image"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/test/debian"
)

// Versions of the system: the one that all begin with, a good one, one with a newer
// Incus, and one that does not start.
const first, good, newer, bad = "202601010000", "202602010000", "202602150000", "202603010000"

const (
	boardKey = "user.incusos.rolling"
	project  = "/1.0/projects/default"
)

func TestRollingUpdates(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("only root can run Debian's incusd in namespaces of its own; run the tests with the tag vm as root")
	}
	network := newNetwork(t)
	site := newSite(t, network) // before any program is started: see listenIn
	machines := form(t, network)
	for _, m := range machines {
		m.updatesFrom(t, site)
	}
	t.Run("of two that write at once one is refused", func(t *testing.T) { swapped(t, machines) })
	t.Run("one after the other", func(t *testing.T) { oneByOne(t, machines, site) })
	t.Run("a newer Incus waits for all", func(t *testing.T) { ahead(t, machines, site) })
	t.Run("a version that does not stay makes all pause", func(t *testing.T) { paused(t, machines, site) })
}

// newNetwork makes the network that the machines are in, a namespace, and returns its file.
func newNetwork(t *testing.T) string {
	t.Helper()
	network := filepath.Join(t.TempDir(), "net")
	must(t, os.WriteFile(network, nil, 0o600))
	run(t, "unshare", "--net="+network, "ip", "link", "set", "lo", "up")
	t.Cleanup(func() { run(t, "umount", network) })
	return network
}

// form makes the machines members of one cluster.
func form(t *testing.T, network string) []*machine {
	t.Helper()
	tree, programs := openTree(t), t.TempDir()
	run(t, "go", "build", "-o", programs, "../../cmd/incus-osd")
	var machines []*machine
	for i := range 3 {
		m := newMachine(t, fmt.Sprintf("node%d", i+1), fmt.Sprintf("127.0.0.%d:8443", i+2), programs, tree, network)
		m.on(t)
		machines = append(machines, m)
	}
	machines[0].incus(t, "", "cluster", "enable", machines[0].name)
	for _, m := range machines[1:] {
		token := strings.Fields(machines[0].incus(t, "", "cluster", "add", m.name))
		m.incus(t, fmt.Sprintf("cluster: {enabled: true, server_name: %s, server_address: '%s', cluster_token: '%s'}", m.name, m.address, token[len(token)-1]), "admin", "init", "--preseed")
	}
	eventually(t, time.Minute, "all to be members", func() error { return all(t.Context(), machines, "Online") })
	return machines
}

// all expects every machine to see every member with a status.
func all(ctx context.Context, machines []*machine, status string) error {
	for _, m := range machines {
		members, err := m.members(ctx)
		if err != nil {
			return err
		}
		if len(members) != len(machines) {
			return fmt.Errorf("%s sees %d members", m.name, len(members))
		}
		for name, is := range members {
			if is != status {
				return fmt.Errorf("%s sees %s %s", m.name, name, is)
			}
		}
	}
	return nil
}

// swapped has every member write over what all have read, as those do that want a turn.
func swapped(t *testing.T, machines []*machine) {
	etags := make([]string, len(machines))
	for i, m := range machines {
		var p configuration
		var err error
		etags[i], err = m.door().Get(t.Context(), project, &p)
		must(t, err)
	}
	if etags[0] == "" || etags[0] != etags[1] || etags[1] != etags[2] {
		t.Fatalf("the members have read %q; want the same ETag", etags)
	}
	took := 0
	for i, m := range machines {
		p := m.written(t)
		p.Config["user.swapped"] = m.name
		if err := m.door().Put(t.Context(), project, etags[i], p); err == nil {
			took++
		} else if !isChanged(err) {
			t.Errorf("%s is answered %v", m.name, err)
		}
	}
	if took != 1 {
		t.Errorf("%d writes of three were taken; want one", took)
	}
	machines[2].incus(t, "", "project", "unset", "default", "user.swapped")
}

func oneByOne(t *testing.T, machines []*machine, s *site) {
	machines[0].incus(t, "", "storage", "create", "here", "dir", "--target", "node1")
	machines[0].incus(t, "", "storage", "create", "here", "dir", "--target", "node2")
	machines[0].incus(t, "", "storage", "create", "here", "dir", "--target", "node3")
	machines[0].incus(t, "", "storage", "create", "here", "dir")
	machines[0].incus(t, "", "create", "kept", "--empty", "--storage", "here", "--target", "node2")
	w := watch(t, machines)
	s.publish(t, good)
	for _, m := range machines {
		m.looks(t)
	}
	for range machines {
		m := restarting(t, machines)
		if s := m.clusterState(t); !slices.ContainsFunc(s.Turns, func(r api.RollingTurn) bool {
			return r.Member == m.name && r.Phase == api.RollingRestarting && r.Version == good
		}) {
			t.Errorf("%s restarts, and shows %+v", m.name, s)
		}
		for _, other := range machines {
			if s := other.clusterState(t); s.MaxUnavailable != 1 || len(s.Turns) != 1 || s.Turns[0].Member != m.name {
				t.Errorf("%s shows %+v while %s restarts", other.name, s, m.name)
			}
		}
		if status := m.status(t); status != "Evacuated" {
			t.Errorf("%s restarts, and Incus says it is %s", m.name, status)
		}
		if m.name == "node2" && m.holds(t, "kept") {
			t.Error("an evacuated member still has its instance")
		}
		m.off(t)
		m.on(t)
		eventually(t, 4*time.Minute, m.name+" to be back", func() error { return m.back(t, good) })
	}
	w.end(t)
	eventually(t, time.Minute, "all to be there", func() error { return all(t.Context(), machines, "Online") })
	if left := machines[1].written(t).Config[boardKey]; left != "" {
		t.Errorf("the board still says %s", left)
	}
	if !machines[1].holds(t, "kept") {
		t.Error("the instance did not come back")
	}
	if w.most != 1 || len(w.left) != len(machines) {
		t.Errorf("%d members were away at a time, %v in all; want one, and each once", w.most, w.left)
	}
	for name, phases := range w.phases {
		if want := []api.RollingPhase{api.RollingBeginning, api.RollingLeaving, api.RollingRestarting, api.RollingReturning}; !slices.Equal(phases, want) {
			t.Errorf("%s went through %v, want %v", name, phases, want)
		}
	}
}

func paused(t *testing.T, machines []*machine, s *site) {
	s.publish(t, bad)
	for _, m := range machines {
		m.broken = bad
		m.looks(t)
	}
	m := restarting(t, machines)
	m.off(t)
	m.on(t)
	eventually(t, 4*time.Minute, m.name+" to be back with what it had", func() error { return m.back(t, newer) })
	why := m.name + ": version " + bad + ": "
	for _, one := range machines {
		if s := one.clusterState(t); !strings.HasPrefix(s.Paused, why) || len(s.Turns) != 0 {
			t.Errorf("%s shows %+v; want it paused by %q", one.name, s, why)
		}
	}
	waits := slices.DeleteFunc(slices.Clone(machines), func(o *machine) bool { return o == m })
	time.Sleep(100 * time.Second) // each of the others has asked meanwhile
	for _, o := range waits {
		if o.restarts(t) || o.status(t) != "Online" {
			t.Errorf("%s leaves, though another one failed", o.name)
		}
	}
	for _, o := range waits {
		o.broken = ""
	}
	waits[0].incus(t, "", "project", "unset", "default", boardKey)
	next := restarting(t, waits)
	next.off(t)
	next.on(t)
	eventually(t, 4*time.Minute, next.name+" to be back", func() error { return next.back(t, bad) })
}

// restarting waits until one of the machines restarts, and returns it.
func restarting(t *testing.T, machines []*machine) (found *machine) {
	t.Helper()
	eventually(t, 5*time.Minute, "a machine to restart", func() error {
		i := slices.IndexFunc(machines, func(m *machine) bool { return m.restarts(t) })
		if i < 0 {
			return fmt.Errorf("none does; they say %s", said(t, machines))
		}
		found = machines[i]
		return nil
	})
	return found
}

// said is what the machines say about their updates.
func said(t *testing.T, machines []*machine) string {
	var all []string
	for _, m := range machines {
		u, err := m.osd().Update().Get(t.Context())
		all = append(all, fmt.Sprintf("%s: %q %v", m.name, u.State.Status, err))
	}
	return strings.Join(all, "; ")
}

func openTree(t *testing.T) debian.Tree {
	t.Helper()
	cache := os.Getenv("INCUSOS_CACHE")
	if cache == "" {
		dir, err := os.UserCacheDir()
		must(t, err)
		cache = filepath.Join(dir, "incusos")
	}
	b := &image.Builder{Exec: sys.Real().Exec, Cache: cache, Log: image.NewLog(os.Stderr, filepath.Join(cache, "debian.log"), false)}
	tree, err := debian.Open(t.Context(), b)
	must(t, err)
	return tree
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	_, err := sys.Real().Exec.Run(context.WithoutCancel(t.Context()), sys.Command(name, args...))
	must(t, err)
}

func eventually(t *testing.T, patience time.Duration, what string, f func() error) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(250 * time.Millisecond) {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(end) || t.Context().Err() != nil {
			t.Fatalf("waiting for %s: %v", what, err)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// errNotYet is what is not so yet, and may become so.
var errNotYet = errors.New("not yet")

// members of the API of Incus.
const membersPath = "/1.0/cluster/members?recursion=1"
