//go:build vm

package vm_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"

	"github.com/incusos/incusos/internal/vm"
)

// A maker makes TPMs: it puts into each a certificate of its endorsement key.
type maker struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newMaker(t *testing.T, name string) maker {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return maker{key, cert}
}

// pool is what an operator trusts who trusts this maker.
func (k maker) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(k.cert)
	return pool
}

// vouch puts a certificate into the TPM of a machine that was never switched on.
func (k maker) vouch(t *testing.T, m *vm.Machine) {
	t.Helper()
	err := m.WithTPM(t.Context(), func(socket string) error {
		tpm, err := linuxudstpm.Open(socket)
		if err != nil {
			return err
		}
		defer tpm.Close()
		ek, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(tpm2.RSAEKTemplate)}.Execute(tpm)
		if err != nil {
			return err
		}
		public, err := ek.OutPublic.Contents()
		if err != nil {
			return err
		}
		key, err := tpm2.Pub(*public)
		if err != nil {
			return err
		}
		der, err := k.certify(key)
		if err != nil {
			return err
		}
		_, err = tpm2.FlushContext{FlushHandle: ek.ObjectHandle}.Execute(tpm)
		return errors.Join(err, burn(tpm, der))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// certify makes a certificate as TPMs have it: without a subject, and with the model in
// a critical extension (TCG EK Credential Profile for TPM 2.0, section 3.2).
func (k maker) certify(key any) ([]byte, error) {
	type attribute struct {
		Type  asn1.ObjectIdentifier
		Value string `asn1:"utf8"`
	}
	var model pkix.RDNSequence
	for n, value := range []string{"id:54455354", "model", "id:00000001"} {
		model = append(model, pkix.RelativeDistinguishedNameSET{{Type: asn1.ObjectIdentifier{2, 23, 133, 2, n + 1}, Value: value}})
	}
	name, err := asn1.Marshal(model)
	if err != nil {
		return nil, err
	}
	// A GeneralNames with one directoryName (RFC 5280, section 4.2.1.6).
	names, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: name}})
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageKeyEncipherment,
		UnknownExtKeyUsage: []asn1.ObjectIdentifier{{2, 23, 133, 8, 1}}, BasicConstraintsValid: true,
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Critical: true, Value: names}},
	}
	return x509.CreateCertificate(rand.Reader, template, k.cert, key, k.key)
}

// burn writes the certificate of a key by template L-1 where everybody may read it, and
// nobody but the platform may write (the same, section 2.2.1.4).
func burn(tpm transport.TPM, der []byte) error {
	const index, piece = tpm2.TPMHandle(0x01c00002), 512
	platform := tpm2.AuthHandle{Handle: tpm2.TPMRHPlatform, Auth: tpm2.PasswordAuth(nil)}
	_, err := tpm2.NVDefineSpace{AuthHandle: platform, PublicInfo: tpm2.New2B(tpm2.TPMSNVPublic{
		NVIndex: index, NameAlg: tpm2.TPMAlgSHA256, DataSize: uint16(len(der)),
		Attributes: tpm2.TPMANV{PPWrite: true, PPRead: true, OwnerRead: true, AuthRead: true, NoDA: true, PlatformCreate: true},
	})}.Execute(tpm)
	if err != nil {
		return err
	}
	for at := 0; at < len(der); at += piece {
		described, err := tpm2.NVReadPublic{NVIndex: index}.Execute(tpm) // its name changes when it was written to
		if err != nil {
			return err
		}
		_, err = tpm2.NVWrite{
			AuthHandle: platform, NVIndex: tpm2.NamedHandle{Handle: index, Name: described.NVName},
			Data: tpm2.TPM2BMaxNVBuffer{Buffer: der[at:min(at+piece, len(der))]}, Offset: uint16(at),
		}.Execute(tpm)
		if err != nil {
			return err
		}
	}
	return nil
}
