package update_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/incusos/incusos/internal/fetch"
	"github.com/incusos/incusos/internal/repo"
	"github.com/incusos/incusos/internal/update"
)

// What is damaged is mended, in the slot that runs too; what is not is left alone.
func TestRepair(t *testing.T) {
	b, s := updated(t)
	a, _ := b.agent(to, s, nil)
	g := &gauge{}
	if err := a.Repair(t.Context(), g); err != nil || a.Status().Text != "Found no damage" {
		t.Fatalf("it says %q (%v)", a.Status().Text, err)
	}
	if len(g.phases) < 4 {
		t.Errorf("phases were %q; want those of both versions", g.phases)
	}
	kernel, err := b.esp().Read(to)
	if err != nil {
		t.Fatal(err)
	}
	store := "/var/lib/incus-os-extensions/" + to + "/incus.raw"
	tests := map[string]struct {
		harm func()
		want string
	}{
		"a block of what runs":      {func() { b.write(b.part(8).Path, []byte("bad")) }, "Mended of version " + to + ": the file system"},
		"its tree":                  {func() { b.write(b.part(7).Path, []byte("bad")) }, "Mended of version " + to + ": the file system"},
		"its signature":             {func() { b.write(b.part(6).Path, []byte("bad")) }, "Mended of version " + to + ": the file system"},
		"an application":            {func() { b.write(store, []byte("bad")) }, "Mended of version " + to + ": application incus"},
		"an application is gone":    {func() { must(t, b.Host.Files.Remove(store)) }, "Mended of version " + to + ": application incus"},
		"the kernel":                {func() { must(t, b.esp().Replace(to, append([]byte("bad "), kernel...))) }, "Mended of version " + to + ": the kernel"},
		"a kernel of another build": {func() { must(t, b.esp().Replace(to, []byte("bad"))) }, "Failed to repair: version " + to + ": the repository has another build of this version than the machine; nothing was changed"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tt.harm()
			err := a.Repair(t.Context(), nil)
			if a.Status().Text != tt.want || (err != nil) != strings.HasPrefix(tt.want, "Failed") {
				t.Errorf("it says %q (%v), want %q", a.Status().Text, err, tt.want)
			}
			if err != nil {
				must(t, b.esp().Replace(to, kernel))
			}
			b.has(b.part(8).Path, b.images[to])
			b.has(store, append(noise(3, 200), to...))
			if got, err := b.esp().Read(to); err != nil || string(got) != string(kernel) {
				t.Errorf("the kernel is another one (%v)", err)
			}
			if err := a.Repair(t.Context(), nil); err != nil || a.Status().Text != "Found no damage" {
				t.Errorf("afterwards it says %q (%v)", a.Status().Text, err)
			}
		})
	}
	// Nor is what runs overwritten by something else under its name.
	inner := a.Repairs
	a.Repairs = func(server *fetch.Server, release repo.Release, amount func(done, total uint64)) (update.Repair, error) {
		release.Files = slices.Clone(release.Files)
		for i := range release.Files {
			if release.Files[i].Kind == repo.KindUsr {
				release.Files[i].RootHash = strings.Repeat("ab", 32)
			}
		}
		return inner(server, release, amount)
	}
	if err := a.Repair(t.Context(), nil); !errors.Is(err, update.ErrOther) {
		t.Errorf("of another file system: %v", err)
	}
	b.has(b.part(8).Path, b.images[to])
	a.Repairs, s.Server = inner, ""
	if err := a.Repair(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "no repository is set") {
		t.Errorf("without a repository: %v", err)
	}
}

// A repair binds the disk to the kernel of each version, whether that was damaged or is
// whole again, before the boot partition has it.
func TestRepairBinds(t *testing.T) {
	b, s := updated(t)
	a, _ := b.agent(to, s, nil)
	kernel, err := b.esp().Read(to)
	if err != nil {
		t.Fatal(err)
	}
	damaged := append([]byte("bad "), kernel...)
	must(t, b.esp().Replace(to, damaged))
	var bound [][]byte
	var refused error
	whole := false
	inner := a.Repairs
	a.Repairs = func(from *fetch.Server, r repo.Release, amount func(done, total uint64)) (update.Repair, error) {
		repair, err := inner(from, r, amount)
		repair.Bind = func(_ context.Context, uki []byte) error {
			bound = append(bound, uki)
			if there, err := b.esp().Read(to); r.Version == to && !whole && (err != nil || !bytes.Equal(there, damaged)) {
				t.Errorf("bound after the kernel was written (%v)", err)
			}
			return refused
		}
		return repair, err
	}
	refused = errors.New("its signer is not trusted")
	if err := a.Repair(t.Context(), nil); !errors.Is(err, refused) {
		t.Errorf("the repair says %v", err)
	}
	if there, err := b.esp().Read(to); err != nil || !bytes.Equal(there, damaged) {
		t.Errorf("a kernel that would not unlock the disk was written (%v)", err)
	}
	refused = nil
	for _, whole = range []bool{false, true} {
		bound = nil
		if err := a.Repair(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(bound, func(uki []byte) bool { return bytes.Equal(uki, kernel) }) {
			t.Errorf("bound to %d kernels, and not to that of %s", len(bound), to)
		}
	}
}
