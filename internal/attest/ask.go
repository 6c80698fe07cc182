package attest

import (
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/incusos/incusos/api"
)

// Where manufacturers leave the certificates of endorsement keys (EK Credential
// Profile, section 2.2.1.4).
const (
	certificateRSA = 0x01c00002 // of a key by template L-1
	certificateECC = 0x01c0000a // of a key by template L-2

	longestCertificate = 8 << 10
	readAtOnce         = 512 // bytes of an index; every TPM gives as many
)

// Ask has a TPM sign what is in its registers, with a nonce, and returns that with its
// keys; logs and version are for the caller to add. A credential, unless it is empty,
// is activated; see NewChallenge.
func Ask(tpm transport.TPM, nonce, credential []byte) (a api.Attestation, err error) {
	a.Nonce = hex.EncodeToString(nonce)
	var curve bool
	if a.EndorsementCertificates, curve, err = certificates(tpm); err != nil {
		return a, err
	}
	ek, err := primary(tpm, endorsementTemplate(curve))
	if err != nil {
		return a, fmt.Errorf("making the endorsement key: %w", err)
	}
	defer flush(tpm, ek, &err)
	ak, err := primary(tpm, keyTemplate())
	if err != nil {
		return a, fmt.Errorf("making the attestation key: %w", err)
	}
	defer flush(tpm, ak, &err)
	if a.EndorsementKey, err = public(ek); err != nil {
		return a, err
	}
	if a.AttestationKey, err = public(ak); err != nil {
		return a, err
	}
	if len(credential) > 0 {
		if a.Activated, err = activate(tpm, ek, ak, credential); err != nil {
			return a, err
		}
	}
	return a, quote(tpm, ak, nonce, &a)
}

// endorsementTemplate is that of the key which the TPM has a certificate for.
func endorsementTemplate(curve bool) tpm2.TPMTPublic {
	if curve {
		return tpm2.ECCEKTemplate
	}
	return tpm2.RSAEKTemplate
}

func primary(tpm transport.TPM, template tpm2.TPMTPublic) (*tpm2.CreatePrimaryResponse, error) {
	return tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(template)}.Execute(tpm)
}

func flush(tpm transport.TPM, key *tpm2.CreatePrimaryResponse, err *error) {
	_, flushErr := tpm2.FlushContext{FlushHandle: key.ObjectHandle}.Execute(tpm)
	*err = errors.Join(*err, flushErr)
}

// public returns the public half of a key as the TPM has it.
func public(key *tpm2.CreatePrimaryResponse) ([]byte, error) {
	p, err := key.OutPublic.Contents()
	if err != nil {
		return nil, err
	}
	return tpm2.Marshal(p), nil
}

// quote has the attestation key sign what is in the registers.
func quote(tpm transport.TPM, ak *tpm2.CreatePrimaryResponse, nonce []byte, a *api.Attestation) error {
	var wanted []uint
	for _, n := range PCRs() {
		wanted = append(wanted, uint(n)) //nolint:gosec // small
	}
	q, err := tpm2.Quote{
		SignHandle:     tpm2.NamedHandle{Handle: ak.ObjectHandle, Name: ak.Name},
		QualifyingData: tpm2.TPM2BData{Buffer: nonce},
		InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
		PCRSelect: tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{
			{Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(wanted...)},
		}},
	}.Execute(tpm)
	if err != nil {
		return fmt.Errorf("quoting the registers: %w", err)
	}
	a.Quote, a.Signature = q.Quoted.Bytes(), tpm2.Marshal(q.Signature)
	return nil
}

// certificates returns those that the TPM holds, and whether the key to be shown is one
// on an elliptic curve: it is, unless there is a certificate for the other alone.
func certificates(tpm transport.TPM) (all [][]byte, curve bool, err error) {
	all, curve = [][]byte{}, true
	for _, index := range []tpm2.TPMHandle{certificateECC, certificateRSA} {
		cert, err := readIndex(tpm, index)
		if errors.Is(err, tpm2.TPMRCHandle) {
			continue // none
		}
		if err != nil {
			return nil, false, fmt.Errorf("reading the certificate of the endorsement key, index %#x: %w", uint32(index), err)
		}
		var whole asn1.RawValue
		if _, err := asn1.Unmarshal(cert, &whole); err != nil {
			continue // an index that was never written, or holds something else
		}
		if len(all) == 0 && index == certificateRSA {
			curve = false
		}
		all = append(all, whole.FullBytes)
	}
	return all, curve, nil
}

// readIndex returns what is in an index that anybody can read.
func readIndex(tpm transport.TPM, index tpm2.TPMHandle) ([]byte, error) {
	described, err := tpm2.NVReadPublic{NVIndex: index}.Execute(tpm)
	if err != nil {
		return nil, err
	}
	p, err := described.NVPublic.Contents()
	if err != nil {
		return nil, err
	}
	if p.DataSize > longestCertificate {
		return nil, fmt.Errorf("it has %d bytes; want at most %d", p.DataSize, longestCertificate)
	}
	if !p.Attributes.Written {
		return nil, nil
	}
	at := tpm2.NamedHandle{Handle: index, Name: described.NVName}
	var content []byte
	for len(content) < int(p.DataSize) {
		part, err := tpm2.NVRead{
			AuthHandle: tpm2.AuthHandle{Handle: index, Name: described.NVName, Auth: tpm2.PasswordAuth(nil)}, NVIndex: at,
			Size: min(readAtOnce, p.DataSize-uint16(len(content))), Offset: uint16(len(content)), //nolint:gosec // below DataSize
		}.Execute(tpm)
		if err != nil {
			return nil, err
		}
		if len(part.Data.Buffer) == 0 {
			return nil, errors.New("the TPM gives nothing")
		}
		content = append(content, part.Data.Buffer...)
	}
	return content, nil
}

// activate returns what is in a credential, which is only for a TPM that holds both keys.
func activate(tpm transport.TPM, ek, ak *tpm2.CreatePrimaryResponse, credential []byte) (string, error) {
	blob, secret, err := splitCredential(credential)
	if err != nil {
		return "", err
	}
	got, err := tpm2.ActivateCredential{
		ActivateHandle: tpm2.NamedHandle{Handle: ak.ObjectHandle, Name: ak.Name},
		KeyHandle: tpm2.AuthHandle{Handle: ek.ObjectHandle, Name: ek.Name, Auth: tpm2.Policy(tpm2.TPMAlgSHA256, 16,
			func(tpm transport.TPM, handle tpm2.TPMISHPolicy, nonce tpm2.TPM2BNonce) error {
				_, err := tpm2.PolicySecret{AuthHandle: tpm2.TPMRHEndorsement, PolicySession: handle, NonceTPM: nonce}.Execute(tpm)
				return err
			})},
		CredentialBlob: tpm2.TPM2BIDObject{Buffer: blob},
		Secret:         tpm2.TPM2BEncryptedSecret{Buffer: secret},
	}.Execute(tpm)
	if err != nil {
		return "", fmt.Errorf("the credential is not for this TPM: %w", err)
	}
	return hex.EncodeToString(got.CertInfo.Buffer), nil
}
