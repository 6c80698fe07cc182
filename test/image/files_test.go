//go:build vm

package image_test

import (
	"bytes"
	"debug/elf"
	"errors"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/incusos/incusos/internal/repo"
)

func testRelease(t *testing.T, b *built) {
	if b.dev && !b.allowsDev {
		t.Error("this is an image for developers, with a root shell; build one without the profile dev, or set INCUSOS_DEV=1")
	}
	if !b.dev && b.merged.has("usr/lib/systemd/system/incus-os-dev-shell.service") {
		t.Error("the developers' shell is in an image that does not say so")
	}
}

// testUpdateRoot looks whether the image can tell its repository from others: it has
// a root whose keys are those that it says, and whose signatures are theirs.
func testUpdateRoot(t *testing.T, b *built) {
	const name = "usr/lib/incus-os/update-root.json"
	if !b.base.has(name) {
		t.Fatalf("the image has no %s", name)
	}
	version, roles, err := repo.RootVersion([]byte(b.base.read(t, name)))
	if err != nil || version < 1 {
		t.Fatalf("%s has version %d (%v); want a root", name, version, err)
	}
	for _, role := range repo.Roles() {
		if len(roles[role]) == 0 {
			t.Errorf("nobody may sign %s", role)
		}
	}
	if version > 1 {
		return // one that was rotated; what began it is not at hand
	}
	if _, err := repo.Begin([]byte(b.base.read(t, name))); err != nil {
		t.Error(err)
	}
}

// testSizes holds the promise of a small download, and of slots that last for
// years: usr may take a sixth of its slot, UKIs share an ESP of 512 MB.
func testSizes(t *testing.T, b *built) {
	type budget struct {
		file string
		most int64
	}
	budgets := map[string]budget{
		"/usr":            {b.usr, 170e6},
		"the UKI":         {b.UKI, 40e6},
		"the application": {b.Incus, 200e6},
	}
	for _, file := range b.Others {
		name := extensionName(file)
		budgets["the extension "+name] = budget{file, map[string]int64{"storage": 15e6, "ovn": 25e6, "incus-ceph": 50e6}[name]}
	}
	for what, budget := range budgets {
		info, err := os.Stat(budget.file)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s takes %.1f MB of %d MB", what, float64(info.Size())/1e6, budget.most/1e6)
		if info.Size() > budget.most {
			t.Errorf("%s takes %d bytes, want at most %d", what, info.Size(), budget.most)
		}
	}
}

// Package managers, interpreters and compilers: an image that cannot be changed
// has no use for the first, and an intruder much for the others.
var unwanted = []string{
	"usr/bin/apt*", "usr/bin/dpkg*", "usr/sbin/dpkg*", "usr/bin/debconf*", "usr/lib/apt", "usr/lib/dpkg", "usr/libexec/dpkg", "usr/share/debconf",
	"usr/bin/python*", "usr/bin/perl*", "usr/bin/bash", "usr/bin/rbash", "usr/bin/ruby*", "usr/bin/lua*", "usr/bin/tclsh*",
	"usr/lib/python3*", "usr/lib/*/perl*", "usr/share/perl*", "usr/lib/*/libpython3*",
	"usr/bin/gcc*", "usr/bin/cc", "usr/bin/ld", "usr/bin/make", "usr/bin/gdb",
	"usr/bin/curl", "usr/bin/wget", "usr/bin/nc*",
	"usr/include",
}

// unread is what nobody reads on a machine without a shell; developers' tools
// bring it.
var unread = []string{"usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale"}

func testUnwanted(t *testing.T, b *built) {
	patterns := unwanted
	if !b.dev {
		patterns = slices.Concat(unwanted, unread)
	}
	for what, r := range b.trees() {
		for _, pattern := range patterns {
			if what == "the system with incus-ceph" && slices.Contains(python, pattern) {
				continue
			}
			for _, name := range r.glob(t, pattern) {
				t.Errorf("%s has %s", what, name)
			}
		}
	}
}

// python is what `ceph` is written in: it is on those machines that are clients of a
// Ceph cluster, and on no other.
var python = []string{"usr/bin/python*", "usr/lib/python3*"}

// testInterpreters: a script that cannot run is a package's left-over, or worse
// something that was meant to run.
func testInterpreters(t *testing.T, b *built) {
	for what, r := range b.trees() {
		r.regular(t, func(name string) {
			program, ok := interpreter(t, r.path(name))
			if ok && !r.has(program) {
				t.Errorf("%s: %s is for %s, which is not there", what, name, program)
			}
		})
	}
}

// interpreter returns what the first line of a script asks for; `env` is asked
// to find its argument in /usr/bin.
func interpreter(t *testing.T, file string) (program string, ok bool) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	start := make([]byte, 256)
	n, err := io.ReadFull(f, start)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	line, script := bytes.CutPrefix(start[:n], []byte("#!"))
	if !script {
		return "", false
	}
	line, _, _ = bytes.Cut(line, []byte("\n"))
	words := strings.Fields(string(line))
	switch {
	case len(words) == 0 || !strings.HasPrefix(words[0], "/"):
		return "", false
	case len(words) > 1 && path.Base(words[0]) == "env":
		return "/usr/bin/" + words[len(words)-1], true
	}
	return words[0], true
}

// libraryDirs are the dynamic loader's own (ld.so(8), Debian's multiarch).
var libraryDirs = []string{"usr/lib/x86_64-linux-gnu", "usr/lib64", "usr/lib"}

// testLibraries asks for each program and library of this architecture what the
// dynamic loader would.
func testLibraries(t *testing.T, b *built) {
	for what, r := range b.trees() {
		count := 0
		r.regular(t, func(name string) {
			f, err := elf.Open(r.path(name))
			if err != nil {
				return // no ELF file, or one for another machine to read
			}
			defer f.Close()
			if f.Machine != elf.EM_X86_64 || f.Type != elf.ET_DYN && f.Type != elf.ET_EXEC {
				return
			}
			count++
			for _, lib := range missing(r, name, f) {
				t.Errorf("%s: %s needs %s, which is not there", what, name, lib)
			}
		})
		if count < 50 {
			t.Errorf("%s has %d programs and libraries; this test does not see them", what, count)
		}
	}
}

func missing(r tree, name string, f *elf.File) []string {
	// A private library finds another beside it: the program has loaded that.
	dirs := append(slices.Clone(libraryDirs), path.Dir(name))
	for _, tag := range []elf.DynTag{elf.DT_RPATH, elf.DT_RUNPATH} {
		paths, err := f.DynString(tag)
		if err != nil {
			continue
		}
		for _, p := range paths {
			for dir := range strings.SplitSeq(p, ":") {
				dirs = append(dirs, strings.ReplaceAll(dir, "$ORIGIN", path.Dir("/"+name)))
			}
		}
	}
	needed, err := f.ImportedLibraries()
	if err != nil {
		return []string{err.Error()}
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			loader, err := io.ReadAll(p.Open())
			if err != nil || !r.has(strings.TrimRight(string(loader), "\x00")) {
				return []string{string(loader)}
			}
		}
	}
	return slices.DeleteFunc(needed, func(lib string) bool {
		return slices.ContainsFunc(dirs, func(dir string) bool { return r.has(path.Join(dir, lib)) })
	})
}
