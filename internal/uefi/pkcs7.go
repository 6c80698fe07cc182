package uefi

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
)

// signedData is a SignedData of PKCS #7 1.5 (RFC 2315, 9.1), in the shape that
// section 8.2.2 asks for: one signer, SHA-256, RSA with PKCS #1 1.5 padding, no
// content and no attributes.
type signedData struct {
	Version          int
	DigestAlgorithms []pkix.AlgorithmIdentifier `asn1:"set"`
	Content          contentInfo
	Certificates     asn1.RawValue `asn1:"optional,tag:0"`
	CRLs             asn1.RawValue `asn1:"optional,tag:1"`
	Signers          []signerInfo  `asn1:"set"`
}

// contentInfo is a ContentInfo (RFC 2315, 7).
type contentInfo struct {
	Type    asn1.ObjectIdentifier
	Content asn1.RawValue `asn1:"optional,tag:0"`
}

// signerInfo is a SignerInfo (RFC 2315, 9.2).
type signerInfo struct {
	Version            int
	Certificate        issuerAndSerial
	DigestAlgorithm    pkix.AlgorithmIdentifier
	SignedAttributes   asn1.RawValue `asn1:"optional,tag:0"`
	SignatureAlgorithm pkix.AlgorithmIdentifier
	Signature          []byte
	UnsignedAttributes asn1.RawValue `asn1:"optional,tag:1"`
}

// issuerAndSerial names a certificate (RFC 2315, 6.7).
type issuerAndSerial struct {
	Issuer asn1.RawValue
	Serial *big.Int
}

func oidData() asn1.ObjectIdentifier       { return asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1} }
func oidSignedData() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2} }
func oidRSA() asn1.ObjectIdentifier        { return asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1} }
func oidSHA256() asn1.ObjectIdentifier     { return asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1} }

// signDetached returns the signature of content in DER.
func signDetached(content []byte, by Signer) ([]byte, error) {
	public, ok := by.Key.Public().(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("the key is of type %T; want RSA, the only one all firmware knows", by.Key.Public())
	}
	if !public.Equal(by.Certificate.PublicKey) {
		return nil, fmt.Errorf("the key is not that of certificate %q", by.Certificate.Subject)
	}
	sum := sha256.Sum256(content)
	sig, err := by.Key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		return nil, err
	}
	return encodeSignedData(by.Certificate, sig)
}

// encodeSignedData returns the SignedData for a signature by cert, bare: not
// wrapped in a ContentInfo. The specification allows both, but firmware of
// before 2.10 knows the bare form only, and finds the digest algorithm in it by
// its distance of 13 bytes from the start. That holds when the whole takes 256
// bytes to 64 kilobytes, as it does with any RSA key and one certificate.
func encodeSignedData(cert *x509.Certificate, sig []byte) ([]byte, error) {
	digest := pkix.AlgorithmIdentifier{Algorithm: oidSHA256(), Parameters: asn1.NullRawValue}
	return asn1.Marshal(signedData{
		Version:          1,
		DigestAlgorithms: []pkix.AlgorithmIdentifier{digest},
		Content:          contentInfo{Type: oidData()},
		Certificates:     asn1.RawValue{Class: asn1.ClassContextSpecific, IsCompound: true, Bytes: cert.Raw},
		Signers: []signerInfo{{
			Version:            1,
			Certificate:        issuerAndSerial{asn1.RawValue{FullBytes: cert.RawIssuer}, cert.SerialNumber},
			DigestAlgorithm:    digest,
			SignatureAlgorithm: pkix.AlgorithmIdentifier{Algorithm: oidRSA(), Parameters: asn1.NullRawValue},
			Signature:          sig,
		}},
	})
}

// parseSignedData reads a SignedData, bare or wrapped in a ContentInfo.
func parseSignedData(der []byte) (signedData, error) {
	var outer contentInfo
	if _, err := asn1.Unmarshal(der, &outer); err == nil && outer.Type.Equal(oidSignedData()) {
		der = outer.Content.Bytes
	}
	var sd signedData
	rest, err := asn1.Unmarshal(der, &sd)
	if err != nil {
		return signedData{}, errors.New("not a SignedData of PKCS #7 in DER") // err speaks of Go types
	}
	if len(rest) > 0 {
		return signedData{}, fmt.Errorf("%d bytes follow the SignedData; want none", len(rest))
	}
	return sd, sd.check()
}

// check reports where sd leaves the shape that section 8.2.2 asks for.
func (sd signedData) check() error {
	if len(sd.Signers) != 1 {
		return fmt.Errorf("%d signers; want one", len(sd.Signers))
	}
	s := sd.Signers[0]
	switch {
	case !sd.Content.Type.Equal(oidData()) || len(sd.Content.Content.FullBytes) > 0:
		return errors.New("it carries content; want a detached signature of data")
	case len(s.SignedAttributes.FullBytes) > 0 || len(s.UnsignedAttributes.FullBytes) > 0:
		return errors.New("the signer has attributes; want none")
	case !s.DigestAlgorithm.Algorithm.Equal(oidSHA256()):
		return fmt.Errorf("digest algorithm %s; want %s, SHA-256", s.DigestAlgorithm.Algorithm, oidSHA256())
	}
	return nil
}

// verify reports why the signature is not one of content by a certificate that
// is trusted or issued, directly or not, by one that is.
func (sd signedData) verify(content []byte, trusted []*x509.Certificate) error {
	if err := sd.check(); err != nil {
		return err
	}
	certs, err := x509.ParseCertificates(sd.Certificates.Bytes)
	if err != nil {
		return fmt.Errorf("certificates of the signature: %w", err)
	}
	signer, err := sd.Signers[0].find(certs)
	if err != nil {
		return err
	}
	public, ok := signer.PublicKey.(*rsa.PublicKey)
	if !ok {
		return fmt.Errorf("the key of signer %q is of type %T; want RSA", signer.Subject, signer.PublicKey)
	}
	sum := sha256.Sum256(content)
	if rsa.VerifyPKCS1v15(public, crypto.SHA256, sum[:], sd.Signers[0].Signature) != nil {
		return fmt.Errorf("the signature by %q is not one of this variable, time and payload", signer.Subject)
	}
	return checkTrust(signer, certs, trusted)
}

// find returns the signer's certificate.
func (s signerInfo) find(certs []*x509.Certificate) (*x509.Certificate, error) {
	for _, c := range certs {
		if s.Certificate.Serial.Cmp(c.SerialNumber) == 0 && string(s.Certificate.Issuer.FullBytes) == string(c.RawIssuer) {
			return c, nil
		}
	}
	return nil, fmt.Errorf("the signer's certificate, serial number %v, is not among the %d that come with the signature",
		s.Certificate.Serial, len(certs))
}

func checkTrust(signer *x509.Certificate, others, trusted []*x509.Certificate) error {
	opts := x509.VerifyOptions{
		Roots:         x509.NewCertPool(),
		Intermediates: x509.NewCertPool(),
		CurrentTime:   signer.NotBefore, // firmware has no clock to trust and ignores dates
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}
	for _, c := range trusted {
		opts.Roots.AddCert(c)
	}
	for _, c := range others {
		opts.Intermediates.AddCert(c)
	}
	if _, err := signer.Verify(opts); err != nil {
		return fmt.Errorf("signer %q is not trusted: %w", signer.Subject, err)
	}
	return nil
}
