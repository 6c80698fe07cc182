package vm

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// An Identity is a client certificate for Incus. Its directory is one that
// the incus command takes as INCUS_CONF.
type Identity struct {
	Dir  string
	PEM  []byte // the certificate
	cert tls.Certificate
}

// Certificate is the file of the certificate, Key that of its private key.
func (i Identity) Certificate() string { return filepath.Join(i.Dir, "client.crt") }
func (i Identity) Key() string         { return filepath.Join(i.Dir, "client.key") }

// TLS returns the way to speak to a machine as this client. The machine's own
// certificate is not checked: it made it itself a moment ago, nobody vouches
// for it, and the connection does not leave this host.
func (i Identity) TLS() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		Certificates:       []tls.Certificate{i.cert},
		InsecureSkipVerify: true, //nolint:gosec // see above
	}
}

// OpenIdentity returns the identity kept in dir, which it makes at first.
func OpenIdentity(dir string) (Identity, error) {
	i := Identity{Dir: dir}
	_, err := os.Stat(i.Certificate())
	if errors.Is(err, fs.ErrNotExist) {
		err = i.create()
	}
	if err != nil {
		return i, fmt.Errorf("making a client certificate in %s: %w", dir, err)
	}
	if i.cert, err = tls.LoadX509KeyPair(i.Certificate(), i.Key()); err != nil {
		return i, fmt.Errorf("reading the client certificate in %s: %w", dir, err)
	}
	i.PEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.cert.Certificate[0]})
	return i, nil
}

// create writes the certificate last: it stands for the pair.
func (i Identity) create() error {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return err
	}
	cert, err := selfSigned(key)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(i.Dir, 0o700); err != nil {
		return err
	}
	if err := writePEM(i.Key(), "PRIVATE KEY", der); err != nil {
		return err
	}
	return writePEM(i.Certificate(), "CERTIFICATE", cert)
}

func selfSigned(key *ecdsa.PrivateKey) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	c := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "incusos vm"},
		NotBefore:    now.Add(-24 * time.Hour), // the guest's clock may be behind
		NotAfter:     now.AddDate(10, 0, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	return x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
}

func writePEM(name, kind string, der []byte) error {
	return os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
