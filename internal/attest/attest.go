// Package attest is how a machine proves to somebody far away what it has started:
// what its TPM is asked, and how the answer is checked.
//
//	ask.go        on the machine: a quote, the keys, the certificates
//	quote.go      what a TPM signed, read from bytes of whoever sent them
//	verify.go     elsewhere: what an attestation shows, and what it does not
//	challenge.go  elsewhere: a riddle for the TPM, so that its two keys are known to be in one
//	measure.go    at the builder's: what a release leaves in the registers
//
// Package seal has the machine's logs and fetches the answer, the command "incusos
// attest" checks it. The formats of the event log are internal/uefi's; those of the TPM
// are in the TPM 2.0 Library Specification (part 2, "Structures") and the TCG EK
// Credential Profile.
package attest

import (
	"encoding/hex"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// PCRs are the registers that are quoted: those of the firmware and what it starts, the
// kernel image (11), what was added to it from outside (12), and the volume of root (15).
func PCRs() []int { return []int{0, 1, 2, 3, 4, 5, 6, 7, 11, 12, 15} }

// Lengths of nonces in bytes: shorter ones might come twice by chance, longer ones not
// every TPM takes.
const (
	shortestNonce, longestNonce = 16, 32
	longestCredential           = 1 << 10
)

// ParseNonce reads a nonce in hexadecimal digits.
func ParseNonce(text string) ([]byte, error) {
	nonce, err := hex.DecodeString(text)
	if err != nil || len(nonce) < shortestNonce || len(nonce) > longestNonce {
		return nil, fmt.Errorf("the nonce is %d characters; want %d to %d hexadecimal digits", len(text), 2*shortestNonce, 2*longestNonce)
	}
	return nonce, nil
}

// keyTemplate describes the attestation key: a primary key of the endorsement
// hierarchy, which a TPM makes the same each time, so that it need not be kept. It is
// restricted: it signs nothing that the TPM has not made up itself.
func keyTemplate() tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true, Restricted: true, SignEncrypt: true},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			Scheme:  tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgECDSA, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256})},
			CurveID: tpm2.TPMECCNistP256,
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{}),
	}
}
