package early

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/sys/systest"
)

const (
	partUUID = "0bb7d9a2-51f4-4c2e-8a3d-0d3e5b7a9c01"
	overlay  = "overlay /sysroot/etc overlay lowerdir=/sysroot/usr/share/factory/etc,upperdir=/sysroot/var/lib/etc-overlay/upper,workdir=/sysroot/var/lib/etc-overlay/work"
	bindUsr  = "/sysusr/usr /sysroot/usr  bind"
	onDisk   = "/dev/mapper/root /sysroot ext4 nodev,nosuid,noexec"
)

// recovery is a well-formed recovery key.
var recovery = strings.Join(slices.Repeat([]string{"cccccccc"}, 8), "-")

// A screen keeps what is shown and types the answers it was given.
type screen struct {
	said, asked []string
	failed      string
	answers     []string
}

func (s *screen) Say(format string, args ...any) {
	s.said = append(s.said, fmt.Sprintf(format, args...))
}

func (s *screen) Fail(title string, lines ...string) {
	s.failed = strings.Join(append([]string{title}, lines...), "\n")
}

func (s *screen) Ask(_ context.Context, prompt string) (string, error) {
	s.asked = append(s.asked, prompt)
	if len(s.answers) == 0 {
		return "", errors.New("nobody is there")
	}
	answer := s.answers[0]
	s.answers = s.answers[1:]
	return answer, nil
}

// A bench is a machine in its initrd.
type bench struct {
	*systest.Rig
	screen screen
	tpm    error // why the TPM does not unlock
}

// newBench starts a machine from the first of some partitions of /dev/vda.
func newBench(t *testing.T, size uint64, labels ...string) *bench {
	t.Helper()
	return newBenchOf(t, func(*systest.Machine) {}, size, labels...)
}

// newBenchOf is newBench with another machine.
func newBenchOf(t *testing.T, change func(*systest.Machine), size uint64, labels ...string) *bench {
	t.Helper()
	m := systest.Sensible()
	change(&m)
	m.Drives[0].Size, m.Drives[0].Partitions = size, nil
	for _, label := range labels {
		m.Drives[0].Partitions = append(m.Drives[0].Partitions, systest.Partition{Label: label, Size: 16 << 20})
	}
	b := &bench{Rig: systest.New(t, m)}
	var text []byte
	for _, c := range strings.ToUpper(partUUID) + "\x00" {
		text = append(text, byte(c), 0)
	}
	files := b.Host.Files
	err := errors.Join(
		files.WriteFile("/sys/firmware/efi/efivars/LoaderDevicePartUUID-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f", append([]byte{6, 0, 0, 0}, text...), 0o644),
		files.MkdirAll("/dev/disk/by-partuuid", 0o755),
		files.Symlink("../../vda1", "/dev/disk/by-partuuid/"+partUUID))
	if err != nil {
		t.Fatal(err)
	}
	b.model()
	return b
}

// model has the programs do what is told here.
func (b *bench) model() {
	b.Programs.Model("systemd-repart", b.repart)
	b.Programs.Model("systemd-cryptsetup", b.cryptsetup)
	b.Programs.Model("systemd-cryptenroll", func(context.Context, sys.Cmd) ([]byte, error) { return []byte(recovery + "\n"), nil })
}

// left is what somebody wrote where a new partition comes to lie.
var left = strings.Repeat("old", 1<<20)

// repart adds what is missing to /dev/vda. As on a disk in use, sysfs does not
// learn of the new labels; the device comes a little later than the end.
func (b *bench) repart(context.Context, sys.Cmd) ([]byte, error) {
	go func() {
		_ = b.Host.Files.WriteFile("/dev/vda9", nil, 0o600)
		_ = b.Host.Files.WriteFile("/dev/vda10", []byte(left), 0o600)
	}()
	return []byte(`[{"type":"esp","label":"esp","node":"/dev/vda1"},{"type":"root-x86-64","label":"root","node":"/dev/vda9"},` +
		`{"type":"linux-generic","label":"local-data","node":"/dev/vda10"}]`), nil
}

// cryptsetup unlocks by the TPM, unless that does not want to, and by the
// recovery key.
func (b *bench) cryptsetup(_ context.Context, c sys.Cmd) ([]byte, error) {
	if c.Args[2] != "/dev/vda9" {
		return nil, fmt.Errorf("systemd-cryptsetup %q, want it to attach /dev/vda9", c.Args)
	}
	if c.Args[3] == "-" {
		return nil, b.tpm
	}
	key, err := b.Host.Files.ReadFile(c.Args[3])
	if err == nil && string(key) != recovery {
		err = &sys.ExecError{Name: "systemd-cryptsetup", Code: 1}
	}
	return nil, err
}

// result returns what the daemon will read.
func (b *bench) result(t *testing.T) string {
	t.Helper()
	raw, err := b.Host.Files.ReadFile("/run/incus-os/early.json")
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func (b *bench) count(prefix string) int {
	return len(slices.DeleteFunc(b.Programs.Ran(), func(line string) bool { return !strings.HasPrefix(line, prefix) }))
}

func medium() []string { return []string{"esp", "seed-data", "sig", "verity", "usr"} }

func installed() []string { return append(medium(), "_empty", "_empty", "_empty") }

func complete() []string { return append(installed(), "root", "local-data") }

func TestIsMedium(t *testing.T) {
	tests := map[string]struct {
		labels []string
		want   bool
	}{
		"an install medium":                 {medium(), true},
		"a disk that was just installed":    {installed(), false},
		"a disk that was started once":      {complete(), false},
		"a disk whose slots are both taken": {append(medium(), "sig2", "verity2", "usr2", "root", "local-data"), false},
		"such a disk after a factory reset": {append(medium(), "sig2", "verity2", "usr2"), false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var d sys.Disk
			for _, label := range tt.labels {
				d.Partitions = append(d.Partitions, sys.Partition{Label: label})
			}
			if got := isMedium(d); got != tt.want {
				t.Errorf("isMedium() = %v, want %v", got, tt.want)
			}
		})
	}
}

func TestInstallMediumRunsFromMemory(t *testing.T) {
	b := newBench(t, 4e9, medium()...)
	if err := Run(t.Context(), b.Host, &b.screen); err != nil {
		t.Fatal(err)
	}
	want := []string{"tmpfs /sysroot tmpfs mode=0755,size=50%,nodev,nosuid", bindUsr, overlay}
	if diff := cmp.Diff(want, b.Mounts.Table()); diff != "" {
		t.Errorf("mounts (-want +got):\n%s", diff)
	}
	if got, want := b.result(t), `{"mode":"install","boot_disk":"/dev/vda"}`+"\n"; got != want {
		t.Errorf("early.json is %s, want %s", got, want)
	}
	if ran := b.Programs.Ran(); len(ran) != 0 {
		t.Errorf("ran %q, want nothing", ran)
	}
}

func TestInstalledMachineIsUnlocked(t *testing.T) {
	b := newBench(t, 64e9, complete()...)
	if err := Run(t.Context(), b.Host, &b.screen); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{onDisk, bindUsr, overlay}, b.Mounts.Table()); diff != "" {
		t.Errorf("mounts (-want +got):\n%s", diff)
	}
	if got, want := b.result(t), `{"mode":"run","boot_disk":"/dev/vda","root":"/dev/vda9","unlocked_by":"tpm"}`+"\n"; got != want {
		t.Errorf("early.json is %s, want %s", got, want)
	}
	if n := b.count("systemd-repart"); n != 0 {
		t.Errorf("systemd-repart ran %d times, want never", n)
	}
	if b.count("e2fsck -p /dev/mapper/root") != 1 {
		t.Errorf("ran %q, want the file system checked", b.Programs.Ran())
	}
	if key, err := b.Host.Files.ReadFile(recoveryKey); err != nil || string(key) != recovery+"\n" {
		t.Errorf("the recovery key is %q, %v", key, err)
	}
}

// A first boot that was cut may have left the root partition without the other.
func TestFirstBootMakesPartitions(t *testing.T) {
	for name, labels := range map[string][]string{"first": installed(), "cut": append(installed(), "root")} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, 64e9, labels...)
			if err := Run(t.Context(), b.Host, &b.screen); err != nil {
				t.Fatal(err)
			}
			if n := b.count("systemd-repart --json=short --definitions=/sysusr/usr/lib/incus-os/repart.d --dry-run=no --tpm2-device=auto --tpm2-pcrs=7 /dev/vda"); n != 1 {
				t.Errorf("ran %q, want systemd-repart once", b.Programs.Ran())
			}
			if want := []string{"first start: making the encrypted root partition on /dev/vda"}; !slices.Equal(b.screen.said, want) {
				t.Errorf("said %q, want %q", b.screen.said, want)
			}
			if got := b.Mounts.Table(); got[0] != onDisk {
				t.Errorf("mounts %q, want the new root", got)
			}
			content, err := b.Host.Files.ReadFile("/dev/vda10")
			ends := string(content[:1<<19]) + string(content[len(content)-1<<19:])
			if err != nil || len(content) != len(left) || strings.Trim(ends, "\x00") != "" || content[1<<19] == 0 {
				t.Errorf("the new partition for data has %d bytes, %v; want %d without old labels", len(content), err, len(left))
			}
		})
	}
}

func TestRunRefuses(t *testing.T) {
	tests := map[string]struct {
		size    uint64
		labels  []string
		prepare func(t *testing.T, b *bench)
		want    string
	}{
		"a disk that is too small": {15e9, installed(), func(*testing.T, *bench) {},
			"the disk /dev/vda has 15 GB and the system needs 16 GB: install to a larger disk"},
		"partitioning that fails": {64e9, installed(), func(_ *testing.T, b *bench) {
			b.Programs.Fail("systemd-repart", &sys.ExecError{Name: "systemd-repart", Code: 1, Stderr: "no space"})
		}, "partitioning /dev/vda: systemd-repart exited with status 1: no space"},
		"partitioning without effect": {64e9, installed(), func(_ *testing.T, b *bench) {
			b.Programs.Model("systemd-repart", func(context.Context, sys.Cmd) ([]byte, error) { return []byte("[]"), nil })
		}, `systemd-repart made no partition labelled "root"`},
		"partitioning without a word": {64e9, installed(), func(_ *testing.T, b *bench) { b.Programs.Model("systemd-repart", nil) },
			"reading what systemd-repart printed: unexpected end of JSON input"},
		"a file system beyond repair": {64e9, complete(), func(_ *testing.T, b *bench) {
			b.Programs.Fail("e2fsck", &sys.ExecError{Name: "e2fsck", Code: 4})
		}, "checking the root file system: e2fsck exited with status 4"},
		"another boot loader": {64e9, complete(), func(t *testing.T, b *bench) {
			if err := b.Host.Files.RemoveAll("/sys/firmware/efi/efivars/LoaderDevicePartUUID-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"); err != nil {
				t.Fatal(err)
			}
		}, "this machine was not started by systemd-boot"},
		"a key nobody types": {64e9, complete(), func(_ *testing.T, b *bench) { b.tpm = &sys.ExecError{Name: "systemd-cryptsetup", Code: 1} },
			"unlocking /dev/vda9: asking for the recovery key: nobody is there"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, tt.size, tt.labels...)
			tt.prepare(t, b)
			err := Run(t.Context(), b.Host, &b.screen)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Run() = %v, want %q", err, tt.want)
			}
			if got := b.Mounts.Table(); len(got) != 0 {
				t.Errorf("mounted %q, want nothing", got)
			}
			if b.Host.Files.Exists(resultFile) {
				t.Error("the daemon was told to go on")
			}
		})
	}
}

func TestUnfitMachineIsExplained(t *testing.T) {
	b := newBench(t, 64e9, complete()...)
	if err := b.Host.Files.RemoveAll("/sys/class/tpm"); err != nil {
		t.Fatal(err)
	}
	err := Run(t.Context(), b.Host, &b.screen)
	if refused, ok := errors.AsType[*RefusedError](err); !ok || len(refused.Problems) != 1 {
		t.Errorf("Run() = %v, want a RefusedError with one problem", err)
	}
	if want := "IncusOS does not start\nThis machine cannot be used: there is no TPM 2.0.\nIn the firmware setup"; !strings.HasPrefix(b.screen.failed, want) {
		t.Errorf("the screen shows %q, want it to begin with %q", b.screen.failed, want)
	}
	if ran := b.Programs.Ran(); len(ran) != 0 {
		t.Errorf("ran %q, want nothing", ran)
	}
}

func TestRecoveryKeyUnlocksWhenTheTPMDoesNot(t *testing.T) {
	b := newBench(t, 64e9, complete()...)
	b.tpm = &sys.ExecError{Name: "systemd-cryptsetup", Code: 1, Stderr: "TPM2 device not found"}
	b.screen.answers = []string{strings.ToUpper(recovery)}
	b.Programs.Fail("systemd-cryptenroll", errors.New("without the TPM"))
	if err := Run(t.Context(), b.Host, &b.screen); err != nil {
		t.Fatal(err)
	}
	if want := []string{"The TPM cannot be found. It may be turned off in the firmware setup.\nRecovery key: "}; !slices.Equal(b.screen.asked, want) {
		t.Errorf("asked %q, want %q", b.screen.asked, want)
	}
	const want = `"unlocked_by":"recovery key","warnings":["there is no recovery key yet: `
	if got := b.result(t); !strings.Contains(got, want) {
		t.Errorf("early.json is %s, want %s in it", got, want)
	}
}

func TestRepairedFileSystemIsMounted(t *testing.T) {
	b := newBench(t, 64e9, complete()...)
	b.Programs.Fail("e2fsck", &sys.ExecError{Name: "e2fsck", Code: 1})
	if err := Run(t.Context(), b.Host, &b.screen); err != nil {
		t.Errorf("Run() = %v, want the repaired file system mounted", err)
	}
}
