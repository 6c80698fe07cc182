package update_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/incusos/incusos/internal/fetch"
	"github.com/incusos/incusos/internal/publish"
	"github.com/incusos/incusos/internal/publish/publishtest"
	"github.com/incusos/incusos/internal/repo"
	"github.com/incusos/incusos/internal/sets"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/sys/systest"
	"github.com/incusos/incusos/internal/update"
	"github.com/incusos/incusos/internal/verity"
)

// Versions that the tests on a pretend disk go from and to.
const (
	from = "202611271200"
	to   = "202611281200"
)

const table = `label: gpt
size=32MiB, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name="esp", uuid=AAAAAAAA-0000-0000-0000-000000000001
size=1MiB, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name="seed-data"
size=16KiB, type=E7BB33FB-06CF-4E81-8273-E543B413E2E2, name="IncusOS_202611271200_verity_sig"
size=1MiB, type=77FF5F63-E7B6-4633-ACF4-1565B864C0E6, name="IncusOS_202611271200_verity"
size=8MiB, type=8484680C-9521-48C6-9C11-B0720656F69E, name="IncusOS_202611271200"
size=16KiB, type=E7BB33FB-06CF-4E81-8273-E543B413E2E2, name="_empty"
size=1MiB, type=77FF5F63-E7B6-4633-ACF4-1565B864C0E6, name="_empty"
size=8MiB, type=8484680C-9521-48C6-9C11-B0720656F69E, name="_empty"
`

// A bench is a pretend machine that runs the first of two releases, and a server
// with both.
type bench struct {
	*systest.Rig
	t       *testing.T
	disks   *systest.DiskTools
	images  map[string][]byte        // file systems by version
	built   map[string]publish.Build // by version
	release repo.Release
	first   repo.Release // the one that is installed
	server  *fetch.Server
	address string
	dir     string                         // where the repository is
	change  func(func(*repo.Author) error) // changes it
	root    []byte                         // of the repository
	left    atomic.Int64                   // requests that are answered
}

func noise(seed byte, blocks int) []byte {
	b := make([]byte, blocks*verity.BlockSize)
	mathrand.NewChaCha8([32]byte{seed}).Read(b) //nolint:errcheck // never fails
	return b
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{Rig: systest.New(t, systest.Sensible()), t: t, images: map[string][]byte{from: noise(1, 1500)}, built: make(map[string]publish.Build)}
	b.images[to] = bytes.Clone(b.images[from])
	copy(b.images[to][700*verity.BlockSize:], noise(2, 40))
	clear(b.images[to][1400*verity.BlockSize:])
	b.left.Store(1 << 40)
	b.publish()
	b.install()
	return b
}

// publish makes a repository of both releases and serves it.
func (b *bench) publish() {
	b.t.Helper()
	dir, with := publishtest.New(b.t)
	for _, version := range []string{from, to} {
		err := publish.Change(b.t.Context(), dir, with, func(a *repo.Author) error {
			return publish.Publish(b.t.Context(), dir, a, b.build(version), publish.Terms{Channel: "stable", Percent: 100, Severity: "none"}, time.Now())
		})
		if err != nil {
			b.t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		b.t.Fatal(err)
	}
	serve := publish.Handler(root, "")
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if b.left.Add(-1) < 0 {
			panic(http.ErrAbortHandler)
		}
		serve.ServeHTTP(w, r)
	}))
	b.t.Cleanup(func() { web.Close(); root.Close() }) //nolint:errcheck // a test
	if b.server, err = fetch.Open(web.URL, fetch.Options{Attempts: 1}); err != nil {
		b.t.Fatal(err)
	}
	contents, err := publish.Show(b.t.Context(), dir)
	if err != nil {
		b.t.Fatal(err)
	}
	b.first = contents.Releases[1]
	b.release, b.root, b.address, b.dir = contents.Releases[0], contents.Root, web.URL, dir
	b.change = func(do func(*repo.Author) error) {
		if err := publish.Change(b.t.Context(), dir, with, do); err != nil {
			b.t.Fatal(err)
		}
	}
}

// add adds a release to the repository.
func (b *bench) add(build publish.Build) {
	b.t.Helper()
	b.change(func(a *repo.Author) error {
		return publish.Publish(b.t.Context(), b.dir, a, build, publish.Terms{Channel: "stable", Percent: 100, Severity: "none"}, time.Now())
	})
}

// kernelOf is an image with a kernel, an initrd that has another size in the second
// version, and what lies behind that.
func kernelOf(version string, usr verity.Digest) []byte {
	b := make([]byte, verity.BlockSize)
	copy(b, fmt.Sprintf("kernel usrhash=%v quiet", usr))
	b = append(b, noise(5, 100)...)
	b = append(b, noise(version[7], 3)...)
	if version == to {
		b = append(b, noise(6, 1)[:512]...)
	}
	return append(b, noise(7, 150)...)
}

// build writes what a build of a version leaves.
func (b *bench) build(version string) publish.Build {
	b.t.Helper()
	dir, usr := b.t.TempDir(), b.images[version]
	tree, err := verity.Build(b.t.Context(), verity.Superblock{Blocks: verity.BlocksOf(int64(len(usr))), Salt: []byte(version)}, bytes.NewReader(usr))
	if err != nil {
		b.t.Fatal(err)
	}
	base := "IncusOS_" + version
	for name, content := range map[string][]byte{
		"version":                             []byte(version + "\n"),
		base + ".usr-x86-64.0.raw":            usr,
		base + ".usr-x86-64-verity.0.raw":     tree.Bytes(),
		base + ".usr-x86-64-verity-sig.0.raw": fmt.Appendf(nil, `{"rootHash":"%v","signature":"YQ=="}`, tree.Root),
		base + ".efi":                         kernelOf(version, tree.Root),
		"incus.raw":                           append(noise(3, 200), version...),
		"ovn.raw":                             noise(4, 200),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			b.t.Fatal(err)
		}
	}
	build, err := publish.FindBuild(dir)
	if err != nil {
		b.t.Fatal(err)
	}
	b.built[version] = build
	return build
}

// install makes the machine one that runs the first release.
func (b *bench) install() {
	b.t.Helper()
	b.disks = systest.AddDiskTools(b.Rig)
	c := sys.Command("sfdisk", "/dev/vda")
	c.Stdin = strings.NewReader(table)
	if _, err := b.Host.Exec.Run(b.t.Context(), c); err != nil {
		b.t.Fatal(err)
	}
	value := []byte{6, 0, 0, 0}
	for _, c := range "aaaaaaaa-0000-0000-0000-000000000001\x00" {
		value = append(value, byte(c), 0)
	}
	if err := b.Host.Files.WriteFile("/sys/firmware/efi/efivars/LoaderDevicePartUUID-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f", value, 0o644); err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.Host.Exec.Run(b.t.Context(), sys.Command("mkfs.vfat", b.part(1).Path)); err != nil {
		b.t.Fatal(err)
	}
	b.write(b.part(5).Path, b.images[from])
	b.write("/var/lib/incus-os-extensions/"+from+"/incus.raw", append(noise(3, 200), from...))
	if err := sets.Open(b.Host.Files).Runs(from, sets.Set{"incus": from}); err != nil {
		b.t.Fatal(err)
	}
	old, err := os.ReadFile(b.built[from].UKI)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := b.esp().Add(from, 0, old); err != nil {
		b.t.Fatal(err)
	}
	if err := b.esp().Bless(update.Entry{Version: from}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) part(number int) sys.Partition {
	b.t.Helper()
	disk, err := sys.BootDisk(b.Host.Files)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, p := range disk.Partitions {
		if p.Number == number {
			return p
		}
	}
	b.t.Fatalf("there is no partition %d", number)
	return sys.Partition{}
}

func (b *bench) write(name string, content []byte) {
	b.t.Helper()
	file := b.Host.Files.Path(name)
	if err := os.MkdirAll(path.Dir(file), 0o700); err != nil {
		b.t.Fatal(err)
	}
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := f.WriteAt(content, 0); err != nil {
		b.t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) esp() update.ESP { return update.ESP{Host: b.Host, Device: b.part(1).Path} }

// updater returns the updater of a version that runs, and the release to stage.
func (b *bench) updater(running string) (*update.Updater, update.Fetched) {
	b.t.Helper()
	disk, err := update.FindSlots(b.Host, running)
	if err != nil {
		b.t.Fatal(err)
	}
	all := sets.Open(b.Host.Files)
	runs, err := all.Of(running)
	if err != nil {
		b.t.Fatal(err)
	}
	u := &update.Updater{Running: running, Loader: b.esp(), Slots: disk, Records: update.File{Files: b.Host.Files}, Sets: all}
	return u, update.Fetched{
		Download: update.Download{Server: b.server, Release: b.release, Tally: new(fetch.Tally)},
		Files:    b.Host.Files, Disk: disk, ESP: b.esp(), Architecture: "x86_64", Wish: update.Wish{Installed: []string{"incus"}, Runs: runs},
	}
}

func (b *bench) has(name string, want []byte) {
	b.t.Helper()
	got, err := b.Host.Files.ReadFile(name)
	if err != nil {
		b.t.Fatal(err)
	}
	if !bytes.HasPrefix(got, want) {
		b.t.Errorf("%s does not hold what it should", name)
	}
}

// From a repository to a slot, an entry and back to idle, on a pretend disk.
func TestUpdateOfADisk(t *testing.T) {
	b := newBench(t)
	u, c := b.updater(from)
	if err := u.Stage(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	b.has(b.part(8).Path, b.images[to])
	b.has(b.part(5).Path, b.images[from])
	b.has("/var/lib/incus-os-extensions/"+to+"/incus.raw", append(noise(3, 200), to...))
	if b.Host.Files.Exists("/var/lib/incus-os-extensions/" + to + "/ovn.raw") {
		t.Error("an application was stored that is not installed")
	}
	for number, label := range map[int]string{5: "IncusOS_" + from, 6: "IncusOS_" + to + "_verity_sig", 7: "IncusOS_" + to + "_verity", 8: "IncusOS_" + to} {
		if got := b.part(number).Label; got != label {
			t.Errorf("partition %d is called %s, want %s", number, got, label)
		}
	}
	usr, _ := b.release.File(to + "/x86_64/os/usr.raw")
	tree, err := b.Host.Files.Open(b.part(7).Path)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close() //nolint:errcheck // only read
	root, _ := verity.ParseDigest(usr.RootHash)
	if _, err := verity.ReadTree(tree, root, 1<<20); err != nil {
		t.Error(err)
	}
	// 40 blocks of the file system, one of Incus and six of the kernel changed; indexes
	// and signature are a few more.
	if n := c.Tally.Bytes.Load(); n > 60*verity.BlockSize {
		t.Errorf("%d blocks were fetched, want 40 and little more", n/verity.BlockSize)
	}
	entries, err := b.esp().Entries()
	if err != nil || fmt.Sprint(entries) != fmt.Sprint([]update.Entry{{Version: to, Counted: true, Left: 3}, {Version: from}}) && fmt.Sprint(entries) != fmt.Sprint([]update.Entry{{Version: from}, {Version: to, Counted: true, Left: 3}}) {
		t.Errorf("entries are %+v (%v)", entries, err)
	}
	if what, err := u.Settle(t.Context(), nil); what != update.Restart || err != nil {
		t.Errorf("the old version says %s (%v)", what, err)
	}
	next, _ := b.updater(to)
	if what, err := next.Settle(t.Context(), func(context.Context) error { return nil }); what != update.Good || err != nil {
		t.Errorf("the new version says %s (%v)", what, err)
	}
	if r, err := next.Records.Load(); err != nil || r.Phase != update.Idle || r.Blessed != to {
		t.Errorf("the record is %+v (%v)", r, err)
	}
	all, err := sets.Open(b.Host.Files).Get()
	if want := map[string]sets.System{from: {Now: sets.Set{"incus": from}}, to: {Now: sets.Set{"incus": to}}}; err != nil || !reflect.DeepEqual(all.Systems, want) {
		t.Errorf("the sets are %+v (%v), want %+v", all.Systems, err, want)
	}
	if n := b.disks.Mounted(); n != 0 {
		t.Errorf("%d file systems are still mounted", n)
	}
}

// Of a kernel image no more is fetched than has changed, whatever lies behind it.
func TestKernelIsMadeOfTheOldOne(t *testing.T) {
	tests := map[string]struct {
		before func(*bench)
		most   int64 // blocks, and the index
	}{
		"of the old one":    {func(*bench) {}, 8},
		"there is none":     {func(b *bench) { must(b.t, b.esp().Remove(update.Entry{Version: from})) }, 300},
		"it cannot be read": {func(b *bench) { b.disks.FileSystem(b.part(1).Path, "ext4") }, 300}, //nolint:errcheck // seen below
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			tt.before(b)
			_, c := b.updater(from)
			kernel, err := c.Kernel(t.Context())
			must(t, err)
			want, err := os.ReadFile(b.built[to].UKI)
			must(t, err)
			if !bytes.Equal(kernel, want) {
				t.Error("it is another kernel")
			}
			if n := c.Tally.Bytes.Load(); n > tt.most*verity.BlockSize || tt.most > 100 && n < int64(len(want))-512 {
				t.Errorf("%d blocks were fetched, want at most %d", n/verity.BlockSize, tt.most)
			}
		})
	}
}

// A kernel that has the right blocks and is not what was signed is not started.
func TestKernelIsCheckedWhole(t *testing.T) {
	b := newBench(t)
	has, err := os.ReadFile(b.built[to].UKI)
	must(t, err)
	must(t, b.esp().Add(to, 0, has)) // so that nothing is fetched
	_, c := b.updater(from)
	for i := range c.Release.Files {
		if c.Release.Files[i].Kind == repo.KindUKI {
			c.Release.Files[i].SHA256[0] ^= 1
		}
	}
	if _, err := c.Kernel(t.Context()); err == nil || !strings.Contains(err.Error(), "it is not what the repository signed") {
		t.Errorf("Kernel() = %v", err)
	}
}

// The server goes away after every so many requests; what was fetched stays.
func TestUpdateGoesOnAfterTheServerWentAway(t *testing.T) {
	b := newBench(t)
	clear(b.images[from][:])
	b.write(b.part(5).Path, b.images[from]) // nothing on the disk is of use
	total := int64(0)
	for range 40 {
		b.left.Store(4)
		u, c := b.updater(from)
		err := u.Stage(t.Context(), c)
		total += c.Tally.Bytes.Load()
		if err == nil {
			b.has(b.part(8).Path, b.images[to])
			if most := int64(1900 * verity.BlockSize); total > most {
				t.Errorf("%d bytes were fetched, want at most %d", total, most)
			}
			return
		}
	}
	t.Error("it is never done")
}

func TestReleasesThatDoNotFit(t *testing.T) {
	tests := map[string]struct {
		change func(*update.Fetched)
		want   string
	}{
		"no room":              {func(c *update.Fetched) { c.Disk.Other.Usr.Size = 1 << 20 }, "the slot has room for 1048576"},
		"no room for the tree": {func(c *update.Fetched) { c.Disk.Other.Tree.Size = 100 }, "has 100 bytes; want"},
		"architecture":         {func(c *update.Fetched) { c.Architecture = "aarch64" }, "has 0 files \"update-usr\" of os for aarch64; want one"},
		"another root hash": {func(c *update.Fetched) {
			for i := range c.Release.Files {
				if c.Release.Files[i].Kind == repo.KindUsr {
					c.Release.Files[i].RootHash = strings.Repeat("ab", 32)
				}
			}
		}, "does not sign the root hash abab"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			u, c := b.updater(from)
			tt.change(&c)
			if err := u.Stage(t.Context(), c); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Stage said %v, want %q", err, tt.want)
			}
			if entries, err := b.esp().Entries(); err != nil || len(entries) != 1 {
				t.Errorf("entries are %+v (%v)", entries, err)
			}
		})
	}
}

func TestSlotsAreFound(t *testing.T) {
	b := newBench(t)
	if _, err := update.FindSlots(b.Host, "202601010000"); err == nil || !strings.Contains(err.Error(), "has 0 slots with version 202601010000, which runs; want one") {
		t.Errorf("it said %v", err)
	}
	broken := errors.New("the disk is broken")
	b.Programs.Fail("sfdisk", broken)
	u, c := b.updater(from)
	if err := u.Stage(t.Context(), c); !errors.Is(err, broken) {
		t.Errorf("it said %v", err)
	}
}
