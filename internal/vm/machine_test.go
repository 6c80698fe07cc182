package vm

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// fakeTools is a tools tree of empty files.
func fakeTools(t *testing.T) Options {
	t.Helper()
	a, err := archOf("amd64")
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	for _, name := range []string{a.loader, a.qemu, "/usr/bin/swtpm", "/usr/bin/swtpm_setup", a.firmware.secure, a.firmware.insecure, a.firmware.vars} {
		write(t, filepath.Join(root, name), name)
	}
	return Options{Tools: root, Arch: "amd64", Cache: t.TempDir()}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func create(t *testing.T, o Options) *Machine {
	t.Helper()
	m, err := Create(t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestArguments(t *testing.T) {
	o := fakeTools(t)
	o.Disks = []Disk{{"system", 1 << 30}, {"data", 1 << 20}}
	m := create(t, o)
	tests := map[string]struct {
		boot  Boot
		accel Accel
		has   []string
		hasNo []string
	}{
		"a machine as sold": {
			Boot{}, TCG,
			[]string{
				"-machine q35,smm=on,vmport=off", "property=secure,value=on", "OVMF_CODE_4M.secboot.fd",
				"-accel tcg,thread=multi,tb-size=2048", "-device tpm-crb,tpmdev=tpm", "-m 3072", "-smp 2",
				"drive=system,serial=system,bootindex=1", "drive=data,serial=data,bootindex=2",
				"hostfwd=tcp:127.0.0.1:4711-:8443",
			},
			[]string{"usb-storage", "kvm"},
		},
		"with KVM":            {Boot{}, KVM, []string{"-accel kvm"}, []string{"tcg"}},
		"with a medium":       {Boot{Medium: "/m.raw"}, TCG, []string{"snapshot=on,file=/m.raw", "usb-storage,id=medium,drive=medium-data,removable=on,bootindex=0"}, nil},
		"without a TPM":       {Boot{NoTPM: true}, TCG, []string{"secboot"}, []string{"tpm"}},
		"without Secure Boot": {Boot{NoSecureBoot: true}, TCG, []string{"OVMF_CODE_4M.fd", "tpm-crb"}, []string{"secboot", "secure"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			line := strings.Join(m.arguments(tt.boot, tt.accel, sockets{"/s"}, 4711), " ")
			for _, want := range tt.has {
				if !strings.Contains(line, want) {
					t.Errorf("QEMU's arguments lack %q: %s", want, line)
				}
			}
			for _, unwanted := range tt.hasNo {
				if strings.Contains(strings.ReplaceAll(line, m.dir, ""), unwanted) {
					t.Errorf("QEMU's arguments have %q: %s", unwanted, line)
				}
			}
		})
	}
}

func TestServiceRunsThroughTheTreesOwnLoader(t *testing.T) {
	m := create(t, fakeTools(t))
	c := m.tools.service("/usr/bin/swtpm", "socket")
	root := m.tools.root
	if want := root + "/usr/lib64/ld-linux-x86-64.so.2"; c.Name != want {
		t.Errorf("service runs %q, want %q", c.Name, want)
	}
	for _, program := range []string{"/usr/bin/setpriv", "/usr/bin/setsid", "/usr/bin/swtpm"} {
		i := slices.Index(c.Args, root+program)
		if i < 2 || c.Args[i-2] != "--library-path" {
			t.Errorf("%s is not loaded with the tree's libraries: %q", program, c.Args)
		}
	}
}

func TestCreateRefuses(t *testing.T) {
	good := fakeTools(t)
	tests := map[string]struct {
		change func(*Options)
		want   string
	}{
		"no tools":                {func(o *Options) { o.Tools = "" }, "no tools tree given"},
		"a tree without QEMU":     {func(o *Options) { o.Tools = t.TempDir() }, "not complete"},
		"an unknown architecture": {func(o *Options) { o.Arch = "riscv64" }, "riscv64"},
		"a disk name with commas": {func(o *Options) { o.Disks = []Disk{{Name: "a,b"}} }, `"a,b"`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			o := good
			tt.change(&o)
			_, err := Create(t.TempDir(), o)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Create() = %v, want an error that has %q", err, tt.want)
			}
		})
	}
}

func TestCreateKeepsWhatIsThere(t *testing.T) {
	o := fakeTools(t)
	m := create(t, o)
	if _, err := Create(m.Dir(), o); !errors.Is(err, ErrExists) {
		t.Errorf("Create() = %v, want %v", err, ErrExists)
	}
	if _, err := Open(m.Dir(), o); err != nil {
		t.Errorf("Open() = %v, want the machine that Create made", err)
	}
	if err := Remove(m.Dir()); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(m.Dir(), o); err == nil {
		t.Error("Open() found a machine after Remove()")
	}
}

func TestCloneHasAllThatOutlivesAPowerCut(t *testing.T) {
	m := create(t, fakeTools(t))
	disk := m.Disk("disk")
	f, err := os.OpenFile(disk, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{0, 5 << 30, 64<<30 - 4} {
		if _, err := f.WriteAt([]byte("data"), at); err != nil {
			t.Fatal(err)
		}
	}
	f.Close()
	write(t, m.path("tpm/tpm2-00.permall"), "keys")

	c, err := m.Clone(filepath.Join(t.TempDir(), "clone"))
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{0, 5 << 30, 64<<30 - 4} {
		if got := readAt(t, c.Disk("disk"), at); got != "data" {
			t.Errorf("the clone's disk has %q at %d, want %q", got, at, "data")
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(c.Disk("disk"), &st); err != nil || st.Blocks > 1024 {
		t.Errorf("the clone's disk takes %d blocks, want its holes kept (error: %v)", st.Blocks, err)
	}
	for _, name := range []string{"tpm/tpm2-00.permall", "vars.fd"} {
		ours, err1 := os.ReadFile(m.path(name))
		theirs, err2 := os.ReadFile(c.path(name))
		if err := errors.Join(err1, err2); err != nil || !bytes.Equal(ours, theirs) {
			t.Errorf("%s differs in the clone (error: %v)", name, err)
		}
	}
}

func readAt(t *testing.T, name string, at int64) string {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 4)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestIdentityIsKeptAndPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "client")
	first, err := OpenIdentity(dir)
	if err != nil {
		t.Fatal(err)
	}
	second, err := OpenIdentity(dir)
	if err != nil || !bytes.Equal(first.PEM, second.PEM) {
		t.Errorf("the second OpenIdentity() made another certificate (error: %v)", err)
	}
	if info, err := os.Stat(first.Key()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's mode is %v, %v, want 0600", info.Mode(), err)
	}
	if !strings.Contains(sections(first.PEM)["incus.yaml"], "        -----END CERTIFICATE-----\n") {
		t.Errorf("the seed does not hold the certificate as a block:\n%s", sections(first.PEM)["incus.yaml"])
	}
}

func TestScaleObeysTheEnvironment(t *testing.T) {
	for value, want := range map[string]Scale{"": 10, "2.5": 2.5} {
		t.Setenv(ScaleVariable, value)
		if got, err := TCG.Scale(); err != nil || got != want {
			t.Errorf("with %q the scale is %v, %v, want %v", value, got, err, want)
		}
	}
	t.Setenv(ScaleVariable, "fast")
	if _, err := TCG.Scale(); err == nil {
		t.Error("the scale \"fast\" was taken, want it refused")
	}
}
