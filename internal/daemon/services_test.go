package daemon_test

import (
	"io"
	"strings"
	"testing"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/apps"
	"github.com/incusos/incusos/internal/console"
	"github.com/incusos/incusos/internal/daemon"
	"github.com/incusos/incusos/internal/sys/systest"
)

// images are what a medium carries.
type images []string

func (s images) Applications() []apps.Image {
	var all []apps.Image
	for _, name := range s {
		all = append(all, apps.Image{Name: name, Version: "202601010000", Size: uint64(len(name))})
	}
	return all
}

func (s images) OpenApplication(name string) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(name)), nil
}

// TestServicesOfTheSeedBringTheirApplication: whoever enables iSCSI in a seed wants
// the disks, and need not know where the programs for that are.
func TestServicesOfTheSeedBringTheirApplication(t *testing.T) {
	rig := machine(t)
	sysext := systest.NewSysext(rig)
	incus := systest.NewIncus(rig)
	t.Cleanup(incus.Close)
	c := console.New(rig.Host.Files)
	t.Cleanup(c.Close)
	o := daemon.Wire(rig.Host, c, func() (daemon.First, error) {
		return daemon.First{
			Services: map[string]any{"iscsi": &api.ServiceISCSIConfig{ServiceConfig: api.ServiceConfig{Enabled: true}}, "ovn": &api.ServiceOVNConfig{}},
			Images:   images{"incus", "ovn", "storage"},
		}, nil
	})
	for _, area := range o.Areas {
		if area.Name() == "applications" {
			if err := area.Reconcile(t.Context()); err != nil && !strings.Contains(err.Error(), "pool") {
				t.Fatal(err)
			}
		}
	}
	if merged := sysext.Merged(); len(merged) != 2 || merged["incus"] == "" || merged["storage"] == "" {
		t.Errorf("merged are %v, want incus and storage", merged)
	}
}
