package apps

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
)

// FuzzUnpack feeds what is no archive, or an evil one. Nothing may appear outside
// of the directory, nor anything but files, directories and links.
func FuzzUnpack(f *testing.F) {
	for _, h := range []tar.Header{
		{Name: "database/", Typeflag: tar.TypeDir, Mode: 0o700},
		{Name: "../evil", Typeflag: tar.TypeReg, Mode: 0o600},
		{Name: "a/b", Typeflag: tar.TypeSymlink, Linkname: "../c"},
		{Name: "pipe", Typeflag: tar.TypeFifo},
	} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if err := w.WriteHeader(&h); err != nil {
			f.Fatal(err)
		}
		if err := w.Close(); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, archive []byte) {
		dir := t.TempDir()
		if err := os.Mkdir(dir+"/in", 0o700); err != nil {
			t.Fatal(err)
		}
		root, err := os.OpenRoot(dir + "/in")
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		if _, err := z.Write(archive); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		u := unpacker{root: root, room: 1 << 20}
		_ = u.unpack(&b)
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
			t.Fatalf("outside of its directory there is %v, %v", entries, err)
		}
		err = fs.WalkDir(root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
			if kind := e.Type(); kind != 0 && kind != fs.ModeDir && kind != fs.ModeSymlink {
				t.Errorf("%s is a %v", name, kind)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

func TestMountsBelow(t *testing.T) {
	const table = "1 0 98:0 / / rw - ext4 x rw\n36 1 98:0 / /var/lib/incus rw - zfs x rw\n" +
		"37 36 98:1 / /var/lib/incus/a\\040b rw - zfs x rw\n38 37 98:2 / /var/lib/incus/a\\040b/c rw - zfs x rw\n39 1 98:3 / /var/lib/incus-os rw - zfs x rw\n"
	want := []string{"/var/lib/incus/a b/c", "/var/lib/incus/a b"}
	if got := mountsBelow(table, incusDir); !slices.Equal(got, want) {
		t.Errorf("mountsBelow() = %q, want %q", got, want)
	}
}

func FuzzMountsBelow(f *testing.F) {
	f.Add("36 35 98:0 / /var/lib/incus/guestapi rw - tmpfs none rw\n37 35 98:1 / /var/lib/incus/a\\040b rw - zfs x rw\n")
	f.Add("1 2 3 4 /var/lib/incus/\\")
	f.Fuzz(func(t *testing.T, table string) {
		for _, target := range mountsBelow(table, incusDir) {
			if !strings.HasPrefix(target, incusDir+"/") {
				t.Errorf("%q is not below %s", target, incusDir)
			}
		}
	})
}
