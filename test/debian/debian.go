// Package debian is what operators have: the `incus` command of Debian's backports,
// in a tree of Debian of its own, with the server that it speaks to.
//
//	debian.go    the tree, and running the command
//	server.go    running the server
//	commands.go  which commands `incus admin os` has, by its own help
//	step.go      a command and what has to come of it
//	refused.go   what no machine does yet
//	access.go    somebody whom Incus trusts, and others whom it should not
//
// Test/client asks for everything on a pretend machine, test/cluster has three servers
// that form a cluster, and test/vm asks real machines.
package debian

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"

	"github.com/incusos/incusos/internal/image"
	"github.com/incusos/incusos/internal/sys"
)

// A Tree is a directory with Debian trixie, and Incus in it.
type Tree string

// Open returns the tree in the cache of a builder, making it at first.
func Open(ctx context.Context, b *image.Builder) (Tree, error) {
	dir, err := b.Debian(ctx, "debian-incus", "incus-base", "incus-client")
	return Tree(dir), err
}

// Path is where something of the tree is.
func (t Tree) Path(name string) string { return filepath.Join(string(t), name) }

// A Client is the `incus` command as one person uses it.
type Client struct {
	Tree   Tree
	Dir    string   // that files are named from
	Conf   string   // directory with the certificate and the remotes
	Socket string   // of the server on this machine; "" for none
	Inside []string // what runs it in other namespaces, such as nsenter; nil: here
	Env    []string // "KEY=value"
}

// A Result is what a command has printed, and its exit status.
type Result struct {
	Code     int
	Out, Err string
}

// Run runs the command with in on its standard input. It runs with the libraries
// of the tree but on the files of this host, so that nothing has to be brought in.
func (c Client) Run(ctx context.Context, in io.Reader, args ...string) (Result, error) {
	line := append([]string{}, c.Inside...)
	line = append(line, c.Tree.Path("usr/lib64/ld-linux-x86-64.so.2"), "--library-path", c.Tree.Path("usr/lib/x86_64-linux-gnu"), c.Tree.Path("usr/bin/incus"))
	line = append(line, args...)
	var out, stderr bytes.Buffer
	cmd := sys.Cmd{
		Name: line[0], Args: line[1:], Dir: c.Dir,
		Env:   append([]string{"INCUS_CONF=" + c.Conf, "INCUS_SOCKET=" + c.Socket, "LC_ALL=C.UTF-8", "TZ=UTC"}, c.Env...),
		Stdin: in, Stdout: &out, Stderr: &stderr,
	}
	_, err := sys.Real().Exec.Run(ctx, cmd)
	r := Result{0, out.String(), stderr.String()}
	if exit, ok := errors.AsType[*sys.ExecError](err); ok {
		r.Code, err = exit.Code, nil
	}
	return r, err
}
