package install_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/install"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/sys/systest"
)

const (
	sigType    = "E7BB33FB-06CF-4E81-8273-E543B413E2E2"
	verityType = "77FF5F63-E7B6-4633-ACF4-1565B864C0E6"
	usrType    = "8484680C-9521-48C6-9C11-B0720656F69E"

	medium = `label: gpt
size=32MiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name="esp"
size=1MiB, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name="seed-data"
size=16KiB, type=` + sigType + `, name="IncusOS_1_verity_sig", uuid=AAAAAAAA-0000-0000-0000-000000000001
size=2MiB, type=` + verityType + `, name="IncusOS_1_verity", uuid=AAAAAAAA-0000-0000-0000-000000000002, attrs="GUID:60"
size=8MiB, type=` + usrType + `, name="IncusOS_1", uuid=AAAAAAAA-0000-0000-0000-000000000003, attrs="GUID:60"
`
	usedOfUsr = 5 << 20
	variable  = "/sys/firmware/efi/efivars/IncusOSInstallComplete-12f075e0-2d07-493d-811a-00920a72c04c"
)

// A bench is a machine started from an install medium, with one empty disk.
type bench struct {
	*systest.Rig
	disks *systest.DiskTools
}

func newBench(t *testing.T, extra ...systest.Drive) bench {
	t.Helper()
	m := systest.Sensible()
	m.Drives = append([]systest.Drive{
		{Name: "sda", ID: "usb-stick", Bus: "usb", Model: "Stick", Size: 4e9, Removable: true},
		{Name: "nvme0n1", ID: "nvme-disk", Model: "Disk", Size: 32e9},
	}, extra...)
	b := bench{Rig: systest.New(t, m)}
	b.disks = systest.AddDiskTools(b.Rig)
	c := sys.Command("sfdisk", "/dev/sda")
	c.Stdin = strings.NewReader(medium)
	if _, err := b.Host.Exec.Run(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	b.fill(t)
	return b
}

// fill gives the medium its contents, and the places where the new partitions
// will lie the rubbish of former times.
func (b bench) fill(t *testing.T) {
	t.Helper()
	random := rand.NewChaCha8([32]byte{})
	usr := make([]byte, usedOfUsr)
	verity, sig := make([]byte, 2<<20), []byte(`{"rootHash":"00"}`)
	_, _ = random.Read(usr)
	_, _ = random.Read(verity)
	copy(usr[1024:], "\xe2\xe1\xf5\xe0")
	usr[1024+12] = 12
	binary.LittleEndian.PutUint32(usr[1024+36:], usedOfUsr>>12)
	b.write(t, "/dev/sda3", sig)
	b.write(t, "/dev/sda4", verity)
	b.write(t, "/dev/sda5", usr)
	for n := range 8 {
		rubbish := bytes.Repeat([]byte("old"), 3<<10)
		if n == 4 { // behind the file system of usr, where the hash tree has zeros
			rubbish = bytes.Repeat([]byte("old"), 3<<20)
		}
		if err := os.WriteFile(b.Host.Files.Path(fmt.Sprintf("/dev/nvme0n1p%d", n+1)), rubbish, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	dir, err := b.disks.FileSystem("/dev/sda1", "vfat")
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range espFiles() {
		name = filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
}

func espFiles() map[string]string {
	return map[string]string{
		"EFI/BOOT/BOOTX64.EFI":         "boot loader",
		"EFI/Linux/IncusOS_1+3-0.efi":  "kernel",
		"loader/loader.conf":           "secure-boot-enroll force",
		"loader/keys/auto/PK.auth":     "key",
		"loader/random-seed":           "not for everybody",
		"loader/entries/a+1.conf":      "entry",
		"EFI/systemd/systemd-boot.efi": "boot loader",
	}
}

func (b bench) write(t *testing.T, device string, content []byte) {
	t.Helper()
	f, err := b.Host.Files.OpenDevice(device)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(content)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

func (b bench) disk(t *testing.T, name string) sys.Disk {
	t.Helper()
	disks, err := sys.Disks(b.Host.Files)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range disks {
		if d.Name == name {
			return d
		}
	}
	t.Fatalf("there is no disk %s", name)
	return sys.Disk{}
}

func (b bench) request(t *testing.T) install.Request {
	return install.Request{
		Source:    b.disk(t, "sda"),
		WriteSeed: func(w io.Writer) error { _, err := io.WriteString(w, "the seed"); return err },
	}
}

// run installs as the host of b is.
func (b bench) run(t *testing.T) error {
	_, err := install.Run(t.Context(), b.Host, b.request(t))
	return err
}

// check compares the target with what an install makes of it.
func (b bench) check(t *testing.T) {
	t.Helper()
	var got strings.Builder
	for _, e := range b.disks.Table("nvme0n1") {
		fmt.Fprintf(&got, "%s %d %s %s\n", e.Name, e.Size, e.Type[:8], e.Attrs)
	}
	const want = `esp 1048576 C12A7328 
seed-data 1048576 0FC63DAF 
IncusOS_1_verity_sig 32 E7BB33FB 
IncusOS_1_verity 32768 77FF5F63 GUID:60
IncusOS_1 2097152 8484680C GUID:60
_empty 32 E7BB33FB 
_empty 32768 77FF5F63 GUID:63
_empty 2097152 8484680C GUID:63
`
	if got.String() != want {
		t.Errorf("partitions:\n%swant:\n%s", &got, want)
	}
	for n := 3; n <= 5; n++ {
		from, to := b.read(t, fmt.Sprintf("/dev/sda%d", n), 8<<20), b.read(t, fmt.Sprintf("/dev/nvme0n1p%d", n), 8<<20)
		if !bytes.HasPrefix(to, from) {
			t.Errorf("partition %d is not what the medium has", n)
		}
	}
	if seed := b.read(t, "/dev/nvme0n1p2", 1<<20); strings.TrimRight(string(seed), "\x00") != "the seed" {
		t.Errorf("the seed begins %q", seed[:20])
	}
	if v, err := b.Host.Files.ReadFile(variable); err != nil || string(v) != "\x07\x00\x00\x00\x00\x00\x00\x00" {
		t.Errorf("the EFI variable is %q, %v", v, err)
	}
	b.checkESP(t)
	if n := b.disks.Mounted(); n != 0 {
		t.Errorf("%d mounts are left", n)
	}
}

func (b bench) checkESP(t *testing.T) {
	t.Helper()
	want := espFiles()
	want["EFI/Linux/IncusOS_1.efi"] = want["EFI/Linux/IncusOS_1+3-0.efi"]
	delete(want, "EFI/Linux/IncusOS_1+3-0.efi")
	delete(want, "loader/random-seed")
	dir := b.disks.Content("/dev/nvme0n1p1")
	for name, content := range want {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != content {
			t.Errorf("ESP: %s is %q, %v; want %q", name, got, err, content)
		}
	}
	n := 0
	_ = filepath.WalkDir(dir, func(_ string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			n++
		}
		return err
	})
	if n != len(want) {
		t.Errorf("ESP: %d files, want %d", n, len(want))
	}
}

// read returns up to n bytes of a device.
func (b bench) read(t *testing.T, device string, n int64) []byte {
	t.Helper()
	f, err := b.Host.Files.Open(device)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := io.ReadAll(io.LimitReader(f, n))
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestInstall(t *testing.T) {
	b := newBench(t)
	r := b.request(t)
	last := make(map[string][2]uint64)
	r.Progress = func(phase string, done, total uint64) { last[phase] = [2]uint64{done, total} }
	target, err := install.Run(t.Context(), b.Host, r)
	if err != nil || target.Name != "nvme0n1" {
		t.Fatalf("Run() = %q, %v; want nvme0n1", target.Name, err)
	}
	b.check(t)
	if got, want := last["copying IncusOS_1"], [2]uint64{usedOfUsr, usedOfUsr}; got != want {
		t.Errorf("progress of usr ended at %d, want %d", got, want)
	}
}

func TestInstallIsRefused(t *testing.T) {
	tests := map[string]struct {
		prepare func(t *testing.T, b bench)
		seed    api.SeedInstall
		want    string // "" means it installs
	}{
		"data on the disk": {func(t *testing.T, b bench) { b.write(t, "/dev/nvme0n1", []byte("XFSB")) }, api.SeedInstall{},
			"nvme-disk holds data (an XFS file system); set `force_install: true`"},
		"data, forced": {func(t *testing.T, b bench) { b.write(t, "/dev/nvme0n1", []byte("XFSB")) }, api.SeedInstall{ForceInstall: true}, ""},
		"a medium left in": {func(t *testing.T, b bench) { put(t, b, variable, "\x07\x00\x00\x00\x00\x00\x00\x00") }, api.SeedInstall{},
			"this machine is already installed; remove the install medium"},
		"a medium left in, forced": {func(t *testing.T, b bench) { put(t, b, variable, "\x07\x00\x00\x00\x00\x00\x00\x00") }, api.SeedInstall{ForceInstall: true}, ""},
		"little memory": {func(t *testing.T, b bench) { put(t, b, "/proc/meminfo", "MemTotal:  1048576 kB\n") }, api.SeedInstall{},
			"the machine has 1024 MiB of memory; want 2048 MiB"},
		"just enough memory": {func(t *testing.T, b bench) { put(t, b, "/proc/meminfo", "MemTotal:  1900000 kB\n") }, api.SeedInstall{}, ""},
		"a small disk": {func(t *testing.T, b bench) { put(t, b, "/sys/block/nvme0n1/size", "31249999\n") }, api.SeedInstall{},
			"nvme-disk has 16.0 GB; want 16.0 GB or more"},
		"no such disk": {func(*testing.T, bench) {}, api.SeedInstall{Target: &api.SeedInstallTarget{Bus: "mmc"}},
			"no disk is what `target` in the install seed describes (bus mmc); there are:\n  id nvme-disk, size 32.0 GB, bus nvme, model \"Disk\""},
		"a medium without seed": {func(t *testing.T, b bench) { relabel(t, b, "2", "data") }, api.SeedInstall{},
			"reading the install medium /dev/sda: it has no partition named seed-data"},
		"a medium without slot": {func(t *testing.T, b bench) { relabel(t, b, "5", "_empty") }, api.SeedInstall{}, "it has 0 partitions of type usr; want 1"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			tt.prepare(t, b)
			r := b.request(t)
			r.Seed = tt.seed
			_, err := install.Run(t.Context(), b.Host, r)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("Run() = %v, want %q", err, tt.want)
			}
			if err != nil && len(b.disks.Table("nvme0n1")) > 0 {
				t.Error("it was refused after the disk was partitioned")
			}
		})
	}
}

func put(t *testing.T, b bench, name, content string) {
	t.Helper()
	if err := os.WriteFile(b.Host.Files.Path(name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func relabel(t *testing.T, b bench, number, label string) {
	t.Helper()
	if _, err := b.Host.Exec.Run(t.Context(), sys.Command("sfdisk", "--part-label", "/dev/sda", number, label)); err != nil {
		t.Fatal(err)
	}
}

func TestSeedThatDoesNotFit(t *testing.T) {
	b := newBench(t)
	r := b.request(t)
	r.WriteSeed = func(w io.Writer) error {
		_, err := w.Write(make([]byte, 512<<20+1))
		return err
	}
	_, err := install.Run(t.Context(), b.Host, r)
	if err == nil || !strings.HasSuffix(err.Error(), "want at most 512 MiB of documents and extension images") {
		t.Errorf("Run() = %v", err)
	}
	if err := b.run(t); err != nil {
		t.Errorf("afterwards, with a seed that fits: %v", err)
	}
	b.check(t)
}

func TestCancelledAnywhereInstallsAgain(t *testing.T) {
	for at := 1; ; at++ {
		b := newBench(t)
		ctx, cancel := context.WithCancel(t.Context())
		r, n := b.request(t), 0
		r.Progress = func(string, uint64, uint64) {
			if n++; n == at {
				cancel()
			}
		}
		_, err := install.Run(ctx, b.Host, r)
		cancel()
		if n < at {
			if err != nil || at < 8 {
				t.Errorf("only %d reports of progress, %v", n, err)
			}
			return
		}
		if err != nil {
			if err := b.run(t); err != nil {
				t.Fatalf("cancelled at report %d, then again: %v", at, err)
			}
		}
		b.check(t)
	}
}

// A disk with a system that somebody uses is not destroyed by a seed that was made
// for another machine, nor by a medium that was left in.
func TestASystemIsDestroyedOnlyIfItIsNamed(t *testing.T) {
	tests := map[string]struct {
		holds, given string
		want         string // in the error; "" for none
	}{
		"nobody's system":        {"", "", ""},
		"a system, not named":    {"a1b2c3", "", "set `force_install_confirmation: \"a1b2c3\"` beside `force_install`"},
		"a system, named":        {"a1b2c3", "a1b2c3", ""},
		"another system, named":  {"a1b2c3", "d4e5f6", "begins with a1b2c3, and not the one that `force_install_confirmation` in the install seed says, d4e5f6"},
		"nobody's system, named": {"", "d4e5f6", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			r := b.request(t)
			r.Seed = api.SeedInstall{ForceInstall: true, ForceInstallConfirmation: tt.given}
			r.Holds = func(d sys.Disk) (string, error) {
				if d.Name != "nvme0n1" {
					t.Errorf("asked about %s", d.Name)
				}
				return tt.holds, nil
			}
			_, err := install.Run(t.Context(), b.Host, r)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Run() = %v, want %q", err, tt.want)
			}
			if untouched := len(b.disks.Table("nvme0n1")) == 0; untouched != (tt.want != "") {
				t.Errorf("the disk is untouched: %v", untouched)
			}
		})
	}
}
