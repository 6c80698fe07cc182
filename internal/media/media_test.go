package media_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/diskfs/go-diskfs"
	"github.com/diskfs/go-diskfs/disk"
	"github.com/diskfs/go-diskfs/partition/gpt"

	"github.com/incusos/incusos/internal/media"
)

const (
	mib       = 1 << 20
	imageSize = 64 * mib
	seedStart = 8 * mib
	seedSize  = 4 * mib
)

func TestBuildPutsTheSeedIntoItsPartition(t *testing.T) {
	for _, sector := range []diskfs.SectorSize{diskfs.SectorSize512, diskfs.SectorSize4k} {
		t.Run(fmt.Sprint(sector), func(t *testing.T) {
			dir := t.TempDir()
			image := newImage(t, dir, sector, "seed-data")
			seed := newSeed(t, map[string]string{"network.yaml": "dns: {}\n", "install.json": "{}", "incus.yml": ""})
			app := newFile(t, dir, "incus.raw", strings.Repeat("verity", 1000))
			out := filepath.Join(dir, "out", "medium.raw")

			err := media.Build(t.Context(), media.Options{Image: image, Output: out, Contents: media.Contents{
				Seed:         seed,
				Applications: []media.Application{{Name: "incus", Version: "202611231200", File: app}},
			}})
			if err != nil {
				t.Fatal(err)
			}
			want := "-rw------- 0/0 0 incus.yml 0\n" +
				"-rw------- 0/0 0 install.json 2\n" +
				"-rw------- 0/0 0 network.yaml 8\n" +
				"-rw------- 0/0 0 applications/incus_202611231200.raw 6000\n"
			if got := listing(t, out); got != want {
				t.Errorf("archive holds\n%swant\n%s", got, want)
			}
			if !bytes.Equal(outside(t, out), outside(t, image)) {
				t.Error("the medium differs from the image outside the seed partition")
			}
			if info, err := os.Stat(out); err != nil || info.Mode() != 0o600 {
				t.Errorf("medium has mode %v (%v), want 0600", info.Mode(), err)
			}
		})
	}
}

func TestBuildKeepsHolesAndIsDeterministic(t *testing.T) {
	dir := t.TempDir()
	image := newImage(t, dir, diskfs.SectorSize512, "seed-data")
	c := media.Contents{Seed: newSeed(t, map[string]string{"update.yaml": "channel: stable\n"})}
	one, two := filepath.Join(dir, "one.raw"), filepath.Join(dir, "two.raw")
	for _, out := range []string{one, two} {
		if err := media.Build(t.Context(), media.Options{Image: image, Output: out, Contents: c}); err != nil {
			t.Fatal(err)
		}
	}

	if !bytes.Equal(read(t, one), read(t, two)) {
		t.Error("the same image and seed gave two media")
	}
	if have, most := allocated(t, one), allocated(t, image)+mib; have > most {
		t.Errorf("medium takes %d bytes on disk, want at most %d", have, most)
	}
}

func TestBuildRefusesBeforeItWrites(t *testing.T) {
	work := t.TempDir()
	image := newImage(t, work, diskfs.SectorSize512, "seed-data")
	text := newFile(t, work, "text", strings.Repeat("no disk image ", 1000))
	app := newFile(t, work, "incus.raw", "x")
	empty := newFile(t, work, "empty.raw", "")
	large := newFile(t, work, "large.raw", strings.Repeat("x", seedSize-2*512-512+1))
	just := newFile(t, work, "just.raw", strings.Repeat("x", seedSize-2*512-512))
	with := func(name, version, file string) media.Contents {
		return media.Contents{Applications: []media.Application{{Name: name, Version: version, File: file}}}
	}
	seed := func(names ...string) (c media.Contents, dir string) {
		files := make(map[string]string)
		for _, n := range names {
			files[n] = ""
		}
		dir = newSeed(t, files)
		return media.Contents{Seed: dir}, dir
	}
	typo, typoDir := seed("networks.yaml")
	readme, readmeDir := seed("README.md")
	twice, twiceDir := seed("install.yaml", "install.json")

	tests := map[string]struct {
		image string
		c     media.Contents
		want  string // "" means accepted
	}{
		"what fits exactly":          {image, with("incus", "1", just), ""},
		"a byte too much":            {image, with("incus", "1", large), `seed and applications take 4194816 bytes, but partition "seed-data" holds 4194304; leave out applications or build the image with a larger one`},
		"an unknown section":         {image, typo, fmt.Sprintf(`seed %q: "networks.yaml" seeds no known section; want one of applications, incus, install, kernel, logging, migration-manager, network, operations-center, provider, security, services, update`, typoDir)},
		"a file that is no seed":     {image, readme, fmt.Sprintf(`seed %q: "README.md" is no seed file; want a name that ends in .yaml, .yml or .json`, readmeDir)},
		"a section twice":            {image, twice, fmt.Sprintf(`seed %q has both "install.json" and "install.yaml"; want one`, twiceDir)},
		"an application of bad name": {image, with("../incus", "1", app), `application "../incus": want a name of lower-case letters, digits and hyphens`},
		"a version with a path":      {image, with("incus", "../1", app), `application "incus": "../1" is no version; want lower-case letters, digits, '.', '~' and '-'`},
		"an empty application":       {image, with("incus", "1", empty), fmt.Sprintf(`application "incus": %q is no extension image; want a file that is not empty`, empty)},
		"an application that is not": {image, with("incus", "1", filepath.Join(work, "none")), fmt.Sprintf(`application "incus": stat %s/none: no such file or directory`, work)},
		"no disk image":              {text, media.Contents{}, fmt.Sprintf("%q: has no GUID partition table; want a disk image", text)},
		"an image without the place": {newImage(t, work, diskfs.SectorSize512, "elsewhere"), media.Contents{}, fmt.Sprintf(`%q: no partition is labelled "seed-data", only "esp", "elsewhere"`, filepath.Join(work, "elsewhere.raw"))},
		"an image with two":          {newImage(t, work, diskfs.SectorSize512, "seed-data", "seed-data"), media.Contents{}, fmt.Sprintf(`%q: 2 partitions are labelled "seed-data"; want one`, filepath.Join(work, "seed-dataseed-data.raw"))},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			err := media.Build(t.Context(), media.Options{Image: tt.image, Output: filepath.Join(dir, "medium.raw"), Contents: tt.c})
			got, left := "", 1
			if err != nil {
				got, left = err.Error(), 0
			}
			if got != tt.want {
				t.Errorf("Build said\n%s\nwant\n%s", got, tt.want)
			}
			if files, _ := os.ReadDir(dir); len(files) != left {
				t.Errorf("left %v, want %d files", files, left)
			}
		})
	}
}

func TestBuildRefusesATruncatedImage(t *testing.T) {
	dir := t.TempDir()
	image := newImage(t, dir, diskfs.SectorSize512, "seed-data")
	if err := os.Truncate(image, seedStart+mib); err != nil {
		t.Fatal(err)
	}
	err := media.Build(t.Context(), media.Options{Image: image, Output: filepath.Join(dir, "out.raw")})
	want := fmt.Sprintf(`%q ends at byte 9437184, within partition "seed-data"; want at least 12582912 bytes`, image)
	if err == nil || err.Error() != want {
		t.Errorf("Build said %v, want %s", err, want)
	}
}

func TestBuildReplacesNothingButMedia(t *testing.T) {
	dir := t.TempDir()
	image := newImage(t, dir, diskfs.SectorSize512, "seed-data")
	device := filepath.Join(dir, "device")
	if err := syscall.Mkfifo(device, 0o600); err != nil { // a device as far as Build can tell
		t.Fatal(err)
	}

	tests := map[string]struct {
		output string
		want   string
	}{
		"a device":         {device, fmt.Sprintf("%q is no regular file; make the medium in one and copy it to the device", device)},
		"a directory":      {dir, fmt.Sprintf("%q is no regular file; make the medium in one and copy it to the device", dir)},
		"the image itself": {image, fmt.Sprintf("%q is the image itself; name another file for the medium", image)},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := media.Build(t.Context(), media.Options{Image: image, Output: tt.output})
			if err == nil || err.Error() != tt.want {
				t.Errorf("Build said %v, want %s", err, tt.want)
			}
		})
	}
}

func TestBuildCutShortLeavesTheOldMedium(t *testing.T) {
	dir := t.TempDir()
	image := newImage(t, dir, diskfs.SectorSize512, "seed-data")
	out := newFile(t, dir, "medium.raw", "old")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()

	err := media.Build(ctx, media.Options{Image: image, Output: out})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Build said %v, want %v", err, context.Canceled)
	}
	if got := string(read(t, out)); got != "old" {
		t.Errorf("medium holds %d bytes, want the old one", len(got))
	}
	if files, _ := filepath.Glob(filepath.Join(dir, ".*")); len(files) > 0 {
		t.Errorf("left %v behind", files)
	}
}

func TestSeedDoesNotReadOutsideItsDirectory(t *testing.T) {
	dir := t.TempDir()
	seed := newSeed(t, nil)
	if err := os.Symlink(newFile(t, dir, "secret", "x"), filepath.Join(seed, "security.yaml")); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out.raw")
	err := media.Build(t.Context(), media.Options{
		Image: newImage(t, dir, diskfs.SectorSize512, "seed-data"), Output: out, Contents: media.Contents{Seed: seed},
	})
	if err == nil || !strings.Contains(err.Error(), "path escapes from parent") {
		t.Errorf("Build said %v, want it to refuse the symlink", err)
	}
	if _, err := os.Stat(out); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the medium is there (%v)", err)
	}
}

func TestWriteSeedReplacesTheSeed(t *testing.T) {
	dir := t.TempDir()
	medium := newImage(t, dir, diskfs.SectorSize512, "seed-data")
	before := outside(t, medium)
	old := media.Contents{
		Seed: newSeed(t, map[string]string{"security.yaml": "password: hunter2", "services.yaml": strings.Repeat("# hunter2\n", 9000)}),
		Applications: []media.Application{
			{Name: "incus", Version: "1", File: newFile(t, dir, "incus.raw", strings.Repeat("i", 700))},
			{Name: "debug", Version: "2", File: newFile(t, dir, "debug.raw", "d")},
		},
	}
	next := newSeed(t, map[string]string{"install.yaml": ""})
	keeping := "-rw------- 0/0 0 install.yaml 0\n-rw------- 0/0 0 applications/incus_1.raw 700\n-rw------- 0/0 0 applications/debug_2.raw 1\n"
	replacing := "-rw------- 0/0 0 install.yaml 0\n-rw------- 0/0 0 applications/incus_3.raw 2\n"

	tests := map[string]struct {
		apps []media.Application
		want string
	}{
		"and keeps the applications":         {nil, keeping},
		"and the applications, if there are": {[]media.Application{{Name: "incus", Version: "3", File: newFile(t, dir, "new.raw", "nn")}}, replacing},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for _, c := range []media.Contents{old, {Seed: next, Applications: tt.apps}} {
				if err := media.WriteSeed(t.Context(), medium, c); err != nil {
					t.Fatal(err)
				}
			}
			if got := listing(t, medium); got != tt.want {
				t.Errorf("archive holds\n%swant\n%s", got, tt.want)
			}
			if bytes.Contains(read(t, medium), []byte("hunter2")) {
				t.Error("the old seed can still be read")
			}
			if !bytes.Equal(outside(t, medium), before) {
				t.Error("something outside the seed partition changed")
			}
		})
	}
}

func TestWriteSeedCutShortLeavesAnEmptyArchive(t *testing.T) {
	dir := t.TempDir()
	medium := newImage(t, dir, diskfs.SectorSize512, "seed-data")
	c := media.Contents{
		Seed:         newSeed(t, map[string]string{"install.yaml": "a"}),
		Applications: []media.Application{{Name: "incus", Version: "1", File: newFile(t, dir, "incus.raw", "i")}},
	}
	if err := media.WriteSeed(t.Context(), medium, c); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := media.WriteSeed(ctx, medium, c); !errors.Is(err, context.Canceled) {
		t.Fatalf("WriteSeed said %v, want %v", err, context.Canceled)
	}
	if got := listing(t, medium); got != "" {
		t.Errorf("archive holds\n%swant nothing", got)
	}

	c.Applications = nil
	if err := media.WriteSeed(t.Context(), medium, c); err != nil {
		t.Errorf("a second run said %v", err)
	}
}

func TestWriteSeedRefusesToLoseWhatItCannotRead(t *testing.T) {
	medium := newImage(t, t.TempDir(), diskfs.SectorSize512, "seed-data")
	writeAt(t, medium, seedStart, strings.Repeat("something else ", 100))

	err := media.WriteSeed(t.Context(), medium, media.Contents{Seed: newSeed(t, nil)})
	want := "keeping the applications on the medium: the seed partition holds something else than a seed; list the applications to have it overwritten"
	if err == nil || err.Error() != want {
		t.Errorf("WriteSeed said %v, want %s", err, want)
	}
}

// newImage makes a sparse disk image with an EFI system partition, partitions
// of seedSize labelled by labels from seedStart on, and data outside them.
func newImage(t *testing.T, dir string, sector diskfs.SectorSize, labels ...string) string {
	t.Helper()
	file := filepath.Join(dir, strings.Join(labels, "")+".raw")
	d, err := diskfs.Create(file, imageSize, sector)
	if err != nil {
		t.Fatal(err)
	}
	table := &gpt.Table{ProtectiveMBR: true, LogicalSectorSize: int(sector), PhysicalSectorSize: int(sector)}
	add := func(label string, kind gpt.Type, start, size int) {
		table.Partitions = append(table.Partitions, &gpt.Partition{
			Index: len(table.Partitions) + 1, Name: label, Type: kind,
			Start: uint64(start / int(sector)), End: uint64((start+size)/int(sector) - 1),
		})
	}
	add("esp", gpt.EFISystemPartition, mib, mib)
	for i, l := range labels {
		add(l, gpt.LinuxFilesystem, seedStart+i*seedSize, seedSize)
	}
	if err := partitionAndClose(d, table); err != nil {
		t.Fatal(err)
	}
	writeAt(t, file, mib, "boot loader")
	writeAt(t, file, imageSize-2*mib, "usr")
	return file
}

func partitionAndClose(d *disk.Disk, table *gpt.Table) error {
	return errors.Join(d.Partition(table), d.Close())
}

func newSeed(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		newFile(t, dir, name, content)
	}
	return dir
}

func newFile(t *testing.T, dir, name, content string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

func writeAt(t *testing.T, file string, at int64, content string) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte(content), at); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// outside returns the bytes of a disk that are not in its seed partition.
func outside(t *testing.T, file string) []byte {
	t.Helper()
	b := read(t, file)
	return append(b[:seedStart], b[seedStart+seedSize:]...)
}

// listing describes the archive in the seed partition, one file a line.
func listing(t *testing.T, file string) string {
	t.Helper()
	var b strings.Builder
	for tr := tar.NewReader(bytes.NewReader(read(t, file)[seedStart:])); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return b.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&b, h.FileInfo().Mode(), fmt.Sprintf("%d/%d", h.Uid, h.Gid), h.ModTime.Unix(), h.Name, h.Size)
	}
}

// allocated returns how many bytes of the disk a file takes.
func allocated(t *testing.T, file string) int64 {
	t.Helper()
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Blocks * 512
}
