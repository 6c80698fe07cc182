//go:build vm

package vm_test

import (
	"bytes"
	"io"
	"os"
	"path"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/diskfs/go-diskfs/filesystem"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/vm"
)

// TestUpdateIsRepaired damages, after an update, all that the boot partition and the
// other slot have of the version before, mends it over the API, and goes back to it.
// A machine that hangs then is started again by its watchdog.
func TestUpdateIsRepaired(t *testing.T) {
	s := newSite(t)
	before := s.version
	s.u.publishBuilt(t)
	s.u.release(t, change{})
	s.stage(t)
	s.restart(t)
	s.up(t)
	s.good(t)
	s.repairs(t, "Found no damage")
	if err := s.r.PowerOff(t.Context(), 20*time.Second); err != nil {
		t.Fatal(err)
	}
	damage(t, s.m, before)
	s.start()
	s.up(t)
	s.repairs(t, "Mended of version "+before+": the file system, the kernel")
	s.repairs(t, "Found no damage")
	if err := s.c.Post(within(t, s.r, time.Minute), "/os/1.0/system/update/:rollback", api.UpdateRollback{Reboot: true}, nil); err != nil {
		t.Fatal(err)
	}
	s.loads(t)
	s.up(t)
	if s.version != before {
		t.Fatalf("version %s is up, want the mended %s", s.version, before)
	}
	s.whole(t)
	t.Run("a machine that hangs is started again by its watchdog", func(t *testing.T) { s.hangs(t) })
}

// publishBuilt publishes the built image itself, which the machine was installed from.
func (r *releases) publishBuilt(t *testing.T) {
	t.Helper()
	run(t, r.work, r.incusos, "repo", "publish", "--keys", r.keys, "--image", r.image, "--channel", "stable", r.dir)
}

// repairs has the machine look for damage, and expects what it says then.
func (s *site) repairs(t *testing.T, want string) {
	t.Helper()
	began := time.Now()
	if err := s.c.Post(within(t, s.r, time.Minute), "/os/1.0/system/update/:repair", nil, nil); err != nil {
		t.Fatal(err)
	}
	reached(t, s.r, s.c, want, func(u api.SystemUpdateState) bool { return u.Status == want })
	t.Logf("%q after %v", want, time.Since(began).Round(time.Second))
}

// damage changes a block of the file system of a version, one of its tree, the signature
// and the kernel image.
func damage(t *testing.T, m *vm.Machine, version string) {
	t.Helper()
	disk := openDisk(t, m.Disk("disk"))
	for _, part := range []string{"", "_verity", "_verity_sig"} {
		at, _ := partition(t, disk, regexp.MustCompile("^IncusOS_"+version+part+"$"))
		flipBit(t, disk, at+4096+1)
	}
	onESP(t, m, func(fs filesystem.FileSystem) {
		entries, err := fs.ReadDir(linuxDir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if strings.Contains(e.Name(), version) {
				overwrite(t, fs, path.Join(linuxDir, e.Name()))
				return
			}
		}
		t.Fatalf("the kernel images are %v; want one of %s", entries, version)
	})
}

// overwrite changes a few bytes in the middle of a file.
func overwrite(t *testing.T, fs filesystem.FileSystem, name string) {
	t.Helper()
	f, err := fs.OpenFile(name, os.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Seek(size/2, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(bytes.Repeat([]byte{0xaa}, 64)); err != nil {
		t.Fatal(err)
	}
}

// hangs makes systemd crash, which then does nothing more, and waits for the machine to
// come up again.
func (s *site) hangs(t *testing.T) {
	t.Helper()
	began := time.Now()
	asRoot(t, s.r, s.c, "(sleep 3; kill -SEGV 1) >/dev/null 2>&1 &\n")
	if _, err := s.r.Console.Expect(t.Context(), 6*time.Minute, loading); err != nil {
		t.Fatal(err)
	}
	if after := time.Since(began); after < time.Minute {
		t.Errorf("the machine started again after %v; a watchdog waits for three minutes", after)
	}
	t.Logf("started again after %v", time.Since(began).Round(time.Second))
	s.up(t)
	s.whole(t)
}
