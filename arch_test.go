// Package incusos_test holds the rules of the house that a machine can check:
// who may import whom, how large things may get, and what code may not do.
package incusos_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// layers says who may import whom: a package may import those in lines above
// its own, never those beside or below it. A name that ends in "/*" stands for
// all packages in that directory. Changing the table is a design decision, not
// a way to fix a build; ARCHITECTURE.md says what each room is for.
const layers = `
	api
	internal/sys client internal/uefi internal/luks internal/initrd
	internal/sys/systest
	internal/verity internal/repo internal/incus internal/attest internal/token
	internal/store internal/change internal/task internal/audit internal/fetch
	internal/sets
	internal/host internal/network internal/storage internal/seal internal/update internal/apps internal/service internal/backup internal/debug internal/listener internal/proxy internal/resources internal/rolling
	internal/seed internal/install internal/rest internal/console internal/metrics
	internal/daemon internal/early internal/provision internal/publish internal/media internal/vm internal/keys internal/image internal/osctl
	internal/publish/publishtest
	cmd/*
	test/vm/incus test/vm/iscsi test/vm/nvme test/vm/usbip test/debian
	doc doc/* test/* bench bench/* image/*
`

// runsPrograms lists the packages that may import os/exec. All others go
// through internal/sys, which tests and `incus-osd --pretend` replace.
const runsPrograms = "internal/sys test/script test/vm"

// Sizes in lines: what is reported, and what is refused.
const (
	longFunction, tooLongFunction = 60, 100
	longFile, tooLongFile         = 500, 800
)

const module = "github.com/incusos/incusos"

// A room is one directory with Go files.
type room struct {
	dir   string // below the module's root, "." for the root itself
	fset  *token.FileSet
	files map[string]*ast.File // by name; tests too
}

func TestLayers(t *testing.T) {
	for _, r := range rooms(t) {
		level, listed := levelOf(r.dir)
		if r.dir == "." {
			continue // only this test
		}
		if !listed {
			t.Errorf("%s is in no layer; add it to the table in arch_test.go and say why", r.dir)
			continue
		}
		for _, imported := range r.imports() {
			inside, ours := strings.CutPrefix(imported, module+"/")
			if below, _ := levelOf(inside); ours && below >= level {
				t.Errorf("%s imports %s, which is not in a layer below it", r.dir, inside)
			}
			if imported == "os/exec" && !slices.Contains(strings.Fields(runsPrograms), r.dir) {
				t.Errorf("%s imports os/exec; run programs through internal/sys", r.dir)
			}
		}
	}
}

func TestPackagesSayWhatTheyAreFor(t *testing.T) {
	for _, r := range rooms(t) {
		documented := func(f *ast.File) bool { return f.Doc != nil }
		if !slices.ContainsFunc(slices.Collect(r.sources(true)), documented) {
			t.Errorf("%s has no package comment; say what it is for and what it leaves to its neighbours", r.dir)
		}
	}
}

func TestSizes(t *testing.T) {
	check := func(where string, lines, long, tooLong int) {
		switch {
		case lines > tooLong:
			t.Errorf("%s has %d lines; at most %d, so cut it up", where, lines, tooLong)
		case lines > long:
			t.Logf("%s has %d lines; better at most %d", where, lines, long)
		}
	}
	for _, r := range rooms(t) {
		for name, f := range r.files {
			check(path.Join(r.dir, name), r.fset.File(f.FileStart).LineCount(), longFile, tooLongFile)
			for _, d := range f.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok {
					lines := r.fset.Position(fn.End()).Line - r.fset.Position(fn.Pos()).Line + 1
					check(path.Join(r.dir, name)+": "+fn.Name.Name, lines, longFunction, tooLongFunction)
				}
			}
		}
	}
}

func TestNoInitFunctions(t *testing.T) {
	for _, r := range rooms(t) {
		for f := range r.sources(true) {
			for _, d := range f.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
					t.Errorf("%s: an init function; let the caller that needs it call it", r.fset.Position(fn.Pos()))
				}
			}
		}
	}
}

// Package variables are for values that never change: sentinels, compiled
// expressions, tables. One is refused if its package assigns to it or to part
// of it, takes its address, or declares it without a value.
func TestNoMutablePackageVariables(t *testing.T) {
	for _, r := range rooms(t) {
		files := slices.Collect(r.sources(false))
		info := &types.Info{Defs: make(map[*ast.Ident]types.Object), Uses: make(map[*ast.Ident]types.Object)}
		conf := types.Config{Error: func(error) {}, Importer: nil} // names within the package are enough
		pkg, _ := conf.Check(r.dir, r.fset, files, info)
		for _, f := range files {
			for _, name := range valueless(f) {
				t.Errorf("%s: package variable %s has no value, so it is there to be changed", r.fset.Position(name.Pos()), name.Name)
			}
			for _, target := range changed(f) {
				if v, ok := info.Uses[target].(*types.Var); ok && v.Parent() == pkg.Scope() {
					t.Errorf("%s: changes package variable %s; pass it as a value instead", r.fset.Position(target.Pos()), target.Name)
				}
				if p, ok := info.Uses[target].(*types.PkgName); ok {
					t.Errorf("%s: changes a variable of package %s", r.fset.Position(target.Pos()), p.Name())
				}
			}
		}
	}
}

// valueless returns the package variables declared without a value, but for
// those that the compiler fills in (go:embed).
func valueless(f *ast.File) []*ast.Ident {
	var names []*ast.Ident
	for _, d := range f.Decls {
		gen, ok := d.(*ast.GenDecl)
		if !ok || gen.Tok != token.VAR || strings.Contains(comments(gen.Doc), "//go:embed") {
			continue
		}
		for _, s := range gen.Specs {
			if v, ok := s.(*ast.ValueSpec); ok && len(v.Values) == 0 && !strings.Contains(comments(v.Doc), "//go:embed") {
				names = append(names, v.Names...)
			}
		}
	}
	return names
}

func comments(g *ast.CommentGroup) string {
	var b strings.Builder
	if g != nil {
		for _, c := range g.List {
			b.WriteString(c.Text)
		}
	}
	return b.String()
}

// changed returns the leftmost identifiers of what f assigns to, counts up or
// down, or takes the address of.
func changed(f *ast.File) []*ast.Ident {
	var targets []*ast.Ident
	add := func(e ast.Expr) {
		if id := leftmost(e); id != nil {
			targets = append(targets, id)
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			for _, e := range n.Lhs {
				add(e)
			}
		case *ast.IncDecStmt:
			add(n.X)
		case *ast.RangeStmt:
			add(n.Key)
			add(n.Value)
		case *ast.UnaryExpr:
			if _, literal := n.X.(*ast.CompositeLit); n.Op == token.AND && !literal {
				add(n.X)
			}
		}
		return true
	})
	return targets
}

func leftmost(e ast.Expr) *ast.Ident {
	switch e := e.(type) {
	case *ast.Ident:
		return e
	case *ast.SelectorExpr:
		return leftmost(e.X)
	case *ast.IndexExpr:
		return leftmost(e.X)
	case *ast.StarExpr:
		return leftmost(e.X)
	case *ast.ParenExpr:
		return leftmost(e.X)
	}
	return nil
}

// levelOf returns the line of layers a package is in.
func levelOf(dir string) (level int, listed bool) {
	for i, line := range strings.Split(strings.TrimSpace(layers), "\n") {
		for _, pattern := range strings.Fields(line) {
			if ok, err := path.Match(pattern, dir); err == nil && ok {
				return i, true
			}
		}
	}
	return 0, false
}

// imports returns what the files of a room import, without its tests.
func (r room) imports() []string {
	var all []string
	for f := range r.sources(false) {
		for _, spec := range f.Imports {
			if p, err := strconv.Unquote(spec.Path.Value); err == nil {
				all = append(all, p)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// sources returns the room's files.
func (r room) sources(tests bool) func(yield func(*ast.File) bool) {
	return func(yield func(*ast.File) bool) {
		for name, f := range r.files {
			if (tests || !strings.HasSuffix(name, "_test.go")) && !yield(f) {
				return
			}
		}
	}
}

// rooms returns all packages of the module.
func rooms(t *testing.T) []room {
	t.Helper()
	found := make(map[string]room)
	err := filepath.WalkDir(".", func(name string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && name != "." && (strings.HasPrefix(e.Name(), ".") || strings.HasPrefix(e.Name(), "_") || e.Name() == "testdata"):
			return fs.SkipDir
		case e.IsDir() || !strings.HasSuffix(name, ".go"):
			return nil
		}
		dir := filepath.ToSlash(filepath.Dir(name))
		r, ok := found[dir]
		if !ok {
			r = room{dir, token.NewFileSet(), make(map[string]*ast.File)}
			found[dir] = r
		}
		r.files[e.Name()], err = parser.ParseFile(r.fset, name, nil, parser.ParseComments|parser.SkipObjectResolution)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var all []room
	for _, r := range found {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b room) int { return strings.Compare(a.dir, b.dir) })
	return all
}
