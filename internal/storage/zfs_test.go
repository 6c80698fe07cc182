package storage

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/incusos/incusos/api"
)

// statusJSON has the shape of `zpool status -j --json-int` (OpenZFS 2.3) for a
// pool with two mirrors, one of them short of a disk, and a log.
const statusJSON = `{
  "output_version": {"command": "zpool status", "vers_major": 0, "vers_minor": 1},
  "pools": {"tank": {
    "name": "tank", "state": "DEGRADED", "pool_guid": 17068583395379267683, "txg": 2888298, "spa_version": 5000, "zpl_version": 5,
    "status": "One or more devices has been removed", "action": "Online the device",
    "scan_stats": {"function": "SCRUB", "state": "SCANNING", "start_time": 1767225600, "end_time": 0,
      "to_examine": 1000, "examined": 425, "skipped": 0, "processed": 0, "errors": 3, "scan_errors": 0},
    "vdevs": {"tank": {"name": "tank", "vdev_type": "root", "guid": 1, "class": "normal", "state": "DEGRADED",
      "alloc_space": 10, "total_space": 100, "def_space": 100, "read_errors": 0,
      "vdevs": {
        "mirror-0": {"name": "mirror-0", "vdev_type": "mirror", "state": "ONLINE", "vdevs": {
          "sda1": {"name": "sda1", "vdev_type": "disk", "path": "/dev/sda1", "state": "ONLINE"},
          "sdb1": {"name": "sdb1", "vdev_type": "disk", "path": "/dev/sdb1", "state": "ONLINE"}}},
        "mirror-1": {"name": "mirror-1", "vdev_type": "mirror", "state": "DEGRADED", "vdevs": {
          "sdc1": {"name": "sdc1", "vdev_type": "disk", "path": "/dev/sdc1", "state": "ONLINE"},
          "sdd1": {"name": "sdd1", "vdev_type": "disk", "path": "/dev/sdd1", "state": "REMOVED"}}}}}},
    "logs": {"sde1": {"name": "sde1", "vdev_type": "disk", "path": "/dev/sde1", "class": "log", "state": "ONLINE"}},
    "error_count": 0
  }}
}`

func TestTopology(t *testing.T) {
	var doc struct {
		Pools map[string]status `json:"pools"`
	}
	if err := json.Unmarshal([]byte(statusJSON), &doc); err != nil {
		t.Fatal(err)
	}
	p := api.StoragePool{Name: "tank"}
	(&Storage{}).topology(&p, doc.Pools["tank"], map[string]string{"sda1": "/dev/disk/by-id/ata-A-part1"})
	at := time.Unix(1767225600, 0).UTC()
	want := api.StoragePool{
		Name: "tank", Type: "zfs-raid10",
		Devices:         []string{"/dev/disk/by-id/ata-A-part1", "/dev/sdb1", "/dev/sdc1", "/dev/sdd1"},
		DevicesDegraded: []string{"/dev/sdd1"},
		Log:             []string{"/dev/sde1"},
		LastScrub:       &api.PoolScrub{State: "IN_PROGRESS", StartTime: at, EndTime: at, Progress: "42.50%", Errors: 3},
	}
	if !reflect.DeepEqual(p, want) {
		t.Errorf("got:\n%+v\nwant:\n%+v", p, want)
	}
}

func TestLayout(t *testing.T) {
	disk, mirror := vdev{Type: "disk"}, vdev{Type: "mirror"}
	tests := map[string]struct {
		root vdev
		want string
	}{
		"one disk":      {vdev{Vdevs: map[string]vdev{"a": disk}}, "zfs-raid0"},
		"one mirror":    {vdev{Vdevs: map[string]vdev{"mirror-0": mirror}}, "zfs-raid1"},
		"two mirrors":   {vdev{Vdevs: map[string]vdev{"mirror-0": mirror, "mirror-1": mirror}}, "zfs-raid10"},
		"double parity": {vdev{Vdevs: map[string]vdev{"raidz2-0": {Name: "raidz2-0", Type: "raidz"}}}, "zfs-raidz2"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := layout(tt.root); got != tt.want {
				t.Errorf("layout() = %q, want %q", got, tt.want)
			}
		})
	}
}

func TestCountIsStrictAboutTypes(t *testing.T) {
	tests := map[string]struct {
		in   string
		want count
		ok   bool
	}{
		"a number":            {"12", 12, true},
		"does not apply":      {`"-"`, 0, true},
		"no quota":            {`"none"`, 0, true},
		"a number in words":   {`"12"`, 0, false},
		"rounded for reading": {`"1.5G"`, 0, false},
		"negative":            {"-1", 0, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var c count
			if err := json.Unmarshal([]byte(tt.in), &c); (err == nil) != tt.ok || c != tt.want {
				t.Errorf("count of %s = %d, %v; want %d, valid %t", tt.in, c, err, tt.want, tt.ok)
			}
		})
	}
}
