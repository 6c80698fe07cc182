package install_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/install"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/sys/systest"
)

func some() []sys.Disk {
	return []sys.Disk{
		{Name: "sda", Path: "/dev/sda", IDs: []string{"usb-stick"}, Bus: "usb", Size: 64e9},
		{Name: "sdb", Path: "/dev/sdb", IDs: []string{"ata-A", "wwn-1"}, Bus: "scsi", Size: 1000e9, Model: "A"},
		{Name: "sdc", Path: "/dev/sdc", IDs: []string{"ata-B"}, Bus: "scsi", Size: 2000e9},
		{Name: "sdd", Path: "/dev/sdd", IDs: []string{"usb-AMI_Virtual_HDisk0"}, Bus: "usb", Size: 64e9},
		{Name: "sde", Path: "/dev/sde", IDs: []string{"usb-locked"}, Bus: "usb", Size: 64e9, ReadOnly: true},
		{Name: "vda", Path: "/dev/vda", Bus: "virtio", Size: 64e9},
		{Name: "nvme0n1", Path: "/dev/nvme0n1", IDs: []string{"nvme-C"}, Bus: "nvme", Size: 2000e9},
	}
}

func TestSelect(t *testing.T) {
	tests := map[string]struct {
		want api.SeedInstallTarget
		disk string // or a part of the error
	}{
		"by bus":                       {api.SeedInstallTarget{Bus: "nvme"}, "nvme0n1"},
		"by part of a name":            {api.SeedInstallTarget{ID: "ata-B"}, "sdc"},
		"by a second name":             {api.SeedInstallTarget{ID: "wwn-"}, "sdb"},
		"by path":                      {api.SeedInstallTarget{ID: "/dev/sdc"}, "sdc"},
		"by a path of a name":          {api.SeedInstallTarget{ID: "/dev/disk/by-id/wwn-1"}, "sdb"},
		"by part of a path":            {api.SeedInstallTarget{ID: "/dev/sd"}, "no disk is what `target` in the install seed describes (id /dev/sd)"},
		"by size":                      {api.SeedInstallTarget{MinSize: "1500GB", Bus: "scsi"}, "sdc"},
		"by a size that is just right": {api.SeedInstallTarget{MinSize: "1TB", MaxSize: "1TB"}, "sdb"},
		"smallest":                     {api.SeedInstallTarget{SortOrder: "smallest"}, "sdb"},
		"largest of two":               {api.SeedInstallTarget{SortOrder: "largest"}, "sdc"},
		"two without an order":         {api.SeedInstallTarget{Bus: "scsi"}, "2 disks are what `target` in the install seed describes (bus scsi); set its `sort_order`"},
		"the medium itself":            {api.SeedInstallTarget{ID: "usb-stick"}, "no disk is what"},
		"a virtual medium":             {api.SeedInstallTarget{ID: "Virtual"}, "no disk is what"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			d, err := install.Select(some(), "sda", &tt.want)
			if err == nil && d.Name != tt.disk || err != nil && !strings.Contains(err.Error(), tt.disk) {
				t.Errorf("Select() = %q, %v; want %s", d.Name, err, tt.disk)
			}
		})
	}
}

func TestSelectWithoutADescription(t *testing.T) {
	_, err := install.Select(some(), "sda", nil)
	want := "there are 3 disks to install to; choose one by `target` in the install seed:" +
		"\n  id ata-A, size 1000.0 GB, bus scsi, model \"A\"" +
		"\n  id ata-B, size 2000.0 GB, bus scsi, model \"\"" +
		"\n  id nvme-C, size 2000.0 GB, bus nvme, model \"\""
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if d, err := install.Select(some()[:2], "sda", nil); err != nil || d.Name != "sdb" {
		t.Errorf("with one disk: %q, %v; want sdb", d.Name, err)
	}
	_, err = install.Select([]sys.Disk{some()[0], some()[5]}, "sda", nil)
	want = "there is no disk to install to\n  /dev/sda: is the medium this machine was booted from\n  /dev/vda: has no name in /dev/disk/by-id"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// TestSelectionHolds: whatever there is and is asked, the chosen disk is fit,
// fits the description, is the extreme of those that do, and does not depend on
// the order in which the kernel found the disks.
func TestSelectionHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		buses := []string{"nvme", "scsi", "usb"}
		n := rapid.IntRange(0, 6).Draw(t, "disks")
		var disks []sys.Disk
		for i := range n {
			bus := rapid.SampledFrom(buses).Draw(t, "bus")
			d := sys.Disk{Name: fmt.Sprint("d", i), Bus: bus, Size: rapid.Uint64Range(1, 4).Draw(t, "size") << 40, ReadOnly: rapid.Bool().Draw(t, "ro")}
			d.Path = "/dev/" + d.Name
			if rapid.Bool().Draw(t, "named") {
				d.IDs = []string{fmt.Sprint(bus, "-", i)}
			}
			disks = append(disks, d)
		}
		want := api.SeedInstallTarget{
			Bus:       rapid.SampledFrom(append(buses, "")).Draw(t, "want bus"),
			MinSize:   rapid.SampledFrom([]string{"", "2TiB"}).Draw(t, "min"),
			MaxSize:   rapid.SampledFrom([]string{"", "3TiB"}).Draw(t, "max"),
			SortOrder: rapid.SampledFrom([]string{"", "smallest", "largest"}).Draw(t, "order"),
		}
		fits := slices.DeleteFunc(slices.Clone(disks), func(d sys.Disk) bool {
			return d.Name == "d0" || d.ReadOnly || d.IDs == nil || want.Bus != "" && d.Bus != want.Bus ||
				want.MinSize != "" && d.Size < 2<<40 || want.MaxSize != "" && d.Size > 3<<40
		})
		got, err := install.Select(disks, "d0", &want)
		if ok := len(fits) == 1 || len(fits) > 1 && want.SortOrder != ""; ok != (err == nil) {
			t.Fatalf("of %d disks that fit: %v", len(fits), err)
		}
		if err != nil {
			return
		}
		if !slices.ContainsFunc(fits, func(d sys.Disk) bool { return d.Name == got.Name }) {
			t.Fatalf("%s does not fit", got.Name)
		}
		for _, d := range fits {
			if want.SortOrder == "smallest" && d.Size < got.Size || want.SortOrder == "largest" && d.Size > got.Size {
				t.Fatalf("%s would be better than %s", d.Name, got.Name)
			}
		}
		slices.Reverse(disks)
		if again, _ := install.Select(disks, "d0", &want); again.Name != got.Name {
			t.Fatalf("in another order: %s, not %s", again.Name, got.Name)
		}
	})
}

func TestWaitRemoved(t *testing.T) {
	files := systest.New(t, systest.Sensible()).Host.Files
	medium := sys.Disk{Path: "/dev/vda"}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := install.WaitRemoved(ctx, files, medium); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while the medium is there: %v, want that the deadline ended it", err)
	}
	done := make(chan error)
	go func() { done <- install.WaitRemoved(t.Context(), files, medium) }()
	if err := errors.Join(os.Remove(files.Path("/dev/tpmrm0")), os.Remove(files.Path("/dev/vda"))); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("when it was taken out: %v", err)
	}
}
