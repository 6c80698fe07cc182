package apps_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys/systest"
)

// backup returns the archive of what Incus keeps.
func (o office) backup(t *testing.T) []byte {
	t.Helper()
	write, err := o.Archive(t.Context(), "incus")
	must(t, err)
	var b bytes.Buffer
	must(t, write(&b))
	return b.Bytes()
}

// entries returns the content of files in an archive by their names.
func entries(t *testing.T, archive []byte) map[string]string {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(archive))
	must(t, err)
	found := make(map[string]string)
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return found
		}
		must(t, err)
		b, err := io.ReadAll(r)
		must(t, err)
		found[h.Name] = string(b) + h.Linkname
	}
}

func TestBackupHoldsWhatIncusKeeps(t *testing.T) {
	w, o := ready(t)
	files := w.rig.Host.Files
	for name, content := range map[string]string{
		"server.crt": "certificate", "images/abc": "image", "guestapi/sock": "no", "shmounts/x": "no",
		"storage-pools/local/containers/web/rootfs/etc/passwd": "no",
	} {
		must(t, files.WriteFile("/var/lib/incus/"+name, []byte(content), 0o600))
	}
	must(t, files.Symlink("/var/lib/incus/storage-pools/local/custom/b", "/var/lib/incus/backups"))
	got := entries(t, o.backup(t))
	want := []string{"backups", "database/", "database/pretend.json", "images/", "images/abc", "server.crt", "storage-pools/", "storage-pools/local/"}
	if names := slices.Sorted(maps.Keys(got)); !slices.Equal(names, want) {
		t.Errorf("the backup has %q, want %q", names, want)
	}
	if got["server.crt"] != "certificate" || got["backups"] != "/var/lib/incus/storage-pools/local/custom/b" {
		t.Errorf("contents are %q", got)
	}
}

func TestRestore(t *testing.T) {
	w, o := ready(t)
	w.incus.Configure("user.color", "blue")
	must(t, w.rig.Host.Files.WriteFile("/var/lib/incus/server.crt", []byte("certificate"), 0o640))
	archive := o.backup(t)
	w.incus.Configure("user.color", "red")
	must(t, o.Restore(t.Context(), "incus", bytes.NewReader(archive)))
	o.done(t)
	w.restored(t, o, "after a restore")
	if fi, err := w.rig.Host.Files.Stat("/var/lib/incus/server.crt"); err != nil || fi.Mode().Perm() != 0o640 {
		t.Errorf("server.crt is %v, %v; want it with its mode", fi, err)
	}
}

// restored expects Incus on what was backed up, and nothing left over.
func (w *world) restored(t *testing.T, o office, when string) {
	t.Helper()
	if got := w.incus.Config()["user.color"]; got != "blue" {
		t.Fatalf("%s: the color is %v, want that of the backup", when, got)
	}
	doc, err := o.Get(t.Context(), "incus")
	must(t, err)
	if doc.(api.Application).State.LastRestored == nil {
		t.Errorf("%s: nobody says when it was restored", when)
	}
	for _, name := range []string{"/var/lib/incus.beside", "/var/lib/incus.arriving", "/var/lib/incus/.restored-by-incus-os"} {
		if w.rig.Host.Files.Exists(name) {
			t.Errorf("%s: %s is left over", when, name)
		}
	}
}

func TestBackupThatIncusDoesNotRunOn(t *testing.T) {
	w, o := ready(t)
	archive := pack(t, true, entry{name: "database/", kind: tar.TypeDir}, entry{name: "database/pretend.json", content: "{damaged"})
	must(t, o.Restore(t.Context(), "incus", bytes.NewReader(archive)))
	if end := o.idle(t); end.Status != api.TaskFailed || !strings.Contains(end.Error, "it has its old data again") {
		t.Errorf("the task ended as %+v, want the old data put back", end)
	}
	w.check(t, "after that")
	doc, err := o.Get(t.Context(), "incus")
	must(t, err)
	if doc.(api.Application).State.LastRestored != nil || w.rig.Host.Files.Exists("/var/lib/incus.beside") {
		t.Error("something of the restore is left")
	}
}

// TestPowerIsCutWhileRestoring cuts the power at each effect once the request was
// answered, starts again and expects the backup in place.
func TestPowerIsCutWhileRestoring(t *testing.T) {
	first, o := ready(t)
	first.incus.Configure("user.color", "blue")
	archive := o.backup(t)
	first.incus.Configure("user.color", "red")
	first.off(t)
	for step := 1; ; step++ {
		when := fmt.Sprintf("effect %d was cut", step)
		w, _ := first.copy(t)
		cut := &systest.Cutter{At: step, Power: true}
		broken := w.open(t, cut.Host(w.rig.Host))
		asked := broken.Restore(t.Context(), "incus", bytes.NewReader(archive))
		broken.idle(t)
		must(t, broken.tasks.Close(t.Context()))
		w.reboot(t)
		w.off(t)
		again := w.open(t, w.rig.Host)
		again.idle(t)
		must(t, again.apps.Reconcile(t.Context()))
		if asked != nil { // nothing was promised
			if got := w.incus.Config()["user.color"]; got != "red" {
				t.Fatalf("%s (%v): the color is %v, want it as it was", when, asked, got)
			}
			must(t, again.Restore(t.Context(), "incus", bytes.NewReader(archive)))
			again.done(t)
		}
		w.restored(t, again, when)
		must(t, again.tasks.Close(t.Context()))
		if cut.Over() {
			return
		}
	}
}

// An entry is one of an archive to unpack.
type entry struct {
	name, content, link string
	kind                byte // 0: a file
}

// pack makes an archive, whole or without the mark of its end.
func pack(t testing.TB, whole bool, all ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, e := range all {
		h := &tar.Header{Name: e.name, Typeflag: e.kind, Linkname: e.link, Size: int64(len(e.content)), Mode: 0o700}
		if e.kind == 0 {
			h.Typeflag = tar.TypeReg
		}
		must2(t, w.WriteHeader(h))
		_, err := io.WriteString(w, e.content)
		must2(t, err)
	}
	if whole {
		must2(t, w.Close())
	} else {
		must2(t, w.Flush())
	}
	must2(t, z.Close())
	return b.Bytes()
}

func must2(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestArchivesThatAreRefused(t *testing.T) {
	db := entry{name: "database/", kind: tar.TypeDir}
	good := pack(t, true, db, entry{name: "database/x", content: strings.Repeat("content ", 1000)})
	tests := map[string]struct {
		archive []byte
		says    string
	}{
		"nothing":                     {nil, "ends early"},
		"no gzip":                     {[]byte("this is plain text, and longer than a header"), "not compressed with gzip"},
		"an upload that was cut":      {good[:len(good)-9], "ends early"},
		"an archive that was cut":     {pack(t, false, db), "the mark of its end is missing"},
		"no backup of Incus":          {pack(t, true, entry{name: "notes.txt"}), `no directory "database"`},
		"a name that leads out":       {pack(t, true, db, entry{name: "../evil"}), "leads out of it"},
		"an absolute name":            {pack(t, true, db, entry{name: "/etc/evil"}), "leads out of it"},
		"a link that leads out":       {pack(t, true, db, entry{name: "a", kind: tar.TypeSymlink, link: "../../etc"}), "outside of /var/lib/incus"},
		"an absolute link out":        {pack(t, true, db, entry{name: "a", kind: tar.TypeSymlink, link: "/etc"}), "outside of /var/lib/incus"},
		"a hard link":                 {pack(t, true, db, entry{name: "a", kind: tar.TypeLink, link: "/etc/shadow"}), "neither a file nor"},
		"a device":                    {pack(t, true, db, entry{name: "a", kind: tar.TypeBlock}), "neither a file nor"},
		"the same file twice":         {pack(t, true, db, entry{name: "a"}, entry{name: "./a"}), "twice"},
		"what is compressed is text":  {zip(t, strings.Repeat("no archive ", 200)), "no tar archive"},
		"something after its end":     {append(slices.Clone(good), "more"...), "ends early"},
		"more than there is room for": {pack(t, true, db, entry{name: "a", content: strings.Repeat("x", 4096)}), "there is no room"},
	}
	first, _ := ready(t)
	first.off(t)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w, o := first.copy(t)
			if name == "more than there is room for" {
				w.rig.Host.Mounts = full{w.rig.Host.Mounts}
				o = w.open(t, w.rig.Host)
			}
			refuses(t, o.Restore(t.Context(), "incus", bytes.NewReader(tt.archive)), api.Invalid, tt.says)
			if w.rig.Host.Files.Exists("/var/lib/incus.arriving") || w.rig.Host.Files.Exists("/var/lib/incus.beside") {
				t.Error("something was left over")
			}
			w.check(t, "after that")
		})
	}
}

func zip(t *testing.T, content string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := io.WriteString(z, content)
	must(t, err)
	must(t, z.Close())
	return b.Bytes()
}
