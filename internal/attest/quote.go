package attest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"

	"github.com/google/go-tpm/tpm2"
)

const (
	longestStructure = 4 << 10 // bytes of a quote, a key or a signature; real ones have some hundred

	generated  = 0xff544347 // TPM_GENERATED_VALUE: no restricted key signs this of anybody else's
	kindQuote  = 0x8018     // TPM_ST_ATTEST_QUOTE
	sha256Bank = 0x000b
)

// A signedQuote is what a TPM signed (TPMS_ATTEST with a TPMS_QUOTE_INFO).
type signedQuote struct {
	nonce  []byte
	pcrs   []int // of the SHA-256 bank, in order
	digest []byte
}

// A reader takes fields off the front of a TPM structure; numbers are big-endian. Once
// something was missing b is nil, and all that comes is empty.
type reader struct{ b []byte }

func (r *reader) take(n int) []byte {
	if r.b == nil || n > len(r.b) {
		r.b = nil
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) number(size int) uint64 {
	var n uint64
	for _, c := range r.take(size) {
		n = n<<8 | uint64(c)
	}
	return n
}

// sized takes a TPM2B: a length of two bytes and as many bytes.
func (r *reader) sized() []byte { return r.take(int(r.number(2))) } //nolint:gosec // below 65536

// parseQuote reads what a quote's signature is of.
func parseQuote(b []byte) (q signedQuote, err error) {
	if len(b) > longestStructure {
		return q, fmt.Errorf("it has %d bytes; want at most %d", len(b), longestStructure)
	}
	r := reader{b}
	if magic := r.number(4); magic != generated {
		return q, fmt.Errorf("it begins with %#x; want %#x, by which a TPM marks what it made itself", magic, uint32(generated))
	}
	if kind := r.number(2); kind != kindQuote {
		return q, fmt.Errorf("it is of kind %#x; want %#x, a quote", kind, kindQuote)
	}
	r.sized() // qualified name of the key
	q.nonce = r.sized()
	r.take(8 + 4 + 4 + 1) // clock, restarts, and whether the clock is safe
	r.take(8)             // firmware of the TPM
	banks := r.number(4)
	bank, bitmap := r.number(2), r.take(int(r.number(1))) //nolint:gosec // a byte
	q.digest = r.sized()
	switch {
	case r.b == nil:
		return q, errors.New("it is cut off")
	case len(r.b) > 0:
		return q, fmt.Errorf("%d bytes follow its end", len(r.b))
	case banks != 1 || bank != sha256Bank:
		return q, fmt.Errorf("it is of %d banks, the first with algorithm %#x; want SHA-256 alone", banks, bank)
	}
	for i := range 8 * len(bitmap) {
		if bitmap[i/8]&(1<<(i%8)) != 0 {
			q.pcrs = append(q.pcrs, i)
		}
	}
	return q, nil
}

// readKey reads a TPMT_PUBLIC.
func readKey(which string, b []byte) (*tpm2.TPMTPublic, error) {
	if len(b) == 0 || len(b) > longestStructure {
		return nil, fmt.Errorf("the %s key has %d bytes; want 1 to %d", which, len(b), longestStructure)
	}
	key, err := tpm2.Unmarshal[tpm2.TPMTPublic](b)
	if err != nil {
		return nil, fmt.Errorf("the %s key: %w", which, err)
	}
	if !bytes.Equal(tpm2.Marshal(key), b) {
		return nil, fmt.Errorf("the %s key is followed by something, or is written in another way than a TPM does", which)
	}
	return key, nil
}

// signs says why a key is none that attests: it has to be one that never leaves its TPM
// and signs nothing but what that made itself.
func signs(key *tpm2.TPMTPublic) error {
	a := key.ObjectAttributes
	if !a.FixedTPM || !a.FixedParent || !a.SensitiveDataOrigin || !a.Restricted || !a.SignEncrypt || a.Decrypt {
		return errors.New("the attestation key may leave its TPM, or signs anything: what it signs proves nothing")
	}
	return nil
}

// checkSignature checks a TPMT_SIGNATURE of message.
func checkSignature(key *tpm2.TPMTPublic, message, signature []byte) error {
	if len(signature) > longestStructure {
		return fmt.Errorf("the signature has %d bytes; want at most %d", len(signature), longestStructure)
	}
	pub, err := tpm2.Pub(*key)
	if err != nil {
		return fmt.Errorf("the attestation key: %w", err)
	}
	sum := sha256.Sum256(message)
	r := reader{signature}
	scheme, hash := r.number(2), r.number(2)
	if hash != sha256Bank {
		return fmt.Errorf("the signature is over a digest by algorithm %#x; want SHA-256", hash)
	}
	good := false
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		x, y := r.sized(), r.sized()
		good = scheme == uint64(tpm2.TPMAlgECDSA) && ecdsa.Verify(k, sum[:], new(big.Int).SetBytes(x), new(big.Int).SetBytes(y))
	case *rsa.PublicKey:
		s := r.sized()
		good = scheme == uint64(tpm2.TPMAlgRSASSA) && rsa.VerifyPKCS1v15(k, crypto.SHA256, sum[:], s) == nil
	}
	if !good || r.b == nil || len(r.b) > 0 {
		return errors.New("the signature is not one of the attestation key's")
	}
	return nil
}

// NameOf returns the name of a key, hexadecimal: what a TPM is remembered by.
func NameOf(key []byte) (string, error) {
	k, err := readKey("attestation", key)
	if err != nil {
		return "", err
	}
	name, err := tpm2.ObjectName(k)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", name.Buffer), nil
}
