package sys_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"testing"

	"github.com/incusos/incusos/internal/sys"
)

// names returns what is in the directory of a tree.
func names(t *testing.T, d sys.Dir, dir string) []string {
	t.Helper()
	entries, err := d.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func TestNamesStayInTheTree(t *testing.T) {
	d := sys.NewDir("/tree")
	for name, want := range map[string]string{
		"/etc/hostname": "/tree/etc/hostname", "etc": "/tree/etc", "/../../etc/shadow": "/tree/etc/shadow", "/": "/tree",
	} {
		if got := d.Path(name); got != want {
			t.Errorf("Path(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestWriteFileReplaces(t *testing.T) {
	d := sys.NewDir(t.TempDir())
	for _, tt := range []struct {
		content string
		perm    fs.FileMode
	}{{"first, which is longer", 0o644}, {"second", 0o600}} {
		if err := d.WriteFile("/a/b/file", []byte(tt.content), tt.perm); err != nil {
			t.Fatal(err)
		}
		got, err := d.ReadFile("/a/b/file")
		fi, err2 := d.Stat("/a/b/file")
		if err := errors.Join(err, err2); err != nil || string(got) != tt.content || fi.Mode().Perm() != tt.perm {
			t.Errorf("the file is %q, %v; want %q, %v", got, err, tt.content, tt.perm)
		}
	}
	if got := names(t, d, "/a/b"); len(got) != 1 {
		t.Errorf("the directory has %q, want the file alone", got)
	}
}

func TestSweep(t *testing.T) {
	d := sys.NewDir(t.TempDir())
	r, err := d.Create("/a/b/file", 0o600) // and then the power fails
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, name := range []string{"/a/file", "/a/.hidden", "/a/.1", "/a/file.1", "/a/b/.file.5.bak", "/elsewhere/.file.7"} {
		if err := d.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	swept, err := d.Sweep("/a")
	if len(swept) != 1 || err != nil {
		t.Errorf("swept %q, %v; want one", swept, err)
	}
	if got := fmt.Sprint(names(t, d, "/a"), names(t, d, "/a/b"), names(t, d, "/elsewhere")); got != "[.1 .hidden b file file.1] [.file.5.bak] [.file.7]" {
		t.Errorf("there is %s", got)
	}
	if swept, err := d.Sweep("/nowhere"); len(swept) > 0 || err != nil {
		t.Errorf("of nothing, swept %q, %v", swept, err)
	}
	stuck := d.WithFault(func(string, string) error { return errors.New("no") })
	if _, err := stuck.Sweep("/elsewhere"); err == nil {
		t.Error("what cannot be removed is not reported")
	}
}

func TestAbortedReplacementLeavesNothing(t *testing.T) {
	d := sys.NewDir(t.TempDir())
	if err := d.WriteFile("/file", []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	r, err := d.Create("/file", 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.WriteString("half of the n"); err != nil {
		t.Fatal(err)
	}
	if got, _ := d.ReadFile("/file"); string(got) != "old" {
		t.Errorf("before it is complete, the file is %q, want what it was", got)
	}
	if err := r.Abort(); err != nil {
		t.Fatal(err)
	}
	if got, _ := d.ReadFile("/file"); string(got) != "old" || len(names(t, d, "/")) != 1 {
		t.Errorf("the file is %q and the directory has %q, want what was there", got, names(t, d, "/"))
	}
}

// A directory cannot be replaced by a file: Commit fails at its last step.
func TestFailedCommitLeavesNothing(t *testing.T) {
	d := sys.NewDir(t.TempDir())
	if err := d.MkdirAll("/name/inside", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := d.WriteFile("/name", nil, 0o644); err == nil {
		t.Error("WriteFile replaced a directory")
	}
	if got := names(t, d, "/"); len(got) != 1 {
		t.Errorf("the directory has %q, want what was there", got)
	}
}

func TestSymlinkReplaces(t *testing.T) {
	d := sys.NewDir(t.TempDir())
	if err := d.WriteFile("/link.new", []byte("left by a cut"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{"/first", "../second", "../second"} {
		if err := d.Symlink(target, "/link"); err != nil {
			t.Fatal(err)
		}
		if got, err := d.Readlink("/link"); err != nil || got != target {
			t.Errorf("the link leads to %q, %v; want %q", got, err, target)
		}
	}
	if got := names(t, d, "/"); len(got) != 1 {
		t.Errorf("the directory has %q, want the link alone", got)
	}
	if !d.Exists("/link") {
		t.Error("a link that leads nowhere does not exist")
	}
}

func TestPutFileWritesInPlace(t *testing.T) {
	d := sys.NewDir(t.TempDir())
	if err := d.PutFile("/attribute", []byte("1")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("PutFile() = %v for a file that is not there, want that it is not made", err)
	}
	if err := d.WriteFile("/attribute", []byte("0\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	before, err := d.Stat("/attribute")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.PutFile("/attribute", []byte("1")); err != nil {
		t.Fatal(err)
	}
	after, err := d.Stat("/attribute")
	got, _ := d.ReadFile("/attribute")
	if err != nil || !os.SameFile(before, after) || string(got) != "1\n" {
		t.Errorf("the attribute is %q, %v, the same file: %v", got, err, os.SameFile(before, after))
	}
}

func TestFaultsComeBeforeEffects(t *testing.T) {
	errCut := errors.New("cut")
	var ops []string
	d := sys.NewDir(t.TempDir())
	if err := d.WriteFile("/old", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	faulty := d.WithFault(func(op, name string) error { ops = append(ops, op+" "+name); return errCut })
	_, open := faulty.OpenDevice("/old")
	for _, err := range []error{
		open, faulty.WriteFile("/new", nil, 0o644), faulty.PutFile("/old", []byte("x")), faulty.MkdirAll("/dir", 0o755),
		faulty.Symlink("x", "/link"), faulty.Rename("/old", "/moved"), faulty.Remove("/old"), faulty.RemoveAll("/old"),
	} {
		if !errors.Is(err, errCut) {
			t.Errorf("an operation ended with %v, want the fault", err)
		}
	}
	if got := names(t, d, "/"); len(got) != 1 || got[0] != "old" || len(ops) != 8 {
		t.Errorf("the directory has %q after %q, want what was there", got, ops)
	}
}

func TestOpenDeviceMakesNone(t *testing.T) {
	d := sys.NewDir(t.TempDir())
	if f, err := d.OpenDevice("/sda"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("OpenDevice() = %v, %v; want that there is none", f, err)
	}
}

func TestRenameReplaces(t *testing.T) {
	d := sys.NewDir(t.TempDir())
	if err := errors.Join(d.WriteFile("/a", []byte("a"), 0o644), d.WriteFile("/b", []byte("b"), 0o644), d.Rename("/a", "/b")); err != nil {
		t.Fatal(err)
	}
	if got, err := d.ReadFile("/b"); err != nil || string(got) != "a" || d.Exists("/a") {
		t.Errorf("the file is %q, %v; want that it took the place", got, err)
	}
}

func TestLink(t *testing.T) {
	d := sys.NewDir(t.TempDir())
	for _, name := range []string{"/a/file", "/b/there"} {
		if err := d.WriteFile(name, []byte("content of "+name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Link("/a/file", "/b/file"); err != nil {
		t.Fatal(err)
	}
	if err := d.Remove("/a/file"); err != nil {
		t.Fatal(err)
	}
	if b, err := d.ReadFile("/b/file"); err != nil || string(b) != "content of /a/file" {
		t.Errorf("the other name has %q, %v", b, err)
	}
	if err := d.Link("/b/file", "/b/there"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Link() onto a file that is there = %v, want %v", err, fs.ErrExist)
	}
	broken := errors.New("broken")
	failing := d.WithFault(func(op, _ string) error {
		if op == "link" {
			return broken
		}
		return nil
	})
	if err := failing.Link("/b/file", "/b/more"); !errors.Is(err, broken) || d.Exists("/b/more") {
		t.Errorf("Link() = %v, want %v", err, broken)
	}
}
