package daemon_test

import (
	"testing"

	"github.com/incusos/incusos/internal/console"
	"github.com/incusos/incusos/internal/daemon"
)

func TestTheNextStartRemovesWhatACutLeft(t *testing.T) {
	rig := machine(t)
	left := []string{"/var/lib/incus-os/.network.json.123", "/var/lib/incus-os-extensions/202601010000/.incus.raw.4", "/etc/.hostname.5"}
	for _, name := range append(left, "/etc/systemd/.mine") {
		if err := rig.Host.Files.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	daemon.Wire(rig.Host, console.New(rig.Host.Files), func() (daemon.First, error) { return daemon.First{}, nil })
	for _, name := range left {
		if rig.Host.Files.Exists(name) {
			t.Errorf("%s is still there", name)
		}
	}
	if !rig.Host.Files.Exists("/etc/systemd/.mine") {
		t.Error("a file of somebody else is gone")
	}
}
