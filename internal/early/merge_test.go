package early

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/incusos/incusos/internal/sets"
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

// The version that starts says which images are merged: after a roll-back they are
// those that it had.
func TestVersionThatStartsHasItsApplications(t *testing.T) {
	const old, next = "202601010000", "202602010000"
	tests := map[string]struct {
		running string
		stored  []string // versions of Incus
		want    string
		warns   string
	}{
		"the new one":          {next, []string{old, next}, next, ""},
		"the old one again":    {old, []string{old, next}, old, ""},
		"never written down":   {"202512010000", []string{old, next}, next, ""},
		"its image is missing": {old, []string{next}, next, `application \"incus\" ` + old + " belongs to version " + old + " and is not stored"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, 64e9, complete()...)
			root := sys.NewDir(b.Host.Files.Path("/sysroot"))
			all := sets.Open(root)
			err := errors.Join(
				root.WriteFile("/usr/lib/os-release", []byte("IMAGE_ID=IncusOS\nIMAGE_VERSION="+tt.running+"\n"), 0o644),
				all.Runs(old, sets.Set{"incus": old}),
				all.Stage(old, next, sets.Set{"incus": next}),
				sets.Activate(root, "incus", next))
			for _, v := range tt.stored {
				err = errors.Join(err, root.WriteFile(sets.Path("incus", v), nil, 0o600))
			}
			if err != nil {
				t.Fatal(err)
			}
			var merged []string
			b.Programs.Model("systemd-sysext", func(context.Context, sys.Cmd) ([]byte, error) {
				merged = b.Mounts.Table()[4:]
				return nil, nil
			})
			if err := Run(t.Context(), b.Host, &b.screen); err != nil {
				t.Fatal(err)
			}
			if want := []string{"/sysroot" + sets.Path("incus", tt.want) + " /sysroot/run/extensions/incus.raw  bind"}; !slices.Equal(merged, want) {
				t.Errorf("merged are %q, want %q", merged, want)
			}
			if got := b.result(t); tt.warns == "" && strings.Contains(got, "warnings") || !strings.Contains(got, tt.warns) {
				t.Errorf("early.json is %s, want %q", got, tt.warns)
			}
		})
	}
}

// What cannot be read does not keep the machine from starting.
func TestDamagedSets(t *testing.T) {
	b := newMerging(t, "../incus-os-extensions/1/incus.raw")
	if err := b.Host.Files.WriteFile("/sysroot/var/lib/incus-os/application-sets.json", []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	merged := 0
	b.Programs.Model("systemd-sysext", func(context.Context, sys.Cmd) ([]byte, error) { merged++; return nil, nil })
	if err := Run(t.Context(), b.Host, &b.screen); err != nil {
		t.Fatal(err)
	}
	if got := b.result(t); merged != 1 || !strings.Contains(got, "which applications belong to which version") {
		t.Errorf("merged %d times, early.json is %s", merged, got)
	}
}
