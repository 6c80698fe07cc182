//go:build vm

// Package vm_test boots the built image in QEMU and looks at it from outside:
// the serial port, the disk and the API that Incus serves. `make test-vm` runs
// it, with the build tag vm since it takes what no checkout has. A missing input
// is a failure that says how to make it, never a skip.
//
// The words that a machine is expected to print stand in words_test.go alone.
// Package incus beside this one speaks Incus' API. What the harness can do is in
// internal/vm; timeouts here are those of a host with KVM and are scaled there.
package vm_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/incusos/incusos/internal/image"
	"github.com/incusos/incusos/internal/vm"
	"github.com/incusos/incusos/test/vm/incus"
)

// input returns a directory or file that the scenarios need: what a variable
// of the environment says, or its place in the cache.
func input(t *testing.T, variable, inCache, howToMake string) string {
	t.Helper()
	name := os.Getenv(variable)
	if name == "" {
		name = filepath.Join(cache(t), inCache)
	}
	if _, err := os.Stat(name); err != nil {
		t.Fatalf("%v; run `%s`, or let %s say where it is", err, howToMake, variable)
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

func options(t *testing.T) vm.Options {
	t.Helper()
	tree, err := (&image.Builder{Cache: cache(t)}).ToolsDir()
	if err != nil {
		t.Fatal(err)
	}
	return vm.Options{Tools: input(t, "INCUSOS_TOOLS", filepath.Base(tree), "make image"), Cache: cache(t)}
}

// newMachine returns a machine with an empty disk.
func newMachine(t *testing.T) *vm.Machine {
	t.Helper()
	m, err := vm.Create(scratch(t), options(t))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// clone returns a copy of a machine for a scenario to spoil.
func clone(t *testing.T, m *vm.Machine) *vm.Machine {
	t.Helper()
	c, err := m.Clone(filepath.Join(scratch(t), "machine"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// scratch is a directory on the file system of the cache: disks may not fit
// into a temporary one in memory.
func scratch(t *testing.T) string {
	t.Helper()
	parent := filepath.Join(cache(t), "test-vm")
	if err := os.MkdirAll(parent, 0o755); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(parent, "run-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// start switches a machine on until the test ends, however it ends, and keeps
// its logs and its screen if that was a failure.
func start(t *testing.T, m *vm.Machine, b vm.Boot) *vm.Running {
	t.Helper()
	r, err := m.Start(context.WithoutCancel(t.Context()), b) // the screen is taken when that has ended
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			photograph(t, m, r)
		}
		r.Stop()
		if t.Failed() {
			keepLogs(t, m)
		}
	})
	return r
}

// installed has a machine install itself from a medium, and returns it once the first
// start from its disk is over, with what it said then.
func installed(t *testing.T, m *vm.Machine, medium string) (*vm.Running, vm.Match) {
	t.Helper()
	r := start(t, m, vm.Boot{Medium: medium})
	if err := r.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("installed after %v", r.Console.Elapsed().Round(time.Second))
	ready, err := r.Ready(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s after %v", ready.Text, ready.At.Round(time.Second))
	return r, ready
}

// clientOf is the way to the Incus of a machine, for somebody it trusts.
func clientOf(r *vm.Running, id vm.Identity) *incus.Client {
	return incus.New(fmt.Sprintf("https://127.0.0.1:%d", r.Port), id.TLS())
}

// screen is the file with the screen of a failed test's machine.
const screen = "screen.png"

func photograph(t *testing.T, m *vm.Machine, r *vm.Running) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Second)
	defer cancel()
	if err := r.Monitor.Screenshot(ctx, filepath.Join(m.Dir(), screen)); err != nil && !errors.Is(err, vm.ErrEnded) {
		t.Log(err)
	}
}

// keepLogs copies what a failed test's machine left to a directory that
// outlives the test.
func keepLogs(t *testing.T, m *vm.Machine) {
	t.Helper()
	dir := filepath.Join(cache(t), "test-vm", "failed", t.Name())
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Log(err)
		return
	}
	for _, name := range append(vm.Logs(), screen) {
		err := copyLog(filepath.Join(m.Dir(), name), filepath.Join(dir, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Log(err)
		}
	}
	t.Logf("the machine's logs are in %s", dir)
}

func copyLog(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.Create(to)
	if err != nil {
		return err
	}
	if _, err := io.Copy(dst, src); err != nil {
		return err
	}
	return dst.Close()
}

// within is the context of something that takes no longer than d with KVM, and
// that a machine which has ended will not do any more.
func within(t *testing.T, r *vm.Running, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), r.Scale.Of(d))
	t.Cleanup(cancel)
	go func() {
		select {
		case <-r.Done():
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx
}
