package storage_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"path"
	"strings"
	"testing"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/storage"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/sys/systest"
)

const (
	drive    = "/dev/disk/by-id/nvme-second"
	driveKey = "/var/lib/incus-os/luks.nvme-second.key"
	opened   = "/dev/mapper/luks-nvme-second"
)

// silent is told of progress and lets everything go on.
type silent struct{ phases []string }

func (s *silent) Phase(name string) error { s.phases = append(s.phases, name); return nil }
func (*silent) Amount(uint64, uint64)     {}

// twoDrives is a machine with a drive to spare, which has a partition.
func twoDrives(t *testing.T) (*systest.Rig, *systest.Drives, *storage.Storage) {
	t.Helper()
	m := systest.Sensible()
	m.Drives = append(m.Drives, systest.Drive{
		Name: "nvme0n1", ID: "nvme-second", Size: 5 << 30,
		Partitions: []systest.Partition{{Label: "old", Size: 1 << 30}},
	})
	rig := systest.New(t, m)
	systest.NewZFS(rig)
	return rig, systest.NewDrives(rig), storage.New(rig.Host)
}

// TestEncryptedDrive lets a drive be encrypted, found again at a start, and wiped.
func TestEncryptedDrive(t *testing.T) {
	rig, drives, s := twoDrives(t)
	files := rig.Host.Files
	must(t, s.CanEncrypt(t.Context(), api.StorageDriveWipe{ID: drive}))
	must(t, s.Encrypt(t.Context(), api.StorageDriveWipe{ID: drive}, &silent{}))
	fi, err := files.Stat(driveKey)
	if err != nil || fi.Mode() != 0o400 || fi.Size() != 32 {
		t.Errorf("key file: %v, %v; want 32 bytes, mode 0400", fi, err)
	}
	expectDrive(t, s, true)
	var conflict *api.Error
	if err := s.CanEncrypt(t.Context(), api.StorageDriveWipe{ID: drive}); !errors.As(err, &conflict) || conflict.Kind != api.Conflict {
		t.Errorf("encrypting it again: %v; want a conflict", err)
	}

	must(t, drives.Reboot())
	must(t, s.Reconcile(t.Context()))
	if !files.Exists(opened) {
		t.Fatal("the drive was not opened at the next start")
	}
	drives.Busy("luks-nvme-second", true)
	if err := s.Wipe(t.Context(), api.StorageDriveWipe{ID: drive}, &silent{}); err == nil || !strings.Contains(err.Error(), "something uses it") {
		t.Errorf("wiping a drive in use: %v", err)
	}
	if !files.Exists(driveKey) {
		t.Fatal("the key of a drive in use is lost")
	}
	drives.Busy("luks-nvme-second", false)
	must(t, s.Wipe(t.Context(), api.StorageDriveWipe{ID: drive}, &silent{}))
	if head, err := drives.Head(drive); err != nil || !bytes.Equal(head, make([]byte, len(head))) {
		t.Errorf("the wiped drive begins with %q, %v", head[:20], err)
	}
	if files.Exists(driveKey) || files.Exists(opened) {
		t.Error("the key is still there, or the drive still open")
	}
	expectDrive(t, s, false)
}

func expectDrive(t *testing.T, s *storage.Storage, encrypted bool) {
	t.Helper()
	state, err := s.State(t.Context())
	must(t, err)
	for _, d := range state.Drives {
		if d.ID != drive {
			continue
		}
		if d.Encrypted != encrypted || (d.EncryptedID == opened) != encrypted {
			t.Errorf("the drive is reported as %+v, want encrypted: %t", d, encrypted)
		}
		return
	}
	t.Errorf("drive %s is not reported", drive)
}

// TestDriveFromElsewhere takes a drive over with its key, and with no other.
func TestDriveFromElsewhere(t *testing.T) {
	rig, drives, s := twoDrives(t)
	must(t, s.Encrypt(t.Context(), api.StorageDriveWipe{ID: drive}, &silent{}))
	key, err := rig.Host.Files.ReadFile(driveKey)
	must(t, err)
	must(t, drives.Reboot())
	must(t, rig.Host.Files.Remove(driveKey)) // another machine

	other := base64.StdEncoding.EncodeToString(make([]byte, 32))
	for text, says := range map[string]string{
		"":                       "is no key of a drive; want 32 bytes in base64",
		other[:20]:               "is no key of a drive",
		other:                    "does not open the drive " + drive,
		"not base64 at all <<>>": "is no key of a drive",
	} {
		err := s.Import(t.Context(), api.StorageDriveImport{ID: drive, Key: api.Secret(text)})
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("key %q: %v; want %q", text, err, says)
		}
		if text != "" && err != nil && strings.Contains(err.Error(), text) {
			t.Error("the error repeats the key")
		}
	}
	entries, err := rig.Host.Files.ReadDir(path.Dir(driveKey))
	must(t, err)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "luks.") {
			t.Errorf("a refused key is kept as %s", e.Name())
		}
	}
	must(t, s.Import(t.Context(), api.StorageDriveImport{ID: drive, Key: api.Secret(base64.StdEncoding.EncodeToString(key))}))
	expectDrive(t, s, true)
}

// TestDriveThatIsGone complains of it, keeps nobody from the pool, and lets it be
// forgotten.
func TestDriveThatIsGone(t *testing.T) {
	rig, drives, s := twoDrives(t)
	must(t, s.Encrypt(t.Context(), api.StorageDriveWipe{ID: drive}, &silent{}))
	must(t, drives.Reboot())
	must(t, rig.Host.Files.Remove(drive))
	err := s.Reconcile(t.Context())
	if err == nil || !strings.Contains(err.Error(), "the encrypted drive "+drive+" is not there") {
		t.Errorf("Reconcile: %v", err)
	}
	if strings.Contains(err.Error(), "pool") {
		t.Errorf("the pool is no better: %v", err)
	}
	must(t, s.CanWipe(t.Context(), api.StorageDriveWipe{ID: drive}))
	must(t, s.Wipe(t.Context(), api.StorageDriveWipe{ID: drive}, &silent{}))
	must(t, s.Reconcile(t.Context()))
}

// TestDrivesThatAreNotSpare lists what is never wiped, and what the operator is told.
func TestDrivesThatAreNotSpare(t *testing.T) {
	tests := map[string]struct {
		id      string
		prepare func(sys.Dir) error
		says    string
	}{
		"the drive of the system": {"/dev/disk/by-id/virtio-pretend0", nil, "holds the system"},
		"no drive":                {"/dev/disk/by-id/nvme-third", nil, "there is no drive"},
		"a kernel name":           {"/dev/nvme0n1", nil, "is no name of a drive"},
		"a way out":               {"/dev/disk/by-id/../nvme0n1", nil, "there is no drive"},
		"a mounted partition": {drive, func(f sys.Dir) error {
			return f.WriteFile("/proc/self/mounts", []byte("/dev/nvme0n1p1 /mnt ext4 rw 0 0\n"), 0o644)
		}, "/dev/nvme0n1p1 is mounted at /mnt"},
		"a part of something else": {drive, func(f sys.Dir) error {
			return errors.Join(f.MkdirAll("/sys/block/nvme0n1/holders/dm-3", 0o755), f.MkdirAll("/sys/block/dm-3/dm", 0o755),
				f.WriteFile("/sys/block/dm-3/dm/name", []byte("shared-data\n"), 0o644))
		}, "the device shared-data is made of it"},
		"a drive that cannot be written": {drive, func(f sys.Dir) error {
			return f.WriteFile("/sys/block/nvme0n1/ro", []byte("1\n"), 0o644)
		}, "cannot be written to"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			rig, _, s := twoDrives(t)
			must(t, s.Reconcile(t.Context()))
			if tt.prepare != nil {
				must(t, tt.prepare(rig.Host.Files))
			}
			before := len(rig.Programs.Ran())
			w := api.StorageDriveWipe{ID: tt.id}
			for does, err := range map[string]error{
				"can wipe": s.CanWipe(t.Context(), w), "wipe": s.Wipe(t.Context(), w, &silent{}),
				"can encrypt": s.CanEncrypt(t.Context(), w), "encrypt": s.Encrypt(t.Context(), w, &silent{}),
				"import": s.Import(t.Context(), api.StorageDriveImport{ID: tt.id, Key: api.Secret(base64.StdEncoding.EncodeToString(make([]byte, 32)))}),
			} {
				if err == nil || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("%s: %v; want %q", does, err, tt.says)
				}
			}
			for _, line := range rig.Programs.Ran()[before:] {
				if !strings.HasPrefix(line, "zpool") && !strings.HasPrefix(line, "zfs") {
					t.Errorf("ran %q", line)
				}
			}
		})
	}
}

// TestSecureWipe overwrites every byte once, and stops when it is told to.
func TestSecureWipe(t *testing.T) {
	rig, _, s := twoDrives(t)
	must(t, s.Wipe(t.Context(), api.StorageDriveWipe{ID: drive, SecureWipe: true}, &silent{}))
	var parts int
	for _, line := range rig.Programs.Ran() {
		if strings.HasPrefix(line, "blkdiscard --force --zeroout") {
			parts++
		}
	}
	if parts != 5 {
		t.Errorf("%d parts were overwritten, want 5 of 1 GiB", parts)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err := s.Wipe(ctx, api.StorageDriveWipe{ID: drive, SecureWipe: true}, cancels(cancel))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a wipe that was cancelled: %v", err)
	}
}

type cancels func()

func (cancels) Phase(string) error      { return nil }
func (c cancels) Amount(uint64, uint64) { c() }

// TestEncryptionSurvivesCuts takes the power away after each change of files: a key
// that counts opens its drive, and doing it again comes to the end.
func TestEncryptionSurvivesCuts(t *testing.T) {
	for at := 1; ; at++ {
		rig, drives, _ := twoDrives(t)
		whole := rig.Host.Files
		steps := 0
		cut := errors.New("cut")
		rig.Host.Files = whole.WithFault(func(string, string) error {
			if steps++; steps >= at {
				return cut
			}
			return nil
		})
		err := storage.New(rig.Host).Encrypt(t.Context(), api.StorageDriveWipe{ID: drive}, &silent{})
		if err == nil {
			if at < 3 {
				t.Fatalf("there were %d steps only", at)
			}
			return
		}
		rig.Host.Files = whole
		must(t, drives.Reboot())
		s := storage.New(rig.Host)
		must(t, s.Reconcile(t.Context()))
		if whole.Exists(driveKey) != whole.Exists(opened) {
			t.Fatalf("cut at step %d: the key is kept: %t, and opens the drive: %t", at, whole.Exists(driveKey), whole.Exists(opened))
		}
		must(t, s.Encrypt(t.Context(), api.StorageDriveWipe{ID: drive}, &silent{}))
		expectDrive(t, s, true)
	}
}
