//go:build vm

package vm_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/incusos/incusos/internal/media"
	"github.com/incusos/incusos/internal/vm"
)

// newMedium makes an install medium of the built image. Change spoils the seed
// in a directory before it is used; nil leaves it.
func newMedium(t *testing.T, id vm.Identity, change func(seed string)) string {
	t.Helper()
	i, err := vm.FindImage(input(t, "INCUSOS_IMAGE_DIR", "image", "make image"))
	if err != nil {
		t.Fatal(err)
	}
	dir := scratch(t)
	seed, file := filepath.Join(dir, "seed"), filepath.Join(dir, "medium.raw")
	if err := vm.WriteSeed(seed, id.PEM); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(seed)
	}
	all := []media.Application{{Name: "incus", Version: i.Version, File: i.Incus}}
	for _, name := range slices.Sorted(maps.Keys(i.Others)) {
		all = append(all, media.Application{Name: name, Version: i.Version, File: i.Others[name]})
	}
	err = media.Build(t.Context(), media.Options{Image: i.Disk, Output: file, Contents: media.Contents{
		Seed:         seed,
		Applications: all,
	}})
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func newIdentity(t *testing.T) vm.Identity {
	t.Helper()
	id, err := vm.OpenIdentity(filepath.Join(t.TempDir(), "client"))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// busybox is the static one of the tools tree, which runs in containers.
func busybox(t *testing.T) []byte {
	t.Helper()
	name := filepath.Join(options(t).Tools, "usr/bin/busybox")
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatalf("%v; the tools tree needs the package busybox-static", err)
	}
	return b
}
