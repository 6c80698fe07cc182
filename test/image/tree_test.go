//go:build vm

package image_test

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A tree is the directory of an extracted file system. Names in it are relative
// and have slashes.
type tree string

func (r tree) path(name string) string { return filepath.Join(string(r), name) }

// walk calls f for each file, directory and link, by its own name.
func (r tree) walk(t *testing.T, f func(name string, info fs.FileInfo)) {
	t.Helper()
	err := filepath.WalkDir(string(r), func(full string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(string(r), full)
		f(filepath.ToSlash(name), info)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// regular calls f for each regular file.
func (r tree) regular(t *testing.T, f func(name string)) {
	t.Helper()
	r.walk(t, func(name string, info fs.FileInfo) {
		if info.Mode().IsRegular() {
			f(name)
		}
	})
}

// glob returns what there is, links to nowhere too.
func (r tree) glob(t *testing.T, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(r.path(pattern))
	if err != nil {
		t.Fatal(err)
	}
	for i := range found {
		found[i] = strings.TrimPrefix(found[i], string(r)+"/")
	}
	return found
}

// has reports whether a name leads to a file, as it would on the machine.
func (r tree) has(name string) bool {
	_, ok := r.resolve(name)
	return ok
}

// resolve follows links, absolute ones from the tree's root. A link out of the
// tree, such as one into /run, leads nowhere.
func (r tree) resolve(name string) (string, bool) {
	todo := strings.Split(strings.Trim(path.Clean("/"+name), "/"), "/")
	at := "/"
	for links := 0; len(todo) > 0 && links < 40; {
		next := path.Join(at, todo[0])
		todo = todo[1:]
		info, err := os.Lstat(r.path(next))
		if err != nil {
			return "", false
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			at = next
			continue
		}
		target, err := os.Readlink(r.path(next))
		if err != nil {
			return "", false
		}
		if !path.IsAbs(target) {
			target = path.Join(at, target)
		}
		links++
		todo = append(strings.Split(strings.Trim(path.Clean(target), "/"), "/"), todo...)
		todo = slices.DeleteFunc(todo, func(s string) bool { return s == "" })
		at = "/"
	}
	return strings.TrimPrefix(at, "/"), len(todo) == 0
}

func (r tree) read(t *testing.T, name string) string {
	t.Helper()
	real, ok := r.resolve(name)
	if !ok {
		t.Fatalf("the image has no %s", name)
	}
	b, err := os.ReadFile(r.path(real))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
