package attest

import (
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/go-tpm/tpm2"

	"github.com/incusos/incusos/api"
)

const mostCertificates = 8

// keys reports whose TPM it is: which manufacturer vouches for the endorsement key, and
// whether the attestation key is in the same TPM.
func (r *Report) keys(a api.Attestation, d Demands) {
	const maker, one = "manufacturer", "TPM"
	vouched, err := vouchedFor(a, d.Makers)
	switch {
	case err != nil:
		r.refused(maker, err)
	case vouched == "":
		r.notShown(maker, "the TPM has no certificate of its endorsement key, as most emulated ones have not: it may be any TPM, also one in software")
	case d.Makers == nil:
		r.notShown(maker, "the endorsement key has a certificate of "+vouched+"; that was not checked, since no certificates of manufacturers were given")
	default:
		r.shown(maker, "the certificate of the endorsement key is "+vouched)
	}
	same := "a quote alone does not show that the attestation key is in the TPM of the endorsement key"
	switch {
	case d.Secret != "" && !strings.EqualFold(d.Secret, a.Activated):
		r.refused(one, errors.New("the challenge was not answered: the attestation key is not in the TPM of the endorsement key"))
	case d.Key != "" && !strings.EqualFold(d.Key, r.Key):
		r.refused(one, errors.New("the attestation key is another: it is another TPM, or another machine"))
	case d.Secret != "":
		r.shown(one, "one TPM holds both the endorsement key and the attestation key: it has answered the challenge")
	case d.Key != "":
		r.shown(one, "it is the TPM that was there before: the attestation key is the same. "+same)
	default:
		r.notShown(one, same+"; ask the machine itself, which then gets a challenge, or demand a key that is known")
	}
}

// vouchedFor names who made the certificate of the endorsement key; "" if there is none.
// An error is a certificate of another key, or of nobody among makers unless that is nil.
func vouchedFor(a api.Attestation, makers *x509.CertPool) (string, error) {
	if len(a.EndorsementCertificates) > mostCertificates {
		return "", fmt.Errorf("there are %d certificates of endorsement keys; want at most %d", len(a.EndorsementCertificates), mostCertificates)
	}
	if len(a.EndorsementCertificates) == 0 {
		return "", nil
	}
	key, err := readKey("endorsement", a.EndorsementKey)
	if err != nil {
		return "", err
	}
	pub, err := tpm2.Pub(*key)
	if err != nil {
		return "", fmt.Errorf("the endorsement key: %w", err)
	}
	for _, der := range a.EndorsementCertificates {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			continue // of a kind that this does not know; another may do
		}
		if k, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !k.Equal(pub) {
			continue
		}
		return checkMaker(cert, makers)
	}
	return "", errors.New("none of the certificates that came along is of the endorsement key")
}

func checkMaker(cert *x509.Certificate, makers *x509.CertPool) (string, error) {
	issuer := fmt.Sprintf("%q", cert.Issuer)
	if makers == nil {
		return issuer, nil
	}
	// The name of the TPM is in a critical extension that package x509 does not read
	// (EK Credential Profile, section 3.2.9): models, not hosts.
	name := asn1.ObjectIdentifier{2, 5, 29, 17}
	cert.UnhandledCriticalExtensions = slices.DeleteFunc(cert.UnhandledCriticalExtensions, name.Equal)
	if _, err := cert.Verify(x509.VerifyOptions{Roots: makers, Intermediates: makers, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return "", fmt.Errorf("the certificate of the endorsement key: %w", err)
	}
	return issuer, nil
}
