package keys

import (
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
)

// Signer returns the private key in a PEM file (PKCS #8). It fails if others may
// read the file.
func Signer(file string) (crypto.Signer, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if err := checkMode(file, info, 0o600, 0o077); err != nil {
		return nil, err
	}
	return readKey[crypto.Signer](file)
}

// Public returns the public key in a PEM file, or that of the private key in it.
func Public(file string) (crypto.PublicKey, error) {
	der, err := readPEM(file, "PUBLIC KEY")
	if err == nil {
		return x509.ParsePKIXPublicKey(der)
	}
	key, privateErr := readKey[crypto.Signer](file)
	if privateErr != nil {
		return nil, err
	}
	return key.Public(), nil
}

// readKey returns the private key in a PEM file (PKCS #8), which must be a K.
// The content of the file never becomes part of an error.
func readKey[K any](file string) (K, error) {
	var none K
	der, err := readPEM(file, "PRIVATE KEY")
	if err != nil {
		return none, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return none, fmt.Errorf("%q holds no key in PKCS #8", file)
	}
	k, ok := key.(K)
	if !ok {
		return none, fmt.Errorf("%q holds a key of type %T; want %T", file, key, none)
	}
	return k, nil
}

func readPublicKey(file string) (ed25519.PublicKey, error) {
	der, err := readPEM(file, "PUBLIC KEY")
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", file, err)
	}
	k, ok := key.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%q holds a key of type %T; want %T", file, key, k)
	}
	return k, nil
}

// readPEM returns the content of the first block of that type in file.
func readPEM(file, blockType string) ([]byte, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == blockType {
			return block.Bytes, nil
		}
	}
	return nil, fmt.Errorf("%q holds no PEM block %q", file, blockType)
}

// certificatesIn returns the certificates of all files, in their order.
func certificatesIn(files []string) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for _, f := range files {
		certs, err := readCertificates(f)
		if err != nil {
			return nil, err
		}
		all = append(all, certs...)
	}
	return all, nil
}

// readCertificates returns the certificates in file: any number in PEM, or one
// in DER. There is always at least one.
func readCertificates(file string) ([]*x509.Certificate, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var der []byte
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			der = append(der, block.Bytes...)
		}
	}
	if der == nil {
		der = b
	}
	certs, err := x509.ParseCertificates(der)
	if err != nil || len(certs) == 0 {
		return nil, fmt.Errorf("%q holds no certificate; want X.509 in PEM or DER", file)
	}
	return certs, nil
}
