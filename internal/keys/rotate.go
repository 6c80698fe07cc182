package keys

import (
	"archive/tar"
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/incusos/incusos/internal/uefi"
)

// Names of the archives that Rotate makes, in the order of their use.
const (
	AddFile    = "1-add.tar"
	RevokeFile = "2-revoke.tar"
)

// Rotate makes a trust root in dir that is the one of r with a new db key, and, in
// updates, which must not exist either, the updates that bring machines from the old
// key to the new one: AddFile adds the new certificate to db, RevokeFile adds the old
// one to dbx. All other keys stay, so that disks stay bound.
func Rotate(r *Root, dir, updates string) error {
	for _, name := range []string{dir, updates} {
		if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%q is already there; name a directory that is not, since keys cannot be replaced", name)
		}
	}
	g := generator{name: nameOf(r.DB.Cert), now: time.Now(), files: make(map[string][]byte)}
	if err := g.keep(r); err != nil {
		return err
	}
	kek, err := r.KEK.Signer()
	if err != nil {
		return err
	}
	db, err := g.pair("db")
	if err != nil {
		return fmt.Errorf("making db: %w", err)
	}
	lists := []uefi.SignatureList{uefi.X509List(r.GUID, db.Certificate)}
	if g.files["db.auth"], err = g.sign("db", append(lists, r.others()...), kek); err != nil {
		return fmt.Errorf("making db.auth: %w", err)
	}
	add, err1 := g.addition("db", r.GUID, db.Certificate, kek)
	revoke, err2 := g.addition("dbx", r.GUID, r.DB.Cert, kek)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	if err := writeRoot(filepath.Clean(dir), g.files); err != nil {
		return err
	}
	if err := os.MkdirAll(updates, 0o755); err != nil { //nolint:gosec // updates are no secret
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(updates, AddFile), add, 0o644),       //nolint:gosec // likewise
		os.WriteFile(filepath.Join(updates, RevokeFile), revoke, 0o644)) //nolint:gosec // likewise
}

// nameOf is what the common names of a root's certificates start with.
func nameOf(db *x509.Certificate) string {
	const end = " db"
	name := db.Subject.CommonName
	if n := len(name) - len(end); n > 0 && name[n:] == end {
		return name[:n]
	}
	return name
}

// keep takes over the files of r.
func (g *generator) keep(r *Root) error {
	for _, name := range fileNames() {
		b, err := os.ReadFile(filepath.Join(r.Dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // the support pair, which may be missing
		}
		if err != nil {
			return err
		}
		g.files[name] = b
	}
	return nil
}

// others returns what db.auth of r enrols besides its own certificate.
func (r *Root) others() []uefi.SignatureList {
	b, err := os.ReadFile(filepath.Join(r.Dir, "db.auth"))
	if err != nil {
		return nil
	}
	u, err := uefi.ParseUpdate(b)
	if err != nil {
		return nil
	}
	lists, err := uefi.ParseSignatureLists(u.Payload)
	if err != nil {
		return nil
	}
	var others []uefi.SignatureList
	for _, l := range lists {
		if len(l.Signatures) == 1 && !bytes.Equal(l.Signatures[0].Data, r.DB.Cert.Raw) {
			others = append(others, l)
		}
	}
	return others
}

// addition returns an archive with the update that adds cert to a variable.
func (g *generator) addition(name string, owner uefi.GUID, cert *x509.Certificate, by uefi.Signer) ([]byte, error) {
	v, err := uefi.SecureBootVariable(name)
	if err != nil {
		return nil, err
	}
	payload, err := uefi.EncodeSignatureLists([]uefi.SignatureList{uefi.X509List(owner, cert)})
	if err != nil {
		return nil, err
	}
	update, err := uefi.SignUpdate(v.Appending(), g.now, payload, by)
	if err != nil {
		return nil, fmt.Errorf("making an update of %s: %w", name, err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	h := tar.Header{Name: name + "_" + uefi.Fingerprint(update) + ".auth", Mode: 0o644, Size: int64(len(update)), ModTime: g.now.Truncate(time.Second)}
	if err := w.WriteHeader(&h); err != nil {
		return nil, err
	}
	if _, err := w.Write(update); err != nil {
		return nil, err
	}
	return b.Bytes(), w.Close()
}
