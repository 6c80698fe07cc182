package debug

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/mail"
	"slices"
	"strings"

	"github.com/smallstep/pkcs7"
)

// signedText returns the text of an S/MIME message (RFC 8551) once it is sure
// that support signed it. Both forms are known: the text in the open with the
// signature behind it (multipart/signed), and both in one (pkcs7-mime). Line ends
// come back as newlines.
func signedText(message []byte, support *x509.Certificate) ([]byte, error) {
	m, err := mail.ReadMessage(bytes.NewReader(message))
	if err != nil {
		return nil, errors.New("it is no S/MIME message; make one with \"openssl smime -sign\"")
	}
	kind, parameters, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		return nil, fmt.Errorf("its Content-Type: %w", err)
	}
	body, err := io.ReadAll(m.Body)
	if err != nil {
		return nil, err
	}
	var signature, text []byte
	switch kind {
	case "application/pkcs7-mime", "application/x-pkcs7-mime":
		signature, err = base64Body(body)
	case "multipart/signed":
		text, signature, err = split(body, parameters["boundary"])
	default:
		err = fmt.Errorf("it is of type %q; want multipart/signed or application/pkcs7-mime", kind)
	}
	if err != nil {
		return nil, err
	}
	if text, err = verified(signature, text, support); err != nil {
		return nil, err
	}
	return plain(text), nil
}

// verified returns what the signature is of: detached, or what it carries if
// detached is nil.
func verified(der, detached []byte, support *x509.Certificate) ([]byte, error) {
	p, err := pkcs7.Parse(der)
	if err != nil {
		return nil, fmt.Errorf("its signature is no PKCS #7: %w", err)
	}
	if detached != nil {
		p.Content = detached
	}
	for _, s := range p.Signers {
		if !strong(s.DigestAlgorithm.Algorithm.String()) {
			return nil, fmt.Errorf("its signature is by digest algorithm %v; want SHA-256, SHA-384 or SHA-512", s.DigestAlgorithm.Algorithm)
		}
		// Without attributes, what was signed as attributes could be shown
		// as if it were the text (RFC 8933).
		if len(s.AuthenticatedAttributes) == 0 {
			return nil, errors.New("its signature has no signed attributes; leave out -noattr")
		}
	}
	roots := x509.NewCertPool()
	roots.AddCert(support)
	err = p.VerifyWithChain(roots)
	if _, ok := errors.AsType[*pkcs7.MessageDigestMismatchError](err); ok {
		return nil, errors.New("it is not what was signed")
	}
	if err != nil {
		return nil, fmt.Errorf("its signature is not by the support key of this image: %w", err)
	}
	return p.Content, nil
}

// strong reports whether a digest algorithm, by its identifier, is one to rely on.
func strong(oid string) bool {
	return slices.Contains([]string{
		"2.16.840.1.101.3.4.2.1", // SHA-256
		"2.16.840.1.101.3.4.2.2", // SHA-384
		"2.16.840.1.101.3.4.2.3", // SHA-512
	}, oid)
}

// split takes a multipart/signed body apart. The text is returned with the line
// ends that were signed, whatever those of the message became on the way.
func split(body []byte, boundary string) (text, signature []byte, err error) {
	if boundary == "" {
		return nil, nil, errors.New("its Content-Type names no boundary")
	}
	body = append([]byte("\n"), bytes.ReplaceAll(body, []byte("\r\n"), []byte("\n"))...)
	parts := bytes.Split(body, []byte("\n--"+boundary))
	if len(parts) != 4 || !bytes.HasPrefix(parts[3], []byte("--")) {
		return nil, nil, fmt.Errorf("it has %d parts; want the script and its signature", max(0, len(parts)-2))
	}
	text, ok := bytes.CutPrefix(parts[1], []byte("\n"))
	_, encoded, found := bytes.Cut(parts[2], []byte("\n\n"))
	if !ok || !found {
		return nil, nil, errors.New("its parts are not where its boundary says")
	}
	signature, err = base64Body(encoded)
	return bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n")), signature, err
}

func base64Body(b []byte) ([]byte, error) {
	out, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(string(b)), ""))
	if err != nil {
		return nil, fmt.Errorf("its signature is not in base64: %w", err)
	}
	return out, nil
}

// plain takes off what "openssl smime -sign -text" puts in front of a text, and
// gives it the line ends of Unix.
func plain(text []byte) []byte {
	text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	if head, rest, ok := bytes.Cut(text, []byte("\n\n")); ok && strings.EqualFold(string(head), "Content-Type: text/plain") {
		return rest
	}
	return text
}
