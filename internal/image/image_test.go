package image

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const version = "202601010000"

func TestToolsDirChangesWithWhatIsInIt(t *testing.T) {
	b := Builder{Cache: "/cache", Arch: "amd64"}
	first, err := b.ToolsDir()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := b.ToolsDir(); err != nil || again != first || filepath.Dir(first) != "/cache" {
		t.Errorf("ToolsDir() = %q, then %q, %v; want the same below /cache", first, again, err)
	}
	a, err := archOf("amd64")
	if err != nil {
		t.Fatal(err)
	}
	before := packages(a)
	a.qemu = append(a.qemu[:len(a.qemu):len(a.qemu)], "one-more")
	if toolsKey(before) == toolsKey(packages(a)) {
		t.Error("one package more makes the same tools tree")
	}
}

func TestUnknownArchitecture(t *testing.T) {
	if _, err := (&Builder{Arch: "m68k"}).ToolsDir(); err == nil || !strings.Contains(err.Error(), `"m68k" yet; want amd64`) {
		t.Errorf("ToolsDir() = %v, want what can be built", err)
	}
}

func TestBuildRefusesAVersionThatIsNone(t *testing.T) {
	for _, v := range []string{"1.0", "2026-01-01 00:00", version + "0", "v" + version} {
		_, err := (&Builder{}).Build(t.Context(), v, time.Time{})
		if err == nil || !strings.Contains(err.Error(), "YYYYMMDDhhmm") {
			t.Errorf("Build(%q) = %v, want the form of a version", v, err)
		}
	}
}

// outputs are what mkosi leaves, and the file that Build adds.
func outputs() map[string]string {
	base := "IncusOS_" + version
	return map[string]string{base + ".raw": "", base + ".efi": "", "incus.raw": "", "storage.raw": "", "base.manifest": "", "version": version + "\n"}
}

func TestLatest(t *testing.T) {
	dir := t.TempDir()
	for name, text := range outputs() {
		put(t, filepath.Join(dir, name), text)
	}
	r, err := Latest(dir)
	if err != nil || r.Version != version || r.Disk != filepath.Join(dir, "IncusOS_"+version+".raw") || r.Incus != filepath.Join(dir, "incus.raw") {
		t.Errorf("Latest() = %+v, %v", r, err)
	}
}

func TestLatestHasWhatWasMadeOnRequest(t *testing.T) {
	dir := t.TempDir()
	files := outputs()
	files["ovn.raw"], files["notes.raw"] = "", ""
	for name, text := range files {
		put(t, filepath.Join(dir, name), text)
	}
	r, err := Latest(dir)
	if want := []string{filepath.Join(dir, "ovn.raw"), filepath.Join(dir, "storage.raw")}; err != nil || !slices.Equal(r.Others, want) {
		t.Errorf("Latest() has the extensions %q, %v; want %q", r.Others, err, want)
	}
	// A build that is not asked for it leaves none of an earlier one.
	if err := (&Builder{Output: dir}).clear(); err != nil {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "ovn*")); err != nil || len(left) > 0 {
		t.Errorf("%q is left of an earlier build, %v", left, err)
	}
}

func TestBuildRefusesAnExtensionThatIsNone(t *testing.T) {
	_, err := (&Builder{With: []string{"ovn", "ceph"}}).Build(t.Context(), version, time.Time{})
	if err == nil || !strings.Contains(err.Error(), `no extension image "ceph" that is made on request; want incus-ceph or ovn`) {
		t.Errorf("Build() = %v, want what there is", err)
	}
}

func TestLatestRefuses(t *testing.T) {
	tests := map[string]struct {
		spoil func(files map[string]string)
		want  string
	}{
		"nothing was built":     {func(f map[string]string) { delete(f, "version") }, "build one with `make image`"},
		"a version that is cut": {func(f map[string]string) { f["version"] = "2026" }, `holds "2026", not a version; build again with`},
		"a version with more":   {func(f map[string]string) { f["version"] = version + "/../x" }, "not a version"},
		"storage is missing":    {func(f map[string]string) { delete(f, "storage.raw") }, "storage.raw"},
		"an image is missing":   {func(f map[string]string) { delete(f, "incus.raw") }, "did not make"},
		"the disk is missing":   {func(f map[string]string) { delete(f, "IncusOS_"+version+".raw") }, "IncusOS_" + version + ".raw"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir, files := t.TempDir(), outputs()
			tt.spoil(files)
			for name, text := range files {
				put(t, filepath.Join(dir, name), text)
			}
			if _, err := Latest(dir); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Latest() = %v, want %q in it", err, tt.want)
			}
		})
	}
}

// What the image trusts is in it as it was given, with the time of the build.
func TestImageCarriesTheRootOfItsRepository(t *testing.T) {
	work, epoch := t.TempDir(), time.Unix(1700000000, 0)
	if err := (&Builder{}).trust(work, epoch); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(work, "extra/usr/lib/incus-os/update-root.json")
	if _, err := os.Stat(name); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a root there is %s (%v)", name, err)
	}
	if err := (&Builder{Root: []byte("a root")}).trust(work, epoch); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(name)
	if err != nil || string(b) != "a root" {
		t.Errorf("it holds %q (%v)", b, err)
	}
	if info, err := os.Stat(name); err != nil || !info.ModTime().Equal(epoch) || info.Mode().Perm() != 0o644 {
		t.Errorf("it is %v (%v)", info, err)
	}
}
