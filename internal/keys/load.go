package keys

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/incusos/incusos/internal/uefi"
)

// Load reads the trust root in dir. It reports every file that is missing or
// that others may read, and each certificate that is not the one of its key.
// Of private keys it keeps nothing but the path.
func Load(dir string) (*Root, error) {
	if err := checkFiles(dir); err != nil {
		return nil, err
	}
	r := &Root{Dir: dir}
	pairs := []*Pair{&r.PK, &r.KEK, &r.DB, &r.PCR}
	if hasSupport(dir) {
		r.Support = new(Pair)
		pairs = append(pairs, r.Support)
	}
	for i, p := range pairs {
		var err error
		if *p, err = loadPair(dir, pairNames()[i]); err != nil {
			return nil, err
		}
	}
	for _, name := range authNames() {
		r.Auth = append(r.Auth, filepath.Join(dir, name+".auth"))
	}
	var err error
	if r.Update, err = loadUpdateKey(dir); err != nil {
		return nil, err
	}
	if r.GUID, err = loadGUID(filepath.Join(dir, guidFile)); err != nil {
		return nil, err
	}
	return r, nil
}

// hasSupport reports whether a root has a support pair, or what is left of one.
func hasSupport(dir string) bool {
	for _, end := range []string{".key", ".crt"} {
		if _, err := os.Lstat(filepath.Join(dir, support+end)); !errors.Is(err, fs.ErrNotExist) {
			return true
		}
	}
	return false
}

// checkFiles reports what is wrong with the files of dir without reading them.
func checkFiles(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%q is no directory; want one made by \"incusos keys init\"", dir)
	}
	problems := []error{checkMode(dir, info, 0o700, 0o022)}
	var missing []string
	for _, name := range fileNames() {
		if strings.HasPrefix(name, support) && !hasSupport(dir) {
			continue
		}
		switch err := checkFile(dir, name); {
		case errors.Is(err, fs.ErrNotExist):
			missing = append(missing, name)
		default:
			problems = append(problems, err)
		}
	}
	if len(missing) > 0 {
		problems = append(problems, fmt.Errorf("%q lacks %s", dir, strings.Join(missing, ", ")))
	}
	return errors.Join(problems...)
}

func checkFile(dir, name string) error {
	file := filepath.Join(dir, name)
	info, err := os.Stat(file)
	if err != nil || !secret(name) {
		return err
	}
	return checkMode(file, info, 0o600, 0o077)
}

// checkMode reports whether file grants others a bit of tooWide.
func checkMode(file string, info fs.FileInfo, want, tooWide fs.FileMode) error {
	if mode := info.Mode().Perm(); mode&tooWide != 0 {
		return fmt.Errorf("%q has mode %04o, which lets others in; want %04o", file, mode, want)
	}
	return nil
}

func loadPair(dir, name string) (Pair, error) {
	p := Pair{Name: name, KeyFile: filepath.Join(dir, name+".key"), CertFile: filepath.Join(dir, name+".crt")}
	certs, err := readCertificates(p.CertFile)
	if err != nil {
		return Pair{}, err
	}
	key, err := readKey[*rsa.PrivateKey](p.KeyFile)
	if err != nil {
		return Pair{}, err
	}
	p.Cert = certs[0]
	if !key.PublicKey.Equal(p.Cert.PublicKey) {
		return Pair{}, fmt.Errorf("%q is not for the key in %q", p.CertFile, p.KeyFile)
	}
	return p, nil
}

func loadUpdateKey(dir string) (UpdateKey, error) {
	u := UpdateKey{KeyFile: filepath.Join(dir, updateKeyFile), PublicFile: filepath.Join(dir, updatePubFile)}
	public, err := readPublicKey(u.PublicFile)
	if err != nil {
		return UpdateKey{}, err
	}
	key, err := readKey[ed25519.PrivateKey](u.KeyFile)
	if err != nil {
		return UpdateKey{}, err
	}
	if !public.Equal(key.Public()) {
		return UpdateKey{}, fmt.Errorf("%q is not the public half of the key in %q", u.PublicFile, u.KeyFile)
	}
	u.Public = public
	return u, nil
}

// Signer returns the private key of the update repository.
func (u UpdateKey) Signer() (crypto.Signer, error) { return readKey[ed25519.PrivateKey](u.KeyFile) }

func loadGUID(file string) (uefi.GUID, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	g, err := uefi.ParseGUID(strings.TrimSpace(string(b)))
	if err != nil {
		return "", fmt.Errorf("%q: %w", file, err)
	}
	return g, nil
}

// Signer returns the private half of p with its certificate, to sign updates with.
func (p Pair) Signer() (uefi.Signer, error) {
	key, err := readKey[*rsa.PrivateKey](p.KeyFile)
	return uefi.Signer{Key: key, Certificate: p.Cert}, err
}
