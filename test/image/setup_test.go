//go:build vm

// Package image_test looks into what a build has made, without starting it:
// nobody can log in, nothing is missing that a program needs, nothing is there
// that has no business on the machine, and what is signed is signed by whom and
// for what it should be. Starting it is test/vm's.
//
// The build tag is that of test/vm, since it takes what no checkout has. A
// missing input is a failure that says how to make it, never a skip. Images are
// read without mounting them, so neither root nor the host's kernel matters:
// erofs-utils, zstd, cpio, systemd-analyze and sbverify are those of the tools
// tree.
package image_test

import (
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs/partition/gpt"

	"github.com/incusos/incusos/internal/image"
	"github.com/incusos/incusos/internal/sys"
)

// TestImage takes the newest image apart once and looks at it from all sides.
func TestImage(t *testing.T) {
	b := open(t)
	for name, test := range map[string]func(*testing.T, *built){
		"development images are not released":   testRelease,
		"sizes stay within their budgets":       testSizes,
		"no way leads to a shell":               testNoShell,
		"no account can log in":                 testAccounts,
		"no file gives rights away":             testModes,
		"what only builds is gone":              testUnwanted,
		"machines have no secrets in common":    testUnique,
		"scripts find their interpreters":       testInterpreters,
		"programs find their libraries":         testLibraries,
		"units hold what systemd expects":       testUnits,
		"only what is listed starts":            testStarts,
		"presets are ours alone":                testPresets,
		"accounts that units name exist":        testUnitAccounts,
		"modules fit the kernel and are signed": testModules,
		"the command line binds /usr":           testCommandLine,
		"the initrd is cut into archives":       testInitrd,
		"the TPM policy is for the initrd only": testPolicy,
		"the doctor measures the same":          testMeasured,
		"db signed all that starts":             testSignatures,
		"a repository is trusted":               testUpdateRoot,
		"a virtual machine finds its firmware":  testVirtualMachine,
		"extensions bring /usr and no more":     testExtensions,
		"services find what they call":          testServices,
		"udev rules call what is there":         testUdevRules,
		"the client of Ceph starts":             testCeph,
	} {
		t.Run(name, func(t *testing.T) { test(t, b) })
	}
}

// A built image, taken apart into a directory that the test removes.
type built struct {
	image.Result
	usr       string            // file with the file system of /usr
	sig       string            // file with the signature of its root hash
	cert      string            // file with the db certificate in the image
	base      tree              // the OS alone
	merged    tree              // with Incus
	others    map[string]tree   // the OS with one of the other extensions, by name
	initrd    tree              // what runs before
	sections  map[string][]byte // of the UKI
	sigs      map[string][]byte // signature partitions of the extensions, by name
	tools     string
	dev       bool // it says that it is for developers
	allowsDev bool // somebody said that this is known
}

// trees are all that a machine ever runs from.
func (b *built) trees() map[string]tree {
	all := b.systems()
	all["the initrd"] = b.initrd
	return all
}

// systems are the trees of a machine that has started.
func (b *built) systems() map[string]tree {
	all := map[string]tree{"the system": b.merged}
	for name, r := range b.others {
		all["the system with "+name] = r
	}
	return all
}

func open(t *testing.T) *built {
	t.Helper()
	r, err := image.Latest(input(t, "INCUSOS_IMAGE_DIR", "image"))
	if err != nil {
		t.Fatal(err)
	}
	tools, err := (&image.Builder{Cache: cache(t)}).ToolsDir()
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.TrimSuffix(r.Disk, ".raw") + ".usr-x86-64"
	b := &built{
		Result: r,
		usr:    only(t, parts+".*.raw"),
		sig:    only(t, parts+"-verity-sig.*.raw"),
		tools:  input(t, "INCUSOS_TOOLS", filepath.Base(tools)),
	}
	dir := t.TempDir()
	b.base, b.merged, b.initrd = tree(dir+"/base"), tree(dir+"/merged"), tree(dir+"/initrd")
	b.extractSystem(t, dir)
	b.sections = sections(t, r.UKI)
	b.extractInitrd(t)
	b.cert = b.base.path("usr/lib/verity.d/incus-os.crt")
	b.dev = b.base.has("usr/lib/incus-os/dev-build")
	b.allowsDev = os.Getenv("INCUSOS_DEV") == "1"
	t.Logf("image %s in %s", r.Version, filepath.Dir(r.Disk))
	return b
}

// extractSystem makes a tree of the OS, and one with the application as well.
// Both are complete but for /etc, which is the set of defaults.
func (b *built) extractSystem(t *testing.T, dir string) {
	t.Helper()
	if err := os.Mkdir(string(b.base), 0o755); err != nil {
		t.Fatal(err)
	}
	b.run(t, "/usr/bin/fsck.erofs", "-d0", "--preserve-perms", "--no-preserve-owner", "--extract="+b.base.path("usr"), b.usr)
	for link, to := range map[string]string{"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"} {
		if err := os.Symlink(to, b.base.path(link)); err != nil {
			t.Fatal(err)
		}
	}
	b.run(t, "/usr/bin/cp", "-a", b.base.path("usr/share/factory/etc"), b.base.path("etc"))

	b.sigs, b.others = make(map[string][]byte), make(map[string]tree)
	b.extract(t, dir, b.Incus, b.merged)
	for _, file := range b.Others {
		name := extensionName(file)
		b.others[name] = tree(filepath.Join(dir, "with-"+name))
		b.extract(t, dir, file, b.others[name])
	}
}

// extract makes a tree of the OS with an extension, which also lies beside it alone.
func (b *built) extract(t *testing.T, dir, file string, to tree) {
	t.Helper()
	root, sig := ddi(t, file)
	b.sigs[extensionName(file)] = sig
	alone := filepath.Join(dir, extensionName(file))
	b.run(t, "/usr/bin/fsck.erofs", "-d0", "--preserve-perms", "--no-preserve-owner", "--extract="+alone, "--offset="+root, file)
	b.run(t, "/usr/bin/cp", "-a", "--link", string(b.base), string(to))
	// What it has in place of a file of the OS is another file, not the same one changed.
	b.run(t, "/usr/bin/cp", "-a", "--link", "--force", alone+"/.", string(to))
}

func extensionName(file string) string { return strings.TrimSuffix(filepath.Base(file), ".raw") }

// alone is the tree of an extension without the OS.
func (b *built) alone(name string) tree {
	return tree(filepath.Join(filepath.Dir(string(b.base)), name))
}

// command is a program of the tools tree, run through the tree's own loader.
func (b *built) command(program string, args ...string) sys.Cmd {
	libraries := b.tools + "/usr/lib/x86_64-linux-gnu"
	line := append([]string{"--library-path", libraries + ":" + libraries + "/systemd", b.tools + program}, args...)
	return sys.Command(b.tools+"/usr/lib64/ld-linux-x86-64.so.2", line...)
}

func (b *built) run(t *testing.T, program string, args ...string) {
	t.Helper()
	if _, err := sys.Real().Exec.Run(t.Context(), b.command(program, args...)); err != nil {
		t.Fatal(err)
	}
}

// ddi returns where in a disk image the root file system begins, in bytes, and
// the signature of its root hash (Discoverable Partitions Specification).
func ddi(t *testing.T, name string) (root string, sig []byte) {
	t.Helper()
	const rootX86, sigX86 = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709", "41092B05-9FC8-4523-994F-2DEF0408B176"
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table, err := gpt.Read(f, 512, 512)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range table.Partitions {
		switch strings.ToUpper(string(p.Type)) {
		case rootX86:
			root = strconv.FormatUint(p.Start*512, 10)
		case sigX86:
			if sig, err = io.ReadAll(io.NewSectionReader(f, int64(p.Start)*512, int64(p.End-p.Start+1)*512)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if root == "" || sig == nil {
		t.Fatalf("%s has no root file system with a signature", name)
	}
	return root, sig
}

// input returns a directory that the test needs: what a variable of the
// environment says, or its place in the cache.
func input(t *testing.T, variable, inCache string) string {
	t.Helper()
	name := os.Getenv(variable)
	if name == "" {
		name = filepath.Join(cache(t), inCache)
	}
	if _, err := os.Stat(name); err != nil {
		t.Fatalf("%v; run `make image`, or let %s say where it is", err, variable)
	}
	return name
}

func cache(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("INCUSOS_CACHE"); dir != "" {
		return dir
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "incusos")
}

// only returns the one file that a pattern finds.
func only(t *testing.T, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != 1 {
		t.Fatalf("want one file %s, found %q; run `make clean image`", pattern, found)
	}
	return found[0]
}
