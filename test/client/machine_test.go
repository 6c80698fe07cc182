//go:build vm

package client_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/client"
	"github.com/incusos/incusos/internal/image"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/vm"
	"github.com/incusos/incusos/test/debian"
)

// patience is for what hangs.
const patience = time.Minute

// A machine is a pretend machine whose daemon is asked through a real Incus.
type machine struct {
	dir      string // holds root, the machine's tree, and what incus keeps
	programs string // directory with incus-osd
	tree     debian.Tree

	osd   sys.Process
	log   *os.File       // of incus-osd
	seen  map[string]int // how often it said what was waited for
	incus *debian.Server
}

// start makes a machine and waits until both daemons answer.
func start(t *testing.T) *machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("only root can run Debian's incusd in namespaces of its own; run the tests with the tag vm as root")
	}
	m := &machine{dir: t.TempDir(), programs: t.TempDir(), seen: make(map[string]int)}
	m.tree = openTree(t)
	m.run(t, "go", "build", "-o", m.programs, "../../cmd/incus-osd")
	for _, dir := range []string{"os", "var", "files"} {
		must(t, os.Mkdir(m.path(dir), 0o755))
	}
	must(t, m.images())
	var err error
	m.log, err = os.Create(m.path("incus-osd.log"))
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("incus-osd:\n%s", tail(m.said(t)))
		}
		must(t, m.log.Close())
	})
	m.startOSD(t)
	t.Cleanup(func() { m.stopOSD(t) })
	m.startIncus(t)
	return m
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

// images are what the machine can install: an older Incus, and something else.
func (m *machine) images() error {
	store := m.path("root/var/lib/incus-os-extensions")
	older, same := filepath.Join(store, "202512010000"), filepath.Join(store, "202601010000")
	return errors.Join(
		os.MkdirAll(older, 0o755), os.MkdirAll(same, 0o755),
		os.WriteFile(filepath.Join(older, "incus.raw"), []byte("an older Incus"), 0o600),
		os.WriteFile(filepath.Join(same, "incus.raw"), []byte("Incus"), 0o600),
		os.WriteFile(filepath.Join(same, "debug.raw"), []byte("tools"), 0o600),
	)
}

func (m *machine) path(name string) string { return filepath.Join(m.dir, name) }

func (m *machine) run(t *testing.T, name string, args ...string) {
	t.Helper()
	_, err := sys.Real().Exec.Run(t.Context(), sys.Command(name, args...))
	must(t, err)
}

func (m *machine) startOSD(t *testing.T) {
	t.Helper()
	c := sys.Command(filepath.Join(m.programs, "incus-osd"), "--root", m.path("root"), "--pretend", "--socket", m.path("os/unix.socket"))
	c.Stdout, c.Stderr = m.log, m.log
	var err error
	m.osd, err = sys.Real().Exec.Start(context.WithoutCancel(t.Context()), c)
	must(t, err)
	osd := client.New(m.path("os/unix.socket"))
	eventually(t, "incus-osd to be ready", func() error {
		server, err := osd.Server(t.Context())
		if err == nil && !server.Environment.SystemIsReady {
			err = errors.New("it is not ready")
		}
		return err
	})
}

// stopOSD expects the daemon to end well.
func (m *machine) stopOSD(t *testing.T) {
	t.Helper()
	must(t, m.osd.Signal(os.Interrupt))
	if err := m.osd.Wait(); err != nil {
		t.Errorf("incus-osd: %v", err)
	}
}

// tail is the end of a log.
func tail(text string) string {
	lines := strings.SplitAfter(text, "\n")
	return strings.Join(lines[max(0, len(lines)-40):], "")
}

// waitSaid waits until the daemon has said something once more.
func (m *machine) waitSaid(t *testing.T, words string) {
	t.Helper()
	m.seen[words]++
	eventually(t, "the machine to say "+words, func() error {
		if strings.Count(m.said(t), words) < m.seen[words] {
			return errors.New("it does not")
		}
		return nil
	})
}

// idle waits until no task is at work.
func (m *machine) idle(t *testing.T) {
	t.Helper()
	osd := client.New(m.path("os/unix.socket"))
	eventually(t, "tasks to end", func() error {
		tasks, err := osd.Tasks(t.Context())
		for _, one := range tasks {
			if one.Status == api.TaskFailed {
				t.Fatalf("task %q failed: %s", one.Description, one.Error)
			}
			if one.Status != api.TaskDone {
				err = fmt.Errorf("%s: %s", one.Description, one.Status)
			}
		}
		return err
	})
}

func (m *machine) said(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(m.log.Name())
	must(t, err)
	return string(b)
}

// startIncus starts the server in namespaces of its own, and waits until it answers.
func (m *machine) startIncus(t *testing.T) {
	t.Helper()
	log, err := os.Create(m.path("incusd.log"))
	must(t, err)
	m.incus = &debian.Server{Tree: m.tree, Dir: m.dir, Log: log}
	must(t, m.incus.Start(t.Context()))
	t.Cleanup(func() {
		must(t, m.incus.Kill())
		if text, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("incusd:\n%s", tail(string(text)))
		}
		must(t, log.Close())
	})
	eventually(t, "incusd to answer", func() error {
		_, err = m.person(m.path("local")).Command(t.Context(), "query", "/1.0")
		return err
	})
}

// person is somebody beside the server.
func (m *machine) person(conf string) debian.Client {
	return debian.Client{
		Tree: m.tree, Dir: m.path("files"), Conf: conf, Socket: m.incus.Socket(), Inside: m.incus.Inside(),
	}
}

// identity is a new certificate, in a directory that a client takes.
func (m *machine) identity(t *testing.T, name string) vm.Identity {
	t.Helper()
	id, err := vm.OpenIdentity(m.path(name))
	must(t, err)
	return id
}

// operator is somebody whom Incus trusts, and who reaches it by HTTPS alone.
func (m *machine) operator(t *testing.T) debian.Client {
	t.Helper()
	const address = "127.0.0.1:8443" // of the server's own network
	id := m.identity(t, "operator")
	for _, args := range [][]string{{"config", "set", "core.https_address=" + address}, {"config", "trust", "add-certificate", id.Certificate()}} {
		_, err := m.person(m.path("local")).Command(t.Context(), args...)
		must(t, err)
	}
	c := m.person(id.Dir)
	c.Socket = ""
	must(t, c.Join(t.Context(), "https://"+address))
	return c
}

func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
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
