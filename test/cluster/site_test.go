//go:build vm

package cluster_test

import (
	"bytes"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/incusos/incusos/internal/publish"
	"github.com/incusos/incusos/internal/publish/publishtest"
	"github.com/incusos/incusos/internal/repo"
	"github.com/incusos/incusos/internal/sys/systest"
	"github.com/incusos/incusos/internal/verity"
)

// A site is a repository, served.
type site struct {
	address string
	dir     string
	root    []byte
	with    publish.Signing
}

// newSite serves a repository in a network namespace.
func newSite(t *testing.T, network string) *site {
	t.Helper()
	dir, with := publishtest.New(t)
	s := &site{dir: dir, with: with}
	contents, err := publish.Show(t.Context(), s.dir)
	must(t, err)
	s.root = contents.Root
	files, err := os.OpenRoot(s.dir)
	must(t, err)
	web := httptest.NewUnstartedServer(publish.Handler(files, ""))
	must(t, web.Listener.Close())
	web.Listener, err = listenIn(network)
	must(t, err)
	web.Start()
	t.Cleanup(func() { web.Close(); must(t, files.Close()) })
	s.address = web.URL
	return s
}

// listenIn listens on the loopback device of a network namespace. A listener stays in the
// namespace that it was made in; the thread that was there ends, and with it all that it
// has started to end with it, as debian.Server does.
func listenIn(network string) (l net.Listener, err error) {
	f, err := os.Open(network)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it was read
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err == nil { //nolint:gosec // a descriptor
			l, err = net.Listen("tcp", "127.0.0.1:0")
		}
	}()
	<-done
	return l, err
}

// publish adds a version, made up but for its kernel image, which the firmware of the
// pretended machines would start.
func (s *site) publish(t *testing.T, version string) {
	t.Helper()
	const blocks = 300
	usr := make([]byte, blocks*verity.BlockSize)
	mathrand.NewChaCha8([32]byte{version[5]}).Read(usr) //nolint:errcheck // never fails
	tree, err := verity.Build(t.Context(), verity.Superblock{Blocks: blocks, Salt: []byte(version)}, bytes.NewReader(usr))
	must(t, err)
	db, err := systest.PretendSigner("db")
	must(t, err)
	kernel, err := systest.KernelImage(version, fmt.Sprintf("rw usrhash=%v", tree.Root), db)
	must(t, err)
	built, base := t.TempDir(), "IncusOS_"+version
	for name, content := range map[string][]byte{
		"version":                             []byte(version + "\n"),
		base + ".usr-x86-64.0.raw":            usr,
		base + ".usr-x86-64-verity.0.raw":     tree.Bytes(),
		base + ".usr-x86-64-verity-sig.0.raw": fmt.Appendf(nil, `{"rootHash":"%v","signature":"YQ=="}`, tree.Root),
		base + ".efi":                         kernel,
		"incus.raw":                           []byte("pretend image of Incus " + version + "\n"),
	} {
		must(t, os.WriteFile(filepath.Join(built, name), content, 0o600))
	}
	build, err := publish.FindBuild(built)
	must(t, err)
	must(t, publish.Change(t.Context(), s.dir, s.with, func(a *repo.Author) error {
		return publish.Publish(t.Context(), s.dir, a, build, publish.Terms{Channel: "stable", Percent: 100, Severity: "none"}, time.Now())
	}))
}
