package image

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/incusos/incusos/internal/sys"
)

// A mkosi pretends to be one: it makes an empty tree, or fails.
type mkosi struct {
	sys.Runner
	runs [][]string
	err  error
}

func (m *mkosi) Run(_ context.Context, c sys.Cmd) ([]byte, error) {
	m.runs = append(m.runs, c.Args)
	for _, a := range c.Args {
		if dir, ok := strings.CutPrefix(a, "--output-directory="); ok && m.err == nil {
			return nil, os.Mkdir(filepath.Join(dir, "tree"), 0o755)
		}
	}
	return nil, m.err
}

func debianBuilder(t *testing.T) (*Builder, *mkosi) {
	t.Helper()
	m := &mkosi{}
	b := &Builder{Cache: t.TempDir(), Arch: "amd64", Mirror: "http://192.0.2.1/debian", Exec: m}
	tools, err := b.ToolsDir()
	if err == nil {
		err = os.Mkdir(tools, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b, m
}

func TestDebianIsMadeOnce(t *testing.T) {
	b, m := debianBuilder(t)
	first, err := b.Debian(t.Context(), "client", "incus-client", "incus-base")
	if err != nil {
		t.Fatal(err)
	}
	again, err := b.Debian(t.Context(), "client", "incus-client", "incus-base")
	if err != nil || again != first || len(m.runs) != 1 || filepath.Dir(first) != b.Cache {
		t.Errorf("the tree is %q, then %q, %v, after %d runs of mkosi; want one run and the same in the cache", first, again, err, len(m.runs))
	}
	if !slices.Contains(m.runs[0], "--package=incus-client,incus-base") {
		t.Errorf("mkosi was run with %q, want the packages", m.runs[0])
	}
	other, err := b.Debian(t.Context(), "client", "incus-client")
	if err != nil || other == first {
		t.Errorf("with fewer packages the tree is %q, %v, want another one", other, err)
	}
}

func TestDebianThatFailsLeavesNothing(t *testing.T) {
	b, m := debianBuilder(t)
	m.err = errors.New("no route to the mirror")
	_, err := b.Debian(t.Context(), "client", "incus-client")
	if err == nil || !strings.Contains(err.Error(), "making a tree with incus-client: building with mkosi: no route") {
		t.Errorf("Debian() = %v, want what failed", err)
	}
	left, err := filepath.Glob(filepath.Join(b.Cache, "*client-*"))
	work, workErr := filepath.Glob(filepath.Join(b.Cache, ".debian-*"))
	if err := errors.Join(err, workErr); err != nil || len(left)+len(work) != 0 {
		t.Errorf("%q and %q are left in the cache, %v; want neither", left, work, err)
	}
}
