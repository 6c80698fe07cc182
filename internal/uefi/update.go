package uefi

import (
	"crypto"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A SignedUpdate is a new value for an authenticated variable: an
// EFI_VARIABLE_AUTHENTICATION_2 (section 8.2.2) and the value behind it. It is
// what an .auth file holds and what is written to the variable.
//
//	offset  bytes  field
//	     0     16  EFI_TIME (section 8.3)
//	    16      4  length of the rest of the header, its signature included
//	    20      2  revision 0x0200
//	    22      2  WIN_CERT_TYPE_EFI_GUID, 0x0ef1 (section 32.2.4)
//	    24     16  EFI_CERT_TYPE_PKCS7_GUID
//	    40         PKCS #7 SignedData, then the value
//
// The variable it is meant for is not in it, only covered by the signature.
type SignedUpdate struct {
	// Time orders updates, in whole seconds: firmware refuses one that is not
	// newer than the value it has, unless the update appends.
	Time    time.Time
	Payload []byte // the value: signature lists
	signed  signedData
}

// A Signer is a private key and the certificate that the firmware knows it by.
// RSA is the one kind of key that all firmware has to accept, so it must be that.
type Signer struct {
	Key         crypto.Signer
	Certificate *x509.Certificate
}

const (
	timeSize      = 16
	winCertHeader = 24 // up to and with the GUID
	winRevision   = 0x0200
	winCertGUID   = 0x0ef1

	certPKCS7 GUID = "4aafd29d-68df-49ee-8aa9-347d375665a7"
)

// SignUpdate returns the signed update that gives payload to v, as of at. The
// part of at below a second is dropped.
func SignUpdate(v Variable, at time.Time, payload []byte, by Signer) ([]byte, error) {
	stamp, err := encodeTime(at)
	if err != nil {
		return nil, err
	}
	content, err := signedContent(v, stamp, payload)
	if err != nil {
		return nil, err
	}
	sig, err := signDetached(content, by)
	if err != nil {
		return nil, fmt.Errorf("signing update of %s: %w", v.Name, err)
	}
	return encodeUpdate(stamp, sig, payload)
}

func encodeUpdate(stamp, sig, payload []byte) ([]byte, error) {
	le := binary.LittleEndian
	b := slices.Clone(stamp)
	b = le.AppendUint32(b, uint32(winCertHeader+len(sig))) //nolint:gosec // a few kilobytes
	b = le.AppendUint16(b, winRevision)
	b = le.AppendUint16(b, winCertGUID)
	b, err := appendGUID(b, certPKCS7)
	if err != nil {
		return nil, err
	}
	return slices.Concat(b, sig, payload), nil
}

// ParseUpdate takes an update apart. It does not look at the signature; Verify
// does. The payload points into b.
func ParseUpdate(b []byte) (SignedUpdate, error) {
	if len(b) < timeSize+winCertHeader {
		return SignedUpdate{}, fmt.Errorf("update ends after %d bytes; its header alone takes %d", len(b), timeSize+winCertHeader)
	}
	at, err := decodeTime(b[:timeSize])
	if err != nil {
		return SignedUpdate{}, fmt.Errorf("time of the update: %w", err)
	}
	der, payload, err := cutCertificate(b[timeSize:])
	if err != nil {
		return SignedUpdate{}, fmt.Errorf("header of the update: %w", err)
	}
	sd, err := parseSignedData(der)
	if err != nil {
		return SignedUpdate{}, fmt.Errorf("signature of the update: %w", err)
	}
	return SignedUpdate{Time: at, Payload: payload, signed: sd}, nil
}

// cutCertificate cuts b, which holds at least the header of a
// WIN_CERTIFICATE_UEFI_GUID, after its signature.
func cutCertificate(b []byte) (sig, rest []byte, err error) {
	le := binary.LittleEndian
	n := uint64(le.Uint32(b))
	if n < winCertHeader || n > uint64(len(b)) {
		return nil, nil, fmt.Errorf("certificate says it is %d bytes long; want %d to %d", n, winCertHeader, len(b))
	}
	if rev := le.Uint16(b[4:]); rev != winRevision {
		return nil, nil, fmt.Errorf("certificate has revision %#04x; want %#04x", rev, winRevision)
	}
	if typ := le.Uint16(b[6:]); typ != winCertGUID {
		return nil, nil, fmt.Errorf("certificate has type %#04x; want %#04x", typ, winCertGUID)
	}
	if g := readGUID(b[8:]); g != certPKCS7 {
		return nil, nil, fmt.Errorf("certificate has type %s; want %s, PKCS #7", g, certPKCS7)
	}
	return b[winCertHeader:n], b[n:], nil
}

// Verify reports why firmware that holds the trusted certificates would refuse
// the update of v, or nil. Trusted are the certificates in PK for PK and KEK,
// and those in KEK for db and dbx. Like firmware, it pays no regard to the dates
// in certificates.
func (u SignedUpdate) Verify(v Variable, trusted []*x509.Certificate) error {
	stamp, err := encodeTime(u.Time)
	if err != nil {
		return err
	}
	content, err := signedContent(v, stamp, u.Payload)
	if err != nil {
		return err
	}
	if err := u.signed.verify(content, trusted); err != nil {
		return fmt.Errorf("update of %s: %w", v.Name, err)
	}
	return nil
}

// signedContent returns what the signature of an update covers.
func signedContent(v Variable, stamp, payload []byte) ([]byte, error) {
	b, err := appendVariable(nil, v)
	if err != nil {
		return nil, err
	}
	return slices.Concat(b, stamp, payload), nil
}

// encodeTime returns t as an EFI_TIME (section 8.3). In updates everything below
// a second, and the time zone, must be zero.
func encodeTime(t time.Time) ([]byte, error) {
	t = t.UTC()
	if t.Year() < 1900 || t.Year() > 9999 {
		return nil, fmt.Errorf("year %d cannot be written as an EFI time; want 1900 to 9999", t.Year())
	}
	b := make([]byte, timeSize)
	binary.LittleEndian.PutUint16(b, uint16(t.Year())) //nolint:gosec // checked above
	for i, n := range []int{int(t.Month()), t.Day(), t.Hour(), t.Minute(), t.Second()} {
		b[2+i] = byte(n)
	}
	return b, nil
}

// decodeTime returns the time that b, 16 bytes, stands for.
func decodeTime(b []byte) (time.Time, error) {
	for _, pad := range b[7:] {
		if pad != 0 {
			return time.Time{}, errors.New("has a fraction of a second or a time zone; both must be zero")
		}
	}
	t := time.Date(int(binary.LittleEndian.Uint16(b)), time.Month(b[2]), int(b[3]), int(b[4]), int(b[5]), int(b[6]), 0, time.UTC)
	back, err := encodeTime(t)
	if err != nil {
		return time.Time{}, err
	}
	if !slices.Equal(back, b) { // time.Date takes 30 February for 1 or 2 March
		return time.Time{}, fmt.Errorf("% x is no date and time of day", b[:7])
	}
	return t, nil
}
