package attest

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"github.com/incusos/incusos/api"
)

// A Challenge is a secret that only a TPM with the two keys of an attestation can read.
// Whoever gets it back as Activated, in an attestation with the same keys, knows that
// one TPM holds both.
type Challenge struct {
	Credential string // for the request, in base64 for URLs
	Secret     string // for Verify, hexadecimal
}

// NewChallenge makes a challenge for the keys of a.
func NewChallenge(a api.Attestation) (Challenge, error) {
	ak, err := readKey("attestation", a.AttestationKey)
	if err != nil {
		return Challenge{}, err
	}
	ek, err := readKey("endorsement", a.EndorsementKey)
	if err != nil {
		return Challenge{}, err
	}
	name, err := tpm2.ObjectName(ak)
	if err != nil {
		return Challenge{}, err
	}
	to, err := tpm2.ImportEncapsulationKey(ek)
	if err != nil {
		return Challenge{}, fmt.Errorf("the endorsement key: %w", err)
	}
	secret := make([]byte, 32)
	rand.Read(secret) //nolint:errcheck // never fails
	blob, encrypted, err := tpm2.CreateCredential(rand.Reader, to, name.Buffer, secret)
	if err != nil {
		return Challenge{}, err
	}
	return Challenge{base64.RawURLEncoding.EncodeToString(joinCredential(blob, encrypted)), hex.EncodeToString(secret)}, nil
}

// ParseCredential reads a credential as it comes with a request.
func ParseCredential(text string) ([]byte, error) {
	if len(text) > longestCredential {
		return nil, fmt.Errorf("the credential has %d characters; want at most %d", len(text), longestCredential)
	}
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err == nil && len(b) > 0 {
		_, _, err = splitCredential(b)
	}
	if err != nil {
		return nil, fmt.Errorf("the credential: %w", err)
	}
	return b, nil
}

// joinCredential puts a TPM2B_ID_OBJECT and a TPM2B_ENCRYPTED_SECRET one behind the
// other, each with its length.
func joinCredential(blob, secret []byte) []byte {
	be := binary.BigEndian
	b := append(be.AppendUint16(nil, uint16(len(blob))), blob...)     //nolint:gosec // some hundred
	return append(be.AppendUint16(b, uint16(len(secret))), secret...) //nolint:gosec // some hundred
}

func splitCredential(b []byte) (blob, secret []byte, err error) {
	r := reader{b}
	blob, secret = r.sized(), r.sized()
	if r.b == nil || len(r.b) > 0 || len(blob) == 0 || len(secret) == 0 {
		return nil, nil, errors.New("want two byte strings, each behind its length of two bytes")
	}
	return blob, secret, nil
}
