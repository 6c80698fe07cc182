package listener

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"slices"
	"time"
)

// ownFile holds the certificate and the key that the machine shows if Incus has
// none yet.
const ownFile = "/var/lib/incus-os/fallback-listener.pem"

// identity returns the certificate that clients know the machine by: that of
// Incus, in a cluster that of the cluster.
func (l *Listener) identity() (tls.Certificate, error) {
	for _, name := range []string{"/var/lib/incus/cluster", "/var/lib/incus/server"} {
		cert, certErr := l.host.Files.ReadFile(name + ".crt")
		key, keyErr := l.host.Files.ReadFile(name + ".key")
		if certErr != nil || keyErr != nil {
			continue
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err == nil {
			return pair, nil
		}
		slog.Warn("Cannot use the certificate of Incus", "file", name+".crt", "err", err)
	}
	return l.own()
}

// own returns the certificate that was made for the listener, and makes it if
// need be.
func (l *Listener) own() (tls.Certificate, error) {
	if b, err := l.host.Files.ReadFile(ownFile); err == nil {
		pair, err := tls.X509KeyPair(b, b)
		if err == nil {
			return pair, nil
		}
		slog.Warn("The certificate of the fallback listener is damaged; making another", "err", err)
	}
	b, err := selfSigned()
	if err == nil {
		err = l.host.Files.WriteFile(ownFile, b, 0o600)
	}
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("making a certificate for the fallback listener: %w", err)
	}
	return tls.X509KeyPair(b, b)
}

// selfSigned returns a new certificate and its key in PEM. It is valid for ever
// (RFC 5280, section 4.1.2.5), whatever the clock says now: clients compare its
// fingerprint.
func selfSigned() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	cert := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{Organization: []string{"IncusOS"}, CommonName: "fallback listener"},
		NotBefore:    time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return slices.Concat(
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
	), nil
}
