package daemon_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/client"
	"github.com/incusos/incusos/internal/daemon"
	"github.com/incusos/incusos/internal/sys/systest"
)

// A machine without network looks at what somebody plugged in, and believes it no
// more than a server.
func TestUpdatesFromAMedium(t *testing.T) {
	root, _, dir := repositoryIn(t, func(*http.Request) {})
	otherRoot, _, _ := repositoryIn(t, func(*http.Request) {})
	tests := map[string]struct {
		label, fstype, below, root string
		want, fail                 string
	}{
		"a partition":           {"/dev/disk/by-partlabel/RESCUE_DATA", "vfat", "update", root, `in channel "stable"`, ""},
		"a disc":                {"/dev/disk/by-label/RESCUE_DATA", "iso9660", "update", root, `in channel "stable"`, ""},
		"of somebody else":      {"/dev/disk/by-label/RESCUE_DATA", "vfat", "update", otherRoot, "cannot be accepted", "cannot be accepted"},
		"in another place":      {"/dev/disk/by-label/RESCUE_DATA", "vfat", "updates", root, `no copy of a repository in its directory "update"`, "no copy of a repository"},
		"another file system":   {"/dev/disk/by-label/RESCUE_DATA", "ext4", "update", root, "has neither a FAT nor an ISO 9660 file system", "neither a FAT nor"},
		"nothing is plugged in": {"/dev/disk/by-label/OTHER", "vfat", "update", root, "", "no repository is set"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			rig := machine(t)
			disks := systest.AddDiskTools(rig)
			if err := rig.Host.Files.WriteFile(tt.label, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			on, err := disks.FileSystem(tt.label, tt.fstype)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.CopyFS(filepath.Join(on, tt.below), os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			m := start(t, rig, func(*daemon.Options) {})
			m.waitFor("is ready")
			provider := api.SystemProviderConfig{Config: api.ProviderSettings{Root: tt.root}}
			if err := m.api.Provider().Put(t.Context(), provider, client.TryOptions{}); err != nil {
				t.Fatal(err)
			}
			err = m.api.CheckUpdates(t.Context(), api.UpdateCheck{OSOnly: true})
			if (err == nil) != (tt.fail == "") || err != nil && !strings.Contains(err.Error(), tt.fail) {
				t.Errorf("the check: %v, want %q", err, tt.fail)
			}
			doc, err := m.api.Update().Get(t.Context())
			if err != nil || !strings.Contains(doc.State.Status, tt.want) {
				t.Errorf("the status is %q (%v), want %q", doc.State.Status, err, tt.want)
			}
			if n := disks.Mounted(); n != 0 {
				t.Errorf("%d file systems are still mounted", n)
			}
			m.stop(nil)
		})
	}
}
