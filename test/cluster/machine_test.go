//go:build vm

package cluster_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/client"
	"github.com/incusos/incusos/internal/incus"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/sys/systest"
	"github.com/incusos/incusos/test/debian"
)

// A machine is a pretended one with a real Incus.
type machine struct {
	name, address string
	dir           string // holds root, the machine's tree, and what incusd keeps
	programs      string // directory with incus-osd
	hardware      systest.Machine
	broken        string // version that does not start on it

	server *debian.Server
	daemon sys.Process
	log    *os.File // of incus-osd
	began  int64    // where this start is in the log
}

func newMachine(t *testing.T, name, address, programs string, tree debian.Tree, network string) *machine {
	t.Helper()
	m := &machine{name: name, address: address, dir: filepath.Join(t.TempDir(), name), programs: programs, hardware: systest.Sensible()}
	for _, dir := range []string{"os", "var", "root", "client"} {
		must(t, os.MkdirAll(m.path(dir), 0o755))
	}
	m.hardware.Loader, m.hardware.Incus = "vda1", m.path("var/lib/incus/unix.socket")
	m.hardware.Drives[0].Partitions = []systest.Partition{
		{Label: "esp", Size: 512 << 20}, {Label: "seed-data", Size: 1 << 20},
		{Label: "IncusOS_" + first + "_verity_sig", Size: 16 << 10}, {Label: "IncusOS_" + first + "_verity", Size: 1 << 20}, {Label: "IncusOS_" + first, Size: 4 << 20},
		{Label: "_empty", Size: 16 << 10}, {Label: "_empty", Size: 1 << 20}, {Label: "_empty", Size: 4 << 20},
		{Label: "root", Size: 4 << 30}, {Label: "local-data", Size: 8 << 30},
	}
	must(t, systest.Populate(m.path("root"), m.hardware))
	must(t, systest.WriteSeed(sys.NewDir(m.path("root")), map[string]string{
		"applications/incus_" + first + ".raw": "pretend image of Incus\n",
		"incus.yaml":                           "preseed: {config: {core.https_address: '" + address + "'}}\n",
	}))
	m.log = m.create(t, "incus-osd.log")
	m.server = &debian.Server{Tree: tree, Dir: m.dir, Network: network, Log: m.create(t, "incusd.log")}
	t.Cleanup(func() {
		if m.daemon != nil {
			m.off(t)
		}
	})
	return m
}

func (m *machine) path(name string) string { return filepath.Join(m.dir, name) }

// create makes a log, the end of which is shown when the test fails.
func (m *machine) create(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := os.OpenFile(m.path(name), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	must(t, err)
	t.Cleanup(func() {
		if b, err := os.ReadFile(f.Name()); err == nil && t.Failed() {
			lines := strings.SplitAfter(string(b), "\n")
			t.Logf("%s of %s:\n%s", name, m.name, strings.Join(lines[max(0, len(lines)-60):], ""))
		}
		must(t, f.Close())
	})
	return f
}

// on starts the machine: what its boot loader chooses, and Incus beside it.
func (m *machine) on(t *testing.T) {
	t.Helper()
	must(t, m.boot())
	description, err := json.Marshal(m.hardware)
	must(t, errors.Join(err, os.WriteFile(m.path("machine.json"), description, 0o600)))
	at, err := m.log.Seek(0, 2)
	must(t, err)
	m.began = at
	must(t, m.server.Start(t.Context()))
	eventually(t, 2*time.Minute, "incusd of "+m.name+" to answer", func() error {
		err := m.door().Do(t.Context(), http.MethodGet, "/internal/ready", nil, nil)
		if incus.Starting(err) {
			return nil // or it waits for others
		}
		return err
	})
	c := sys.Command("nsenter", "--net="+m.server.Network, filepath.Join(m.programs, "incus-osd"), "--root", m.path("root"), "--pretend", "--machine", m.path("machine.json"), "--socket", m.path("os/unix.socket"))
	c.Stdout, c.Stderr = m.log, m.log
	m.daemon, err = sys.Real().Exec.Start(context.WithoutCancel(t.Context()), c)
	must(t, err)
	eventually(t, time.Minute, "incus-osd of "+m.name+" to be ready", func() error {
		server, err := m.osd().Server(t.Context())
		if err == nil && !server.Environment.SystemIsReady {
			err = errNotYet
		}
		return err
	})
}

// revive starts incusd again if it has ended, as systemd does by its unit. One that waits
// for other members may crash when they are ready: its heartbeat still looks at the
// database that it has just closed (7.0.2, heartbeat of internal/server/cluster).
func (m *machine) revive(t *testing.T) {
	t.Helper()
	if err := m.door().Do(t.Context(), http.MethodGet, "/internal/ready", nil, nil); errors.Is(err, syscall.ECONNREFUSED) {
		t.Logf("incusd of %s has ended by itself; starting it again", m.name)
		must(t, errors.Join(m.server.Kill(), m.server.Start(t.Context())))
	}
}

// off turns the machine off, as a restart does.
func (m *machine) off(t *testing.T) {
	t.Helper()
	must(t, m.daemon.Signal(os.Interrupt))
	if err := m.daemon.Wait(); err != nil {
		t.Errorf("incus-osd of %s: %v", m.name, err)
	}
	m.daemon = nil
	must(t, m.server.Stop(20*time.Second))
	disks, err := sys.Disks(sys.NewDir(m.path("root"))) // the table outlives the start
	must(t, err)
	for i, p := range disks[0].Partitions {
		m.hardware.Drives[0].Partitions[i].Label = cmp.Or(p.Label, "_empty")
	}
}

// entry is the name of a kernel image: its version, and how many tries are left and done.
var entry = regexp.MustCompile(`^IncusOS_([0-9]{12})(?:\+([0-9]+)(?:-([0-9]+))?)?\.efi$`)

// boot chooses the version that starts, as systemd-boot does: the newest that has tries
// left. A version that does not start uses them up.
func (m *machine) boot() error {
	dir := m.path("root" + systest.ESP + "/EFI/Linux")
	files, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil // the first start makes it
	}
	for _, f := range slices.Backward(files) {
		e := entry.FindStringSubmatch(f.Name())
		if e == nil {
			continue
		}
		m.hardware.Version = e[1]
		if e[2] == "" {
			return nil
		}
		left, done := number(e[2]), number(e[3])
		for left > 0 {
			left, done = left-1, done+1
			if m.broken != e[1] {
				break
			}
		}
		name := fmt.Sprintf("IncusOS_%s+%d-%d.efi", e[1], left, done)
		if err := os.Rename(filepath.Join(dir, f.Name()), filepath.Join(dir, name)); err != nil {
			return err
		}
		if m.broken != e[1] {
			return nil
		}
	}
	return err
}

func number(digits string) int {
	n, _ := strconv.Atoi(digits)
	return n
}

// osd asks the daemon of the machine, and door its Incus.
func (m *machine) osd() *client.Client { return client.New(m.path("os/unix.socket")) }

func (m *machine) door() *incus.Client { return incus.Dial(sys.NewDir(m.dir)) }

// incus runs Debian's client as root of the machine.
func (m *machine) incus(t *testing.T, in string, args ...string) string {
	t.Helper()
	c := debian.Client{Tree: m.server.Tree, Dir: m.dir, Conf: m.path("client"), Socket: m.server.Socket(), Inside: m.server.Inside()}
	r, err := c.Run(t.Context(), strings.NewReader(in), args...)
	must(t, err)
	if r.Code != 0 {
		t.Fatalf("%s: incus %s: %s", m.name, strings.Join(args, " "), r.Err)
	}
	return r.Out
}

// updatesFrom has the machine update by itself, from a repository.
func (m *machine) updatesFrom(t *testing.T, s *site) {
	t.Helper()
	provider := api.SystemProviderConfig{Name: "images", Config: api.ProviderSettings{ServerURL: s.address, Root: string(s.root)}}
	must(t, m.osd().Provider().Put(t.Context(), provider, client.TryOptions{}))
	must(t, m.osd().Update().Put(t.Context(), api.SystemUpdateConfig{AutoReboot: true, CheckFrequency: "never"}, client.TryOptions{}))
}

// looks has the machine look for an update.
func (m *machine) looks(t *testing.T) {
	t.Helper()
	must(t, m.osd().CheckUpdates(t.Context(), api.UpdateCheck{}))
}

// restarts reports whether the machine restarts since it was turned on.
func (m *machine) restarts(t *testing.T) bool {
	t.Helper()
	b, err := os.ReadFile(m.log.Name())
	must(t, err)
	return strings.Contains(string(b[m.began:]), "level=INFO msg=Restarting")
}

// clusterState is what the machine says of the cluster.
func (m *machine) clusterState(t *testing.T) api.RollingState {
	t.Helper()
	var state *api.RollingState
	eventually(t, time.Minute, m.name+" to see the cluster", func() error {
		u, err := m.osd().Update().Get(t.Context())
		if state = u.State.Cluster; err == nil && state == nil {
			err = errNotYet
		}
		return err
	})
	return *state
}

// back expects the machine to run a version that is settled, and to have no turn.
func (m *machine) back(t *testing.T, version string) error {
	u, err := m.osd().Update().Get(t.Context())
	if err != nil {
		return err
	}
	server, err := m.osd().Server(t.Context())
	if err != nil {
		return err
	}
	s := u.State.Cluster
	if server.Environment.OSVersion != version || u.State.Phase != "" || s == nil || slices.ContainsFunc(s.Turns, func(r api.RollingTurn) bool { return r.Member == m.name }) {
		return fmt.Errorf("it runs %s, and its updates are %+v with the cluster %+v", server.Environment.OSVersion, u.State, s)
	}
	return nil
}

// members are the members by the Incus of the machine, with their status.
func (m *machine) members(ctx context.Context) (map[string]string, error) {
	var list []struct {
		Name   string `json:"server_name"`
		Status string `json:"status"`
	}
	_, err := m.door().Get(ctx, membersPath, &list)
	all := make(map[string]string)
	for _, one := range list {
		all[one.Name] = one.Status
	}
	return all, err
}

// status is what Incus says of the machine itself.
func (m *machine) status(t *testing.T) string {
	t.Helper()
	all, err := m.members(t.Context())
	must(t, err)
	return all[m.name]
}

// serves is nil if the Incus of the machine answers.
func (m *machine) serves(t *testing.T) error {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	var server any
	_, err := m.door().Get(ctx, "/1.0", &server)
	return err
}

// holds reports whether an instance is on the machine.
func (m *machine) holds(t *testing.T, name string) bool {
	t.Helper()
	var one struct {
		Location string `json:"location"`
	}
	_, err := m.door().Get(t.Context(), "/1.0/instances/"+name, &one)
	must(t, err)
	return one.Location == m.name
}

// A configuration is what is written down in a project.
type configuration struct {
	Config      map[string]string `json:"config"`
	Description string            `json:"description"`
}

func (m *machine) written(t *testing.T) (c configuration) {
	t.Helper()
	_, err := m.door().Get(t.Context(), project, &c)
	must(t, err)
	return c
}

func isChanged(err error) bool { return incus.Changed(err) }
