package keys

import (
	"cmp"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/uefi"
)

// Options say what a new trust root is made of.
type Options struct {
	// Name starts the common name of each certificate, as in "IncusOS db".
	// Default "IncusOS".
	Name string
	// MicrosoftKEK and MicrosoftDB are files with certificates, PEM or DER, to
	// trust beside the root's own: for option ROMs signed by Microsoft, or to
	// boot another system beside this one. Default none.
	MicrosoftKEK, MicrosoftDB []string
}

// validity is how long certificates are valid, in years. Firmware and the kernel
// pay no regard to the dates, so machines boot for as long as they last; but
// tools that sign and verify do, and a root outlives its machines. Nothing can
// renew PK from afar, so there is no use in it running out.
const validity = 20

// Init makes a trust root in dir, which must not exist. Missing parents are made.
// A root is there whole or not at all.
func Init(dir string, o Options) error {
	switch _, err := os.Lstat(dir); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fmt.Errorf("making %q: %w", dir, err)
	default:
		return fmt.Errorf("%q is already there; name a directory that is not, since keys cannot be replaced", dir)
	}
	files, err := generate(o, time.Now())
	if err != nil {
		return err
	}
	return writeRoot(filepath.Clean(dir), files)
}

// writeRoot puts files into a directory beside dir, with mode 0700, and renames
// it once they are on disk.
func writeRoot(dir string, files map[string][]byte) error {
	parent, name := filepath.Dir(dir), filepath.Base(dir)
	if err := os.MkdirAll(parent, 0o755); err != nil { //nolint:gosec // the keys have a directory of their own
		return fmt.Errorf("making the directory for %q: %w", name, err)
	}
	tmp, err := os.MkdirTemp(parent, "."+name+".*")
	if err != nil {
		return fmt.Errorf("making a directory beside %q: %w", dir, err)
	}
	defer os.RemoveAll(tmp) //nolint:errcheck // gone already if all went well

	out := sys.NewDir(tmp)
	for _, name := range fileNames() {
		if files[name] == nil {
			continue // the support pair, which may be missing
		}
		perm := fs.FileMode(0o644)
		if secret(name) {
			perm = 0o600
		}
		if err := out.WriteFile(name, files[name], perm); err != nil {
			return fmt.Errorf("writing %s: %w", name, err)
		}
	}
	if err := sys.NewDir(parent).Rename(filepath.Base(tmp), name); err != nil {
		return fmt.Errorf("putting the keys in place: %w", err)
	}
	return nil
}

// generate returns the files of a new root by their names.
func generate(o Options, now time.Time) (map[string][]byte, error) {
	g := generator{name: cmp.Or(o.Name, "IncusOS"), now: now, files: make(map[string][]byte)}
	kek, err := certificatesIn(o.MicrosoftKEK)
	if err != nil {
		return nil, err
	}
	db, err := certificatesIn(o.MicrosoftDB)
	if err != nil {
		return nil, err
	}
	signers := make(map[string]uefi.Signer)
	for _, name := range pairNames() {
		if signers[name], err = g.pair(name); err != nil {
			return nil, fmt.Errorf("making %s: %w", name, err)
		}
	}
	if err := g.auth(signers, kek, db); err != nil {
		return nil, err
	}
	return g.files, g.update()
}

// A generator collects the files of a new root.
type generator struct {
	name  string
	now   time.Time
	files map[string][]byte
}

// pair makes a key and a certificate for it.
func (g *generator) pair(name string) (uefi.Signer, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048) // longer ones are refused by some firmware
	if err != nil {
		return uefi.Signer{}, err
	}
	template, err := g.certificate(name, key.Public())
	if err != nil {
		return uefi.Signer{}, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return uefi.Signer{}, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return uefi.Signer{}, err
	}
	g.files[name+".crt"] = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return uefi.Signer{Key: key, Certificate: cert}, g.key(name+".key", key)
}

// certificate returns what the certificate of a key says.
func (g *generator) certificate(name string, public crypto.PublicKey) (*x509.Certificate, error) {
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, err
	}
	id := sha256.Sum256(spki)
	c := &x509.Certificate{
		Subject:               pkix.Name{CommonName: g.name + " " + name},
		NotBefore:             g.now,
		NotAfter:              g.now.AddDate(validity, 0, 0),
		SignatureAlgorithm:    x509.SHA256WithRSA,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true, // CA:FALSE: it signs code and variables, no certificates
		SubjectKeyId:          id[:20],
	}
	if name == "db" {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
	}
	return c, nil
}

func (g *generator) key(file string, key crypto.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	g.files[file] = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	return nil
}

// auth makes the files that enrol the root in a machine. PK signs itself and
// KEK, KEK signs db.
func (g *generator) auth(signers map[string]uefi.Signer, kek, db []*x509.Certificate) error {
	owner := newGUID()
	g.files[guidFile] = []byte(owner + "\n")
	for _, f := range []struct {
		name, by string
		others   []*x509.Certificate
	}{{"PK", "PK", nil}, {"KEK", "PK", kek}, {"db", "KEK", db}} {
		lists := []uefi.SignatureList{uefi.X509List(owner, signers[f.name].Certificate)}
		for _, c := range f.others {
			lists = append(lists, uefi.X509List(uefi.MicrosoftOwner, c))
		}
		b, err := g.sign(f.name, lists, signers[f.by])
		if err != nil {
			return fmt.Errorf("making %s.auth: %w", f.name, err)
		}
		g.files[f.name+".auth"] = b
	}
	return nil
}

func (g *generator) sign(name string, lists []uefi.SignatureList, by uefi.Signer) ([]byte, error) {
	v, err := uefi.SecureBootVariable(name)
	if err != nil {
		return nil, err
	}
	payload, err := uefi.EncodeSignatureLists(lists)
	if err != nil {
		return nil, err
	}
	return uefi.SignUpdate(v, g.now, payload, by)
}

// update makes the key of the update repository.
func (g *generator) update() error {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("making the update key: %w", err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return err
	}
	g.files[updatePubFile] = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	return g.key(updateKeyFile, key)
}

// newGUID returns a random GUID (RFC 9562, 5.4).
func newGUID() uefi.GUID {
	var b [16]byte
	rand.Read(b[:]) //nolint:errcheck // never fails
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return uefi.GUID(fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]))
}
