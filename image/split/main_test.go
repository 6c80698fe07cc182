package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/incusos/incusos/internal/sys"
)

// A packer stands for zstd: it marks what it was given.
type packer struct {
	sys.Runner
	err error
}

func (p packer) Run(_ context.Context, c sys.Cmd) ([]byte, error) {
	if c.Name != "zstd" {
		return nil, fmt.Errorf("%s was run", c.Name)
	}
	b, err := io.ReadAll(c.Stdin)
	if want := fmt.Sprintf("--stream-size=%d", len(b)); c.Args[len(c.Args)-1] != want {
		return nil, fmt.Errorf("the last argument is %q, want %q", c.Args[len(c.Args)-1], want)
	}
	return append([]byte("packed"), b...), errors.Join(err, p.err)
}

// archive is a cpio of a directory and a large file.
func archive() []byte {
	var b bytes.Buffer
	for i, e := range []struct {
		name string
		mode uint32
		data string
	}{{"usr", 0o40755, ""}, {"usr/large", 0o100644, strings.Repeat("x", 300<<10)}, {"TRAILER!!!", 0, ""}} {
		fmt.Fprintf(&b, "070701%08X%08X%024X%08X%08X%032X%08X%08X%s\x00", i, e.mode, 1, 1764280000, len(e.data), 0, len(e.name)+1, 0, e.name)
		b.Write(make([]byte, -b.Len()&3))
		b.WriteString(e.data)
		b.Write(make([]byte, -b.Len()&3))
	}
	return b.Bytes()
}

func TestSplit(t *testing.T) {
	from, to := filepath.Join(t.TempDir(), "initrd.cpio"), filepath.Join(t.TempDir(), "initrd.img")
	if err := os.WriteFile(from, archive(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := split(t.Context(), packer{}, from, to); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(to)
	if err != nil || len(b) != 4096+(300<<10)+4096 || !bytes.HasPrefix(b, []byte("packed0707")) || !bytes.HasPrefix(b[4096:], []byte("packed0707")) {
		t.Errorf("it made %d bytes (%v), want an archive for the directory and one for the file", len(b), err)
	}
	broken := errors.New("no memory")
	if err := split(t.Context(), packer{err: broken}, from, to); !errors.Is(err, broken) {
		t.Errorf("it said %v, want %v", err, broken)
	}
	if err := split(t.Context(), packer{}, to, to); err == nil || !strings.Contains(err.Error(), to) {
		t.Errorf("of something else it said %v", err)
	}
}
