package keys_test

import (
	"archive/tar"
	"bytes"
	"crypto/x509"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/incusos/incusos/internal/keys"
	"github.com/incusos/incusos/internal/uefi"
)

func TestRotate(t *testing.T) {
	work := t.TempDir()
	microsoft := newRoot(t, filepath.Join(work, "ms"), keys.Options{Name: "Somebody else"})
	old := newRoot(t, filepath.Join(work, "old"), keys.Options{Name: "Own", MicrosoftDB: []string{microsoft.DB.CertFile}})
	dir, updates := filepath.Join(work, "new"), filepath.Join(work, "updates")
	if err := keys.Rotate(old, dir, updates); err != nil {
		t.Fatal(err)
	}
	r, err := keys.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if r.DB.Cert.Equal(old.DB.Cert) || r.DB.Cert.Subject.String() != "CN=Own db" {
		t.Errorf("the new db certificate is %q, and the old one %v", r.DB.Cert.Subject, r.DB.Cert.Equal(old.DB.Cert))
	}
	for i, p := range []keys.Pair{r.PK, r.KEK, r.PCR, *r.Support} {
		if was := []keys.Pair{old.PK, old.KEK, old.PCR, *old.Support}[i]; !p.Cert.Equal(was.Cert) {
			t.Errorf("%s was changed too", p.Name)
		}
	}
	if got := entries(t, update(t, filepath.Join(dir, "db.auth")).Payload, r.GUID); got != "own CN=Own db, Microsoft CN=Somebody else db" {
		t.Errorf("db.auth enrols %s", got)
	}
	for file, want := range map[string]struct {
		variable string
		cert     *x509.Certificate
	}{keys.AddFile: {"db", r.DB.Cert}, keys.RevokeFile: {"dbx", old.DB.Cert}} {
		name, u := only(t, filepath.Join(updates, file))
		v, err := uefi.SecureBootVariable(want.variable)
		if err != nil {
			t.Fatal(err)
		}
		if err := u.Verify(v.Appending(), []*x509.Certificate{old.KEK.Cert}); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		lists, err := uefi.ParseSignatureLists(u.Payload)
		if err != nil || len(lists) != 1 || !bytes.Equal(lists[0].Signatures[0].Data, want.cert.Raw) || !strings.HasPrefix(name, want.variable+"_") {
			t.Errorf("%s holds %s with %d lists, %v", file, name, len(lists), err)
		}
	}
	if err := keys.Rotate(old, dir, filepath.Join(work, "again")); err == nil || !strings.Contains(err.Error(), "already there") {
		t.Errorf("into a directory that is there: %v", err)
	}
}

// only returns the one update in an archive.
func only(t *testing.T, file string) (string, uefi.SignedUpdate) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := tar.NewReader(f)
	h, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	u, err := uefi.ParseUpdate(b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Next(); err != io.EOF { //nolint:errorlint // as it is returned
		t.Errorf("%s holds more than one file", file)
	}
	return h.Name, u
}
