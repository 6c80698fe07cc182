package provision_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/incusos/incusos/internal/provision"
	"github.com/incusos/incusos/internal/seed"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/sys/systest"
)

const medium = `label: gpt
size=32MiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name="esp"
size=1MiB, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name="seed-data"
size=16KiB, type=E7BB33FB-06CF-4E81-8273-E543B413E2E2, name="IncusOS_1_verity_sig"
size=2MiB, type=77FF5F63-E7B6-4633-ACF4-1565B864C0E6, name="IncusOS_1_verity"
size=8MiB, type=8484680C-9521-48C6-9C11-B0720656F69E, name="IncusOS_1"
`

// A bench is a machine started from an install medium with a seed, with one
// empty disk. It is the screen too.
type bench struct {
	*systest.Rig
	disks     *systest.DiskTools
	pinned    bool // what a machine without its medium needs is in memory
	said      []string
	warned    string // a title and lines
	warnedFor time.Duration
	heard     func(text string) // called for what is said
}

// Pin implements sys.Power, as does Restart.
func (b *bench) Pin() error {
	b.pinned = true
	return b.Power.Pin()
}

func (b *bench) Restart() error { return b.Power.Restart() }

func (b *bench) Say(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	b.said = append(b.said, text)
	if b.heard != nil {
		b.heard(text)
	}
}

func (b *bench) Warn(_ context.Context, d time.Duration, title string, lines ...string) error {
	b.warned, b.warnedFor = strings.Join(append([]string{title}, lines...), "\n"), d
	return nil
}

func (b *bench) Progress(phase string, _, _ uint64) {
	if len(b.said) == 0 || b.said[len(b.said)-1] != phase {
		b.said = append(b.said, phase)
	}
}

func newBench(t *testing.T, seed map[string]string) *bench {
	t.Helper()
	return newBenchOf(t, systest.Sensible(), seed)
}

func newBenchOf(t *testing.T, m systest.Machine, seed map[string]string) *bench {
	t.Helper()
	m.Drives = []systest.Drive{
		{Name: "sda", ID: "usb-stick", Bus: "usb", Size: 4e9, Removable: true},
		{Name: "nvme0n1", ID: "nvme-disk", Size: 32e9},
	}
	b := &bench{Rig: systest.New(t, m)}
	b.disks = systest.AddDiskTools(b.Rig)
	b.Host.Power = b
	c := sys.Command("sfdisk", "/dev/sda")
	c.Stdin = strings.NewReader(medium)
	_, err := b.Host.Exec.Run(t.Context(), c)
	must(t, err)
	b.bootFrom(t, b.disks.Table("sda")[0].UUID)
	b.fill(t)
	if seed != nil {
		must(t, systest.WriteSeed(b.Host.Files, seed))
	}
	return b
}

func (b *bench) bootFrom(t *testing.T, uuid string) {
	t.Helper()
	value := []byte{6, 0, 0, 0}
	for _, c := range uuid + "\x00" {
		value = append(value, byte(c), 0)
	}
	must(t, b.Host.Files.WriteFile("/sys/firmware/efi/efivars/LoaderDevicePartUUID-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f", value, 0o644))
}

// fill gives the medium a boot loader and the superblock of an erofs.
func (b *bench) fill(t *testing.T) {
	t.Helper()
	dir, err := b.disks.FileSystem("/dev/sda1", "vfat")
	must(t, err)
	for _, name := range []string{"EFI/BOOT/BOOTX64.EFI", "EFI/Linux/IncusOS_1+3-0.efi", "loader/loader.conf"} {
		name = filepath.Join(dir, name)
		must(t, errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte("content"), 0o600)))
	}
	super := make([]byte, 64)
	copy(super, "\xe2\xe1\xf5\xe0")
	super[12] = 12
	binary.LittleEndian.PutUint32(super[36:], 1<<20>>12)
	f, err := b.Host.Files.OpenDevice("/dev/sda5")
	must(t, err)
	_, err = f.WriteAt(super, 1024)
	must(t, errors.Join(err, f.Close()))
}

// untouched fails the test if anything was written to the disk.
func (b *bench) untouched(t *testing.T) {
	t.Helper()
	if table := b.disks.Table("nvme0n1"); len(table) != 0 {
		t.Errorf("the disk was partitioned: %+v", table)
	}
	if b.Power.Restarts() != 0 {
		t.Error("the machine was started again")
	}
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const done = "install: done on /dev/nvme0n1; remove the medium"

func TestInstallWaitsForTheMediumToBeRemoved(t *testing.T) {
	b := newBench(t, map[string]string{"install.yaml": "", "network.yaml": "dns: {hostname: node1}\n", "operations-center.yaml": "channel: stable\n"})
	b.heard = func(text string) {
		if text != done {
			return
		}
		if n := b.Power.Restarts(); n != 0 || !b.pinned {
			t.Errorf("when it may be removed: %d restarts, what is needed without the medium in memory: %v; want none, true", n, b.pinned)
		}
		must(t, b.Host.Files.Remove("/dev/sda"))
	}
	must(t, provision.Install(t.Context(), b.Host, b))
	if end := b.said[len(b.said)-2:]; end[0] != done || end[1] != "install: starting the installed system" {
		t.Errorf("said %q at the end", end)
	}
	if !slices.ContainsFunc(b.said, func(s string) bool { return strings.HasPrefix(s, "install: partitioning") }) {
		t.Errorf("said %q, want the progress of the phases", b.said)
	}
	if n := b.Power.Restarts(); n != 1 {
		t.Errorf("the machine was started again %d times, want once", n)
	}
	if label := b.disks.Table("nvme0n1")[0].Name; label != "esp" {
		t.Errorf("the first partition is named %q, want a complete install", label)
	}

	// The installed system, started from its own disk, finds the rest of the seed.
	b.bootFrom(t, b.disks.Table("nvme0n1")[0].UUID)
	first, err := provision.Read(b.Host)
	must(t, err)
	if first.Network == nil || first.Network.DNS.Hostname != "node1" || !slices.Equal(first.Unused, []string{"operations-center"}) || first.Images.Has("install") {
		t.Errorf("Read() = %+v, want the network, the unused operations-center and no install", first)
	}
}

func TestForcedRebootWaitsForNobody(t *testing.T) {
	b := newBench(t, map[string]string{"install.yaml": "force_reboot: true\n"})
	must(t, provision.Install(t.Context(), b.Host, b))
	if n := b.Power.Restarts(); n != 1 || !b.Host.Files.Exists("/dev/sda") {
		t.Errorf("the machine was started again %d times, want once with the medium left in", n)
	}
}

func TestMediumLeftInKeepsTheMachineFromStartingAgain(t *testing.T) {
	b := newBench(t, map[string]string{"install.yaml": ""})
	ctx, cancel := context.WithCancel(t.Context())
	b.heard = func(text string) {
		if text == done {
			cancel()
		}
	}
	if err := provision.Install(ctx, b.Host, b); !errors.Is(err, context.Canceled) {
		t.Errorf("Install() = %v, want that it was told to stop", err)
	}
	if b.Power.Restarts() != 0 {
		t.Error("the machine was started again with the medium in it")
	}
}

// What is wrong in a section for the installed machine could not be corrected
// there.
func TestInstallRefusesBeforeAnythingIsWritten(t *testing.T) {
	tests := map[string]struct {
		seed map[string]string
		want string
	}{
		"an install section that is wrong": {map[string]string{"install.yaml": "version: \"1\"\nforce_rebot: true\n"},
			"seed-data: install.yaml:2:1: "},
		"a network section that is wrong": {map[string]string{"install.yaml": "", "network.yaml": "interfaces:\n  - nmae: x\n"},
			"seed-data: network.yaml:2:5: "},
		"a list of applications that is wrong": {map[string]string{"install.yaml": "", "applications.yaml": "[]"},
			"seed-data: applications.yaml:1:1: "},
		"two sections that are wrong": {map[string]string{"install.yaml": "", "network.yaml": "x: 1", "incus.yaml": "y: 1"},
			"seed-data: incus.yaml:1:1: "},
		"no archive": {map[string]string{"install.yaml": "", "instal.yaml": ""},
			`seed-data: instal.yaml: there is no section "instal"`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, tt.seed)
			err := provision.Install(t.Context(), b.Host, b)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Install() = %v, want %q in it", err, tt.want)
			}
			if strings.HasPrefix(name, "two") && !strings.Contains(fmt.Sprint(err), "network.yaml:1:1: ") {
				t.Errorf("Install() = %v, want both mistakes in it", err)
			}
			b.untouched(t)
		})
	}
}

func TestInstallWithoutAFittingDisk(t *testing.T) {
	b := newBench(t, map[string]string{"install.yaml": "target: {id: nothing-like-it}\n"})
	if err := provision.Install(t.Context(), b.Host, b); err == nil || !strings.Contains(err.Error(), "no disk is what `target` in the install seed describes") {
		t.Errorf("Install() = %v", err)
	}
	b.untouched(t)
}

func TestInstallSeedOnAStickBesideTheMedium(t *testing.T) {
	tests := map[string]struct {
		file string
		want string // in the error, "" for none
	}{
		"with an install section":    {"install.json", ""},
		"without an install section": {"network.json", "the medium labelled SEED_DATA has no install.yaml; an empty one installs with defaults"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, nil)
			b.heard = func(text string) {
				switch {
				case strings.HasPrefix(text, "install: waiting for a seed"):
					b.stick(t, tt.file)
				case text == done:
					must(t, b.Host.Files.Remove("/dev/sda"))
				}
			}
			err := provision.Install(t.Context(), b.Host, b)
			if got := fmt.Sprint(err); tt.want == "" && err != nil || !strings.Contains(got, tt.want) {
				t.Errorf("Install() = %v, want %q", err, tt.want)
			}
		})
	}
}

// stick plugs in a medium labelled SEED_DATA with a file.
func (b *bench) stick(t *testing.T, file string) {
	t.Helper()
	must(t, b.Host.Files.WriteFile("/dev/disk/by-label/SEED_DATA", nil, 0o600))
	dir, err := b.disks.FileSystem("/dev/disk/by-label/SEED_DATA", "vfat")
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, file), []byte("{}"), 0o600))
}

func TestReadOfAnEmptySeed(t *testing.T) {
	first, err := provision.Read(systest.New(t, systest.Sensible()).Host)
	if err != nil || first.Network != nil || first.Incus != nil || first.Applications != nil || first.Unused != nil {
		t.Errorf("Read() = %+v, %v; want nothing", first, err)
	}
}

func TestReadOfAnInstalledSeed(t *testing.T) {
	host := systest.New(t, systest.Sensible()).Host
	must(t, systest.WriteSeed(host.Files, map[string]string{
		"applications.yaml":                   "applications: [{name: incus}, {name: debug}]\n",
		"incus.yaml":                          "apply_defaults: true\n",
		"network.json":                        `{"dns": {"hostname": "node1", "domain": "example.org"}}`,
		"kernel.yaml":                         "console: [{device: /dev/ttyS0, baud_rate: 115200}]\n",
		"logging.yaml":                        "syslog: {address: \"192.0.2.14:514\"}\n",
		"provider.yaml":                       "name: images\nconfig: {server_url: \"https://updates.example.net\", token: abc}\n",
		"update.json":                         `{"channel": "testing", "maintenance_windows": [{"start_hour": 1, "end_hour": 4}]}`,
		"operations-center.yaml":              "anything",
		"applications/incus_202601010000.raw": "image",
	}))
	first, err := provision.Read(host)
	must(t, err)
	if !slices.Equal(first.Applications, []string{"incus", "debug"}) || !slices.Equal(first.Unused, []string{"operations-center"}) {
		t.Errorf("applications %q, unused %q", first.Applications, first.Unused)
	}
	if first.Incus == nil || !first.Incus.ApplyDefaults || first.Network == nil || first.Network.DNS.Domain != "example.org" {
		t.Errorf("incus %+v, network %+v", first.Incus, first.Network)
	}
	if first.Kernel == nil || len(first.Kernel.Console) != 1 || first.Logging == nil || first.Logging.Syslog.Address != "192.0.2.14:514" {
		t.Errorf("kernel %+v, logging %+v", first.Kernel, first.Logging)
	}
	if first.Update == nil || first.Update.Channel != "testing" || first.Provider == nil || first.Provider.Config.Token != "abc" {
		t.Errorf("update %+v, provider %+v", first.Update, first.Provider)
	}
	if images := first.Images.Applications(); len(images) != 1 || images[0].Name != "incus" {
		t.Errorf("images %+v, want that of Incus", images)
	}
}

func TestReadNamesTheMistake(t *testing.T) {
	for file, content := range map[string]string{"network.yaml": "x: 1", "incus.yaml": "x: 1", "applications.yaml": "x: 1", "kernel.yaml": "x: 1", "logging.yaml": "x: 1", "update.yaml": "x: 1", "provider.yaml": "x: 1"} {
		host := systest.New(t, systest.Sensible()).Host
		must(t, systest.WriteSeed(host.Files, map[string]string{file: content}))
		if _, err := provision.Read(host); err == nil || !strings.HasPrefix(err.Error(), "seed-data: "+file+":1:1: ") {
			t.Errorf("Read() = %v, want it to blame %s", err, file)
		}
	}
}

// A medium that forces its install and was left in the machine, or goes on to the
// next one, does not destroy the system it finds there without naming it.
func TestASystemInUseIsNotDestroyedUnnamed(t *testing.T) {
	const installed = `label: gpt
size=32MiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name="esp"
size=1MiB, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name="seed-data"
size=8MiB, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709, name="root"
`
	for given, want := range map[string]string{"": "set `force_install_confirmation: \"0a1b2c\"`", "0a1b2c": "", "ffffff": "is this the right machine?"} {
		t.Run("confirmed by "+given, func(t *testing.T) {
			b := newBench(t, map[string]string{"install.yaml": "force_install: true\nforce_reboot: true\nforce_install_confirmation: \"" + given + "\"\n"})
			c := sys.Command("sfdisk", "/dev/nvme0n1")
			c.Stdin = strings.NewReader(installed)
			_, err := b.Host.Exec.Run(t.Context(), c)
			must(t, err)
			b.bootFrom(t, b.disks.Table("nvme0n1")[0].UUID) // as that machine
			must(t, seed.Settle(b.Host.Files, "0a1b2c3d4e5f"))
			b.bootFrom(t, b.disks.Table("sda")[0].UUID)
			err = provision.Install(t.Context(), b.Host, b)
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("Install() = %v, want %q", err, want)
			}
			if kept := b.disks.Table("nvme0n1")[2].Name == "root"; kept != (want != "") {
				t.Errorf("the system is kept: %v", kept)
			}
		})
	}
}
