package seed_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/incusos/incusos/internal/seed"
	"github.com/incusos/incusos/internal/sys/systest"
)

// entry is a file of an archive: its name and its content.
type entry struct{ name, content string }

func archive(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Size: int64(len(e.content)), Mode: 0o644, Format: tar.FormatUSTAR}
		if strings.HasSuffix(e.name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if to, ok := strings.CutPrefix(e.content, "->"); ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, to, 0
			e.content = ""
		}
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(tw, e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// machine returns a rig whose seed partition holds raw, and whose external
// medium, unless files is nil, has those files.
func machine(t testing.TB, raw []byte, fstype string, files ...entry) *systest.Rig {
	t.Helper()
	rig := systest.New(t, systest.Sensible())
	tools := systest.AddDiskTools(rig)
	f, err := rig.Host.Files.OpenDevice("/dev/vda2")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(raw); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if files == nil {
		return rig
	}
	if err := rig.Host.Files.WriteFile("/dev/disk/by-label/SEED_DATA", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dir, err := tools.FileSystem("/dev/disk/by-label/SEED_DATA", fstype)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range files {
		if to, ok := strings.CutPrefix(e.content, "->"); ok {
			err = os.Symlink(to, filepath.Join(dir, e.name))
		} else {
			err = os.WriteFile(filepath.Join(dir, e.name), []byte(e.content), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return rig
}

func open(t testing.TB, rig *systest.Rig) *seed.Seed {
	t.Helper()
	s, err := seed.Open(rig.Host)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestNothingWasGiven(t *testing.T) {
	s := open(t, machine(t, nil, ""))
	if _, ok, err := s.Install(); ok || err != nil || len(s.Unused()) != 0 {
		t.Errorf("an empty partition: install %v, %v, unused %q; want nothing", ok, err, s.Unused())
	}
}

func TestEmptyInstallCounts(t *testing.T) {
	for _, content := range []string{"", "# nothing\n", "---\n", "{}"} {
		s := open(t, machine(t, archive(t, entry{"./", ""}, entry{"./install.yaml", content}), ""))
		if doc, ok, err := s.Install(); !ok || err != nil || doc.Target != nil {
			t.Errorf("install.yaml of %q: %+v, %v, %v; want an install with defaults", content, doc, ok, err)
		}
	}
}

func TestMediumOverridesSectionBySection(t *testing.T) {
	for _, fstype := range []string{"vfat", "iso9660"} {
		rig := machine(t,
			archive(t, entry{"incus.yaml", "apply_defaults: true\n"}, entry{"network.yaml", "dns: {hostname: archive}\n"}, entry{"operations-center.yaml", "anything"}),
			fstype,
			entry{"network.json", `{"dns": {"hostname": "medium"}}`}, entry{"README.txt", "hello"}, entry{"._network.yaml", "\x00"})
		s := open(t, rig)
		network, _, err := s.Network()
		if err != nil {
			t.Fatal(err)
		}
		incus, _, err := s.Incus()
		if err != nil {
			t.Fatal(err)
		}
		if network.DNS.Hostname != "medium" || !incus.ApplyDefaults {
			t.Errorf("%s: hostname %q, defaults %v; want the medium's network and the archive's incus", fstype, network.DNS.Hostname, incus.ApplyDefaults)
		}
		if got := s.Unused(); !slices.Equal(got, []string{"operations-center"}) {
			t.Errorf("%s: Unused() = %q, want operations-center", fstype, got)
		}
		if n := rig.Host.Mounts.(*systest.DiskTools).Mounted(); n != 0 {
			t.Errorf("%s: %d mounts are left", fstype, n)
		}
	}
}

func TestSourceIsRefused(t *testing.T) {
	big := strings.Repeat("#", 1<<20+1)
	tests := map[string]struct {
		raw   []byte
		files []entry
		want  string
	}{
		"no archive":             {[]byte(strings.Repeat("x", 1024)), nil, "seed-data: want a tar archive"},
		"section twice":          {archive(t, entry{"incus.yaml", ""}, entry{"incus.json", "{}"}), nil, `seed-data: incus.json: the section "incus" is already in incus.yaml`},
		"section twice on stick": {nil, []entry{{"incus.json", "{}"}, {"incus.yml", ""}}, `SEED_DATA: incus.yml: the section "incus" is already in incus.json`},
		"misspelt section":       {archive(t, entry{"instal.yaml", ""}), nil, `seed-data: instal.yaml: there is no section "instal"; did you mean "install"?`},
		"large section":          {archive(t, entry{"incus.yaml", big}), nil, "seed-data: incus.yaml: 1048577 bytes are too much; want 1048576 at most"},
		"large file":             {nil, []entry{{"incus.yaml", big}}, "SEED_DATA: incus.yaml: 1048577 bytes are too much"},
		"link in the archive":    {archive(t, entry{"incus.yaml", "->/etc/shadow"}), nil, "seed-data: incus.yaml: is no regular file"},
		"link on the stick":      {nil, []entry{{"incus.yaml", "->/etc/shadow"}}, "SEED_DATA: incus.yaml: is no regular file"},
		"image without version":  {archive(t, entry{"applications/incus.raw", "x"}), nil, "seed-data: applications/incus.raw: is no extension image"},
		"image that escapes":     {archive(t, entry{"applications/../x_1.raw", "x"}), nil, "is no extension image"},
		"image twice":            {archive(t, entry{"applications/a_1.raw", "x"}, entry{"applications/a_2.raw", "x"}), nil, "there is already an image of a"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := seed.Open(machine(t, tt.raw, "vfat", tt.files...).Host)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Open() = %v, want %q in it", err, tt.want)
			}
		})
	}
}

func TestMediumOfAnotherKindIsNamed(t *testing.T) {
	_, err := seed.Open(machine(t, nil, "ext4", entry{"install.yaml", ""}).Host)
	if err == nil || !strings.HasPrefix(err.Error(), "SEED_DATA: want a FAT or ISO 9660 file system: ") {
		t.Errorf("Open() = %v", err)
	}
}

func TestImagesAreListedAndStreamed(t *testing.T) {
	image := strings.Repeat("image", 1000)
	s := open(t, machine(t, archive(t, entry{"applications/", ""}, entry{"./applications/incus_202601010000.raw", image}, entry{"incus.yaml", ""}), ""))
	want := seed.Application{Name: "incus", Version: "202601010000", Size: 5000}
	if got := s.Applications(); !slices.Equal(got, []seed.Application{want}) {
		t.Fatalf("Applications() = %v, want %v", got, want)
	}
	r, err := s.OpenApplication(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil || string(got) != image {
		t.Errorf("the image has %d bytes, %v; want the 5000 it was made of", len(got), err)
	}
}

func TestForwardIsTheSeedWithoutInstall(t *testing.T) {
	s := open(t, machine(t,
		archive(t, entry{"install.yaml", ""}, entry{"network.yaml", "{}"}, entry{"applications/incus_1.raw", "image"}), "vfat",
		entry{"network.json", `{"dns": {"hostname": "medium"}}`}, entry{"kernel.yaml", "anything"}))
	var b bytes.Buffer
	if err := s.Forward(&b); err != nil {
		t.Fatal(err)
	}
	next := open(t, machine(t, b.Bytes(), ""))
	network, _, err := next.Network()
	if err != nil || network.DNS.Hostname != "medium" {
		t.Errorf("network %+v, %v; want the medium's", network, err)
	}
	if next.Has("install") || !next.Has("kernel") || !slices.Equal(next.Applications(), s.Applications()) {
		t.Errorf("install %v, kernel %v, images %v", next.Has("install"), next.Has("kernel"), next.Applications())
	}
}
