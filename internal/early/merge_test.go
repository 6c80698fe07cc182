package early

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/incusos/incusos/internal/sys"
)

const image = "/sysroot/var/lib/incus-os-extensions/1/incus.raw"

// newMerging is a machine with an active application, whose link leads to target.
func newMerging(t *testing.T, target string) *bench {
	t.Helper()
	b := newBench(t, 64e9, complete()...)
	files := b.Host.Files
	err := errors.Join(
		files.MkdirAll("/sysroot/var/lib/incus-os-extensions/1", 0o755),
		files.WriteFile(image, nil, 0o644),
		files.MkdirAll("/sysroot/var/lib/extensions", 0o755),
		files.Symlink(target, "/sysroot/var/lib/extensions/incus.raw"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// systemd-sysext finds files in run/extensions and no links anywhere, and nothing
// of that is left when the machine goes on.
func TestApplicationsAreMerged(t *testing.T) {
	for name, target := range map[string]string{
		"relative": "../incus-os-extensions/1/incus.raw",
		"absolute": "/var/lib/incus-os-extensions/1/incus.raw",
	} {
		t.Run(name, func(t *testing.T) {
			b := newMerging(t, target)
			var during []string
			b.Programs.Model("systemd-sysext", func(context.Context, sys.Cmd) ([]byte, error) {
				during = b.Mounts.Table()[3:]
				return nil, nil
			})
			if err := Run(t.Context(), b.Host, &b.screen); err != nil {
				t.Fatal(err)
			}
			want := []string{"tmpfs /sysroot/run tmpfs mode=0755,nodev,nosuid,noexec", image + " /sysroot/run/extensions/incus.raw  bind"}
			if diff := cmp.Diff(want, during); diff != "" {
				t.Errorf("mounts during the merge (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff([]string{onDisk, bindUsr, overlay}, b.Mounts.Table()); diff != "" {
				t.Errorf("mounts afterwards (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMachineStartsWithoutApplications(t *testing.T) {
	for name, prepare := range map[string]func(*bench) error{
		"refused": func(b *bench) error {
			b.Programs.Fail("systemd-sysext", &sys.ExecError{Name: "systemd-sysext", Code: 1, Stderr: "bad signature"})
			return nil
		},
		"gone": func(b *bench) error { return b.Host.Files.Remove(image) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newMerging(t, "../incus-os-extensions/1/incus.raw")
			if err := prepare(b); err != nil {
				t.Fatal(err)
			}
			if err := Run(t.Context(), b.Host, &b.screen); err != nil {
				t.Fatal(err)
			}
			if got := b.result(t); !strings.Contains(got, "merging the applications: ") {
				t.Errorf("early.json is %s, want a warning about applications", got)
			}
			if got := b.Mounts.Table(); !slices.Equal(got, []string{onDisk, bindUsr, overlay}) {
				t.Errorf("mounts %q, want nothing of the merge left", got)
			}
		})
	}
}
