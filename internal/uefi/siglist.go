package uefi

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
)

// A SignatureList is an EFI_SIGNATURE_LIST (section 32.4.1): signatures of one
// type and one length.
//
//	offset  bytes  field
//	     0     16  type
//	    16      4  length of the whole list
//	    20      4  length of the header
//	    24      4  length of one signature, its owner included
//	    28         header, then the signatures
type SignatureList struct {
	Type       GUID
	Header     []byte // empty for every type the specification defines
	Signatures []Signature
}

// A Signature is an EFI_SIGNATURE_DATA: 16 bytes of owner, then the data.
type Signature struct {
	Owner GUID   // who put it there; of no consequence to the firmware
	Data  []byte // a certificate in DER for CertX509, a digest for CertSHA256
}

// listHeader is the length of the fixed part of a signature list.
const listHeader = 28

// X509List returns a list with one certificate. Certificates differ in length,
// so each has a list of its own.
func X509List(owner GUID, cert *x509.Certificate) SignatureList {
	return SignatureList{Type: CertX509, Signatures: []Signature{{owner, cert.Raw}}}
}

// ParseSignatureLists returns the lists that b, the value of a variable, is made
// of. No bytes are no lists. The lists point into b.
func ParseSignatureLists(b []byte) ([]SignatureList, error) {
	var lists []SignatureList
	for at := 0; at < len(b); {
		l, n, err := parseSignatureList(b[at:])
		if err != nil {
			return nil, fmt.Errorf("signature list %d, at byte %d: %w", len(lists), at, err)
		}
		lists = append(lists, l)
		at += n
	}
	return lists, nil
}

// parseSignatureList returns the list at the start of b and its length.
func parseSignatureList(b []byte) (SignatureList, int, error) {
	if len(b) < listHeader {
		return SignatureList{}, 0, fmt.Errorf("ends after %d bytes; its header alone takes %d", len(b), listHeader)
	}
	le := binary.LittleEndian
	size, header, each := uint64(le.Uint32(b[16:])), uint64(le.Uint32(b[20:])), uint64(le.Uint32(b[24:]))
	if size < listHeader+header || size > uint64(len(b)) {
		return SignatureList{}, 0, fmt.Errorf("says it is %d bytes long; want %d to %d", size, listHeader+header, len(b))
	}
	if each < guidSize {
		return SignatureList{}, 0, fmt.Errorf("says a signature is %d bytes long; its owner alone takes %d", each, guidSize)
	}
	data := b[listHeader+header : size]
	if uint64(len(data))%each != 0 {
		return SignatureList{}, 0, fmt.Errorf("has %d bytes of signatures, which is no multiple of %d", len(data), each)
	}
	l := SignatureList{Type: readGUID(b), Header: b[listHeader : listHeader+header]}
	for ; len(data) > 0; data = data[each:] {
		l.Signatures = append(l.Signatures, Signature{readGUID(data), data[guidSize:each]})
	}
	return l, int(size), nil //nolint:gosec // no more than len(b)
}

// EncodeSignatureLists returns lists as the value of a variable. The signatures
// of one list must be of the same length.
func EncodeSignatureLists(lists []SignatureList) ([]byte, error) {
	var b []byte
	for i, l := range lists {
		var err error
		if b, err = appendSignatureList(b, l); err != nil {
			return nil, fmt.Errorf("signature list %d: %w", i, err)
		}
	}
	return b, nil
}

func appendSignatureList(b []byte, l SignatureList) ([]byte, error) {
	each := guidSize
	if len(l.Signatures) > 0 {
		each += len(l.Signatures[0].Data)
	}
	size := listHeader + len(l.Header) + each*len(l.Signatures)
	if size > math.MaxUint32 {
		return nil, fmt.Errorf("%d bytes are more than a list can hold", size)
	}
	b, err := appendGUID(b, l.Type)
	if err != nil {
		return nil, fmt.Errorf("type: %w", err)
	}
	for _, n := range []int{size, len(l.Header), each} {
		b = binary.LittleEndian.AppendUint32(b, uint32(n)) //nolint:gosec // no more than size
	}
	b = append(b, l.Header...)
	for i, s := range l.Signatures {
		if guidSize+len(s.Data) != each {
			return nil, fmt.Errorf("signature %d is %d bytes long, the first one %d; give it a list of its own", i, len(s.Data), each-guidSize)
		}
		if b, err = appendGUID(b, s.Owner); err != nil {
			return nil, fmt.Errorf("owner of signature %d: %w", i, err)
		}
		b = append(b, s.Data...)
	}
	return b, nil
}

// A Certificate describes a certificate that a Secure Boot variable holds.
type Certificate struct {
	Type        string // the variable: "PK", "KEK", "db" or "dbx"
	Fingerprint string
	Subject     string // RFC 2253 form; "" when the certificate is beyond reading
	Issuer      string // likewise
}

// Fingerprint returns the SHA-256 of a certificate in DER, in lower-case
// hexadecimal without separators.
func Fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// Certificates describes the certificates in lists, the value of the named
// variable. Firmware comes with certificates that Go refuses to parse; they are
// listed with their fingerprint alone.
func Certificates(variable string, lists []SignatureList) []Certificate {
	var certs []Certificate
	for _, der := range derCertificates(lists) {
		c := Certificate{Type: variable, Fingerprint: Fingerprint(der)}
		if cert, err := x509.ParseCertificate(der); err == nil {
			c.Subject, c.Issuer = cert.Subject.String(), cert.Issuer.String()
		}
		certs = append(certs, c)
	}
	return certs
}

// X509Certificates returns the certificates in lists that Go can parse, to
// verify updates with.
func X509Certificates(lists []SignatureList) []*x509.Certificate {
	var certs []*x509.Certificate
	for _, der := range derCertificates(lists) {
		if cert, err := x509.ParseCertificate(der); err == nil {
			certs = append(certs, cert)
		}
	}
	return certs
}

func derCertificates(lists []SignatureList) [][]byte {
	var certs [][]byte
	for _, l := range lists {
		if l.Type != CertX509 {
			continue
		}
		for _, s := range l.Signatures {
			certs = append(certs, s.Data)
		}
	}
	return certs
}

// Refuses says why firmware with the given db and dbx does not start a program with
// that digest, signed by signer or, if that is nil, by nobody (section 32.5.3.3); ""
// if it does.
func Refuses(db, dbx []SignatureList, digest [sha256.Size]byte, signer *x509.Certificate) string {
	if lists(dbx, CertSHA256, digest[:]) {
		return "dbx lists its digest: it was revoked"
	}
	if signer == nil {
		if lists(db, CertSHA256, digest[:]) {
			return ""
		}
		return "nobody has signed it"
	}
	chain := []*x509.Certificate{signer}
	for _, der := range derCertificates(dbx) {
		if vouches(der, chain) {
			return fmt.Sprintf("dbx lists the certificate %q that it is signed with: it was revoked", signer.Subject)
		}
	}
	if lists(dbx, certX509SHA256, tbsDigest(signer)) {
		return fmt.Sprintf("dbx lists the digest of the certificate %q that it is signed with: it was revoked", signer.Subject)
	}
	for _, der := range derCertificates(db) {
		if vouches(der, chain) {
			return ""
		}
	}
	return fmt.Sprintf("db has no certificate for %q, who has signed it", signer.Subject)
}

// certX509SHA256 is the type of lists with digests of certificates to be refused, each
// with a time behind it (section 32.4.1, EFI_CERT_X509_SHA256_GUID).
const certX509SHA256 GUID = "3bd2a492-96c0-4079-b420-fcf98ef103ed"

// tbsDigest is the digest that such a list has of a certificate: of the part that is
// signed.
func tbsDigest(cert *x509.Certificate) []byte {
	sum := sha256.Sum256(cert.RawTBSCertificate)
	return sum[:]
}

// lists reports whether lists of a type have an entry that begins with data.
func lists(all []SignatureList, kind GUID, data []byte) bool {
	for _, l := range all {
		for _, s := range l.Signatures {
			if l.Type == kind && bytes.HasPrefix(s.Data, data) {
				return true
			}
		}
	}
	return false
}

// Missing returns what of more is not in have, list by list: what firmware adds to a
// variable when it is told to append more (section 8.2.2).
func Missing(have, more []SignatureList) []SignatureList {
	var out []SignatureList
	for _, l := range more {
		missing := SignatureList{Type: l.Type, Header: l.Header}
		for _, s := range l.Signatures {
			if !contains(have, l.Type, s) {
				missing.Signatures = append(missing.Signatures, s)
			}
		}
		if missing.Signatures != nil {
			out = append(out, missing)
		}
	}
	return out
}

func contains(all []SignatureList, kind GUID, s Signature) bool {
	for _, l := range all {
		for _, have := range l.Signatures {
			if l.Type == kind && have.Owner == s.Owner && bytes.Equal(have.Data, s.Data) {
				return true
			}
		}
	}
	return false
}
