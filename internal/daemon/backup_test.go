package daemon_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/console"
	"github.com/incusos/incusos/internal/daemon"
)

// A document that package backup is not told of would be missing in every
// backup, and nobody would notice until it is needed.
func TestEveryDocumentIsInTheBackup(t *testing.T) {
	table, err := os.ReadFile("backup.go")
	if err != nil {
		t.Fatal(err)
	}
	sources, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	loaded := regexp.MustCompile(`\bload\[([\w.]+)\]\([^()]*"([^"]+)"\)`)
	for _, file := range sources {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range loaded.FindAllStringSubmatch(string(text), -1) {
			found++
			entry := regexp.MustCompile(regexp.QuoteMeta(`"`+m[2]+`":`) + ` +` + regexp.QuoteMeta(`loads[`+m[1]+`],`))
			if !entry.Match(table) {
				t.Errorf("%s loads the document %q, which backups would lack; add `%q: loads[%s]` to backup.go", file, m[2], m[2], m[1])
			}
		}
	}
	if found < 4 {
		t.Errorf("found only %d documents", found)
	}
	for _, file := range sources {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if calls := regexp.MustCompile(`[^ ]\bload\[|[=(,] load\[`).FindAll(text, -1); len(calls) != len(loaded.FindAll(text, -1)) {
			t.Errorf("%s loads a document whose name or type this test does not see; name it in the call", file)
		}
	}
}

// A factory reset writes the seed before it takes effect. If it was cut there,
// the machine is the old one, whatever that seed says.
func TestMachineThatIsSetUpTakesNothingFromItsSeed(t *testing.T) {
	for name, initialized := range map[string]string{"set up": "true", "not yet": "false"} {
		t.Run(name, func(t *testing.T) {
			rig := machine(t)
			if err := rig.Host.Files.WriteFile("/var/lib/incus-os/applications.json", []byte(`{"schema":1,"config":{"initialized":`+initialized+`}}`), 0o600); err != nil {
				t.Fatal(err)
			}
			daemon.Wire(rig.Host, console.New(rig.Host.Files), func() (daemon.First, error) {
				return daemon.First{Network: &api.NetworkConfig{DNS: api.NetworkDNS{Hostname: "other"}}}, nil
			})
			if saved := rig.Host.Files.Exists("/var/lib/incus-os/network.json"); saved != (initialized == "false") {
				t.Errorf("the seed's network was saved: %v", saved)
			}
		})
	}
}

// What was saved before a restore is back after a restart, and what could not be
// finished shows.
func TestRestore(t *testing.T) {
	rig := machine(t)
	const saved, later = `{"schema":1,"config":{"scrub_schedule":"0 4 * * 0"}}`, `{"schema":1,"config":{"scrub_schedule":""}}`
	write := func(content string) {
		t.Helper()
		if err := rig.Host.Files.WriteFile("/var/lib/incus-os/storage.json", []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(saved)
	m := start(t, rig, func(*daemon.Options) {})
	m.waitFor(readyLine)
	var archive bytes.Buffer
	if err := m.api.Backup(t.Context(), &archive); err != nil {
		t.Fatal(err)
	}
	write(`{"schema":1,"config":{"scrub_schedule":"at dawn"}}`)
	if err := m.api.Backup(t.Context(), io.Discard); err == nil || !strings.Contains(err.Error(), "storage.json of this machine is damaged") {
		t.Errorf("a backup of a document that is not valid: %v", err)
	}
	write(later)
	if err := m.api.Restore(t.Context(), bytes.NewReader(archive.Bytes())); err != nil {
		t.Fatal(err)
	}
	if err := m.api.Restore(t.Context(), bytes.NewReader(archive.Bytes()[:archive.Len()/2])); err == nil || !strings.Contains(err.Error(), "damaged or cut short") {
		t.Errorf("half a backup: %v", err)
	}
	m.stop(nil)

	m = start(t, rig, func(*daemon.Options) {})
	m.waitFor(readyLine)
	if s, err := m.api.Storage().Get(t.Context()); err != nil || s.Config.ScrubSchedule != "0 4 * * 0" {
		t.Errorf("the storage is %+v, %v, want the schedule that was backed up", s.Config, err)
	}
	if state, err := rig.Host.Units.State(t.Context(), "reboot.target"); err != nil || state != "active" {
		t.Errorf("the restart is %q, %v", state, err)
	}
	m.stop(nil)

	if err := rig.Host.Files.WriteFile("/var/lib/incus-os.restore/list", []byte("oops"), 0o600); err != nil {
		t.Fatal(err)
	}
	m = start(t, rig, func(*daemon.Options) {})
	m.waitFor("is degraded: restore: finishing the restore of a backup: ")
	m.stop(nil)
}
