package storage_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/storage"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/sys/systest"
)

const (
	keyFile   = "/var/lib/incus-os/zpool.local.key"
	partition = "/dev/vda10"
	partuuid  = "/dev/disk/by-partuuid/0a0a0a0a-0000-4000-8000-000000000010"
)

func start(t *testing.T) (*systest.Rig, *systest.ZFS) {
	t.Helper()
	rig := systest.New(t, systest.Sensible())
	if err := rig.Host.Files.MkdirAll("/dev/disk/by-partuuid", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := rig.Host.Files.Symlink("../../vda10", partuuid); err != nil {
		t.Fatal(err)
	}
	return rig, systest.NewZFS(rig)
}

func TestFirstBoot(t *testing.T) {
	rig, zfs := start(t)
	if err := storage.New(rig.Host).Reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !zfs.Unlocked("local") {
		t.Error("pool local is not usable")
	}
	fi, err := rig.Host.Files.Stat(keyFile)
	if err != nil || fi.Mode() != 0o400 || fi.Size() != 32 {
		t.Errorf("key file: %v, %v; want 32 bytes, mode 0400", fi, err)
	}
	want := "zpool create -o ashift=12 -O mountpoint=none -O encryption=aes-256-gcm -O keyformat=raw " +
		"-O keylocation=file://" + keyFile + " -O compression=on -O atime=off local " + partuuid
	if !slices.Contains(rig.Programs.Ran(), want) {
		t.Errorf("ran:\n%s\nwant among it:\n%s", strings.Join(rig.Programs.Ran(), "\n"), want)
	}
}

func TestEveryLaterBootImportsAndUnlocks(t *testing.T) {
	rig, zfs := start(t)
	s := storage.New(rig.Host)
	for range 3 {
		if err := s.Reconcile(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !zfs.Unlocked("local") {
			t.Fatal("pool local is not usable")
		}
		if err := zfs.Reboot(); err != nil {
			t.Fatal(err)
		}
	}
	created := slices.DeleteFunc(rig.Programs.Ran(), func(line string) bool { return !strings.HasPrefix(line, "zpool create") })
	if len(created) != 1 {
		t.Errorf("the pool was created %d times, want once", len(created))
	}
}

// TestLeftAlone lists what must never be overwritten, and what the operator is
// told.
func TestLeftAlone(t *testing.T) {
	tests := map[string]struct {
		prepare func(*testing.T, *systest.Rig, *systest.ZFS)
		says    string
	}{
		"a foreign file system": {func(t *testing.T, rig *systest.Rig, _ *systest.ZFS) { scribble(t, rig) }, "data of another kind (ext4)"},
		"a foreign pool": {func(t *testing.T, _ *systest.Rig, z *systest.ZFS) {
			must(t, z.Make("tank", partition, false))
		}, "another ZFS pool, tank"},
		"half of a foreign pool": {func(t *testing.T, _ *systest.Rig, z *systest.ZFS) {
			must(t, z.Make("tank", partition, true))
		}, "part of another ZFS pool, tank"},
		"a damaged pool that was whole once": {func(t *testing.T, _ *systest.Rig, z *systest.ZFS) {
			must(t, z.Make("local", partition, true))
		}, "no whole pool"},
		"our pool without its key": {func(t *testing.T, _ *systest.Rig, z *systest.ZFS) {
			must(t, z.Make("local", partition, false))
		}, "its key " + keyFile + " is missing"},
		"our pool with another key": {func(t *testing.T, rig *systest.Rig, z *systest.ZFS) {
			must(t, rig.Host.Files.WriteFile(keyFile, make([]byte, 32), 0o400))
			must(t, z.Make("local", partition, false))
		}, "unlocking pool"},
		"half a key": {func(t *testing.T, rig *systest.Rig, _ *systest.ZFS) {
			must(t, rig.Host.Files.WriteFile(keyFile, make([]byte, 5), 0o400))
		}, "has 5 bytes"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			rig, zfs := start(t)
			tt.prepare(t, rig, zfs)
			before := head(t, rig)
			err := storage.New(rig.Host).Reconcile(t.Context())
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("Reconcile() = %v, want it to say %q", err, tt.says)
			}
			if head(t, rig) != before {
				t.Error("the partition was written to")
			}
		})
	}
}

func TestTornPoolIsMadeAgain(t *testing.T) {
	rig, zfs := start(t)
	rig.Programs.Fail("zpool create", errors.New("the power went"))
	s := storage.New(rig.Host)
	if err := s.Reconcile(t.Context()); err == nil {
		t.Fatal("Reconcile succeeded although the pool was not created")
	}
	must(t, zfs.Make("local", partition, true))
	rig.Programs.Fail("zpool create", nil)
	if err := s.Reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !zfs.Unlocked("local") {
		t.Error("pool local is not usable")
	}
}

func TestModuleThatIsStillLoadingIsWaitedFor(t *testing.T) {
	rig, zfs := start(t)
	must(t, rig.Host.Files.WriteFile("/sys/module/zfs/initstate", []byte("coming\n"), 0o444))
	must(t, storage.New(rig.Host).Reconcile(t.Context()))
	if ran := rig.Programs.Ran(); ran[0] != "modprobe zfs" || !zfs.Unlocked("local") {
		t.Errorf("ran %q first, pool usable %t; want modprobe to wait", ran[0], zfs.Unlocked("local"))
	}
}

func TestMissingPartition(t *testing.T) {
	m := systest.Sensible()
	m.Drives[0].Partitions = m.Drives[0].Partitions[:9]
	rig := systest.New(t, m)
	systest.NewZFS(rig)
	err := storage.New(rig.Host).Reconcile(t.Context())
	if err == nil || !strings.Contains(err.Error(), `/dev/vda has no partition labelled "local-data"`) {
		t.Errorf("Reconcile() = %v, want it to name drive and label", err)
	}
}

// TestConvergence cuts each effect once, boots again or not, applies again and
// expects a usable pool.
func TestConvergence(t *testing.T) {
	for _, reboot := range []bool{false, true} {
		for step := 1; ; step++ {
			rig, zfs := start(t)
			cut := &systest.Cutter{At: step}
			host := cut.Host(rig.Host)
			s := storage.New(host)
			err := s.Reconcile(t.Context())
			if cut.Over() {
				break
			}
			if err == nil {
				t.Fatalf("effect %d was cut and nobody noticed", step)
			}
			if reboot {
				must(t, zfs.Reboot())
			}
			if err := s.Reconcile(t.Context()); err != nil {
				t.Fatalf("after effect %d was cut: %v", step, err)
			}
			if p, err := s.Plan(t.Context()); err != nil || !p.Empty() || !zfs.Unlocked("local") {
				t.Fatalf("after effect %d was cut and applied again, to do: %v %s", step, err, p)
			}
		}
	}
}

func TestState(t *testing.T) {
	rig, _ := start(t)
	s := storage.New(rig.Host)
	if err := s.Reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := s.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := api.SystemStorageState{
		Drives: []api.StorageDrive{{
			ID: "/dev/disk/by-id/virtio-pretend0", SerialNumber: "pretend0", Bus: "virtio",
			Capacity: 64 << 30, Boot: true, MemberPool: "local",
		}},
		Pools: []api.StoragePool{{
			Name: "local", Type: "zfs-raid0", Devices: []string{"/dev/disk/by-id/virtio-pretend0-part10"},
			Managed: true, State: "ONLINE", EncryptionKeyStatus: "available",
			RawSize: 58 << 30, UsableSize: 56<<30 + 1<<20, Allocated: 1 << 20, Volumes: []api.PoolVolume{},
		}},
		RootPartition: api.RootPartition{Size: 25 << 30, Available: 20 << 30},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("state:\n%+v\nwant:\n%+v", got, want)
	}
}

func TestSickPoolIsReported(t *testing.T) {
	rig, _ := start(t)
	s := storage.New(rig.Host)
	must(t, s.Reconcile(t.Context()))
	rig.Programs.Model("zpool", func(context.Context, sys.Cmd) ([]byte, error) {
		return []byte(`{"pools":{"local":{"name":"local","state":"ONLINE"},"tank":{"name":"tank","state":"DEGRADED"}}}`), nil
	})
	err := s.Reconcile(t.Context())
	if err == nil || !strings.HasPrefix(err.Error(), `pool "tank" is DEGRADED; `) {
		t.Errorf("Reconcile() = %v, want it to name the pool and its state", err)
	}
}

func TestDriveNames(t *testing.T) {
	tests := map[string]struct {
		ids     []string
		id, wwn string // "": not shown
	}{
		"by what is printed on it": {[]string{"wwn-0x5000", "scsi-SDELL_1", "ata-WDC_1"}, "ata-WDC_1", "0x5000"},
		"by numbers alone":         {[]string{"nvme-eui.0025"}, "nvme-eui.0025", "eui.0025"},
		"without a lasting name":   {nil, "", ""},
		"an image over a network":  {[]string{"usb-AMI_Virtual_CDROM0_1"}, "", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			rig := systest.New(t, systest.Machine{Drives: []systest.Drive{{Name: "sda", Size: 1 << 30}}})
			must(t, rig.Host.Files.MkdirAll("/dev/disk/by-id", 0o755))
			for _, id := range tt.ids {
				must(t, rig.Host.Files.Symlink("../../sda", "/dev/disk/by-id/"+id))
			}
			st, err := storage.New(rig.Host).State(t.Context())
			must(t, err)
			var id, wwn string
			for _, d := range st.Drives {
				id, wwn = strings.TrimPrefix(d.ID, "/dev/disk/by-id/"), d.WWN
			}
			if id != tt.id || wwn != tt.wwn {
				t.Errorf("drive %q with WWN %q, want %q with %q", id, wwn, tt.id, tt.wwn)
			}
		})
	}
}

func TestStateWithoutZFS(t *testing.T) {
	rig, _ := start(t)
	got, err := storage.New(rig.Host).State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(got)
	if err != nil || !strings.Contains(string(b), `"pools":[]`) || len(got.Drives) != 1 {
		t.Errorf("state without the module: %s, %v; want one drive and an empty list of pools", b, err)
	}
}

// scribble puts something that is no pool on the partition.
func scribble(t *testing.T, rig *systest.Rig) {
	t.Helper()
	f, err := rig.Host.Files.OpenDevice(partition)
	must(t, err)
	_, err = f.WriteString("somebody's thesis")
	must(t, errors.Join(err, f.Close()))
}

func head(t *testing.T, rig *systest.Rig) string {
	t.Helper()
	f, err := os.Open(rig.Host.Files.Path(partition))
	must(t, err)
	defer f.Close()
	b := make([]byte, 4096)
	_, err = f.Read(b)
	must(t, err)
	return string(b)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
