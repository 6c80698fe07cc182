package uefi

import (
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
)

// A PCRPolicy is a condition under which a TPM gives something away, as the TPM
// reckons it itself (TPM 2.0 Library, part 3, "Enhanced Authorization Commands"). The
// zero one is no condition. Each method adds a condition; order matters.
type PCRPolicy struct{ digest [sha256.Size]byte }

// Commands that conditions are named by (part 2, TPM_CC).
const (
	ccPolicyAuthValue = 0x0000016b
	ccPolicyAuthorize = 0x0000016a
	ccPolicyPCR       = 0x0000017f
)

// Digest is what the TPM compares.
func (p PCRPolicy) Digest() [sha256.Size]byte { return p.digest }

func (p PCRPolicy) and(parts ...[]byte) PCRPolicy {
	return PCRPolicy{sha256.Sum256(slices.Concat(append([][]byte{p.digest[:]}, parts...)...))}
}

// PCR adds that a PCR of the SHA-256 bank holds value.
func (p PCRPolicy) PCR(pcr int, value [sha256.Size]byte) PCRPolicy {
	return p.PCRs(map[int][sha256.Size]byte{pcr: value})
}

// PCRs adds that each of some PCRs holds its value.
func (p PCRPolicy) PCRs(values map[int][sha256.Size]byte) PCRPolicy {
	var bitmap [3]byte
	var all []byte
	for pcr := range pcrs {
		if value, ok := values[pcr]; ok {
			bitmap[pcr/8] |= 1 << (pcr % 8)
			all = append(all, value[:]...)
		}
	}
	be := binary.BigEndian
	selection := be.AppendUint32(be.AppendUint32(nil, ccPolicyPCR), 1) // one bank
	selection = append(be.AppendUint16(selection, algorithmSHA256), byte(len(bitmap)))
	sum := sha256.Sum256(all)
	return p.and(selection, bitmap[:], sum[:])
}

// Authorized adds that key has signed some other policy that is fulfilled. It takes
// the place of the conditions so far, and therefore comes first.
func (PCRPolicy) Authorized(key *rsa.PublicKey) (PCRPolicy, error) {
	name, err := keyName(key)
	if err != nil {
		return PCRPolicy{}, err
	}
	command := binary.BigEndian.AppendUint32(nil, ccPolicyAuthorize)
	return PCRPolicy{}.and(command, name).and(nil), nil // the second is for a reference, of which there is none
}

// AuthValue adds that whoever asks knows a PIN.
func (p PCRPolicy) AuthValue() PCRPolicy {
	return p.and(binary.BigEndian.AppendUint32(nil, ccPolicyAuthValue))
}

// keyName is the name that a TPM gives to a key that is loaded the way systemd does
// (part 1, "Names"): the digest of a TPMT_PUBLIC (part 2, 12.2.4) for signing and
// decrypting.
func keyName(key *rsa.PublicKey) ([]byte, error) {
	const (
		algorithmRSA, algorithmNull = 0x0001, 0x0010
		attributes                  = 1<<6 | 1<<17 | 1<<18 // user with auth, decrypt, sign
	)
	if key.E < 3 || int64(key.E) > 1<<32-1 {
		return nil, fmt.Errorf("the exponent %d of the key does not fit a TPM", key.E)
	}
	be := binary.BigEndian
	b := be.AppendUint16(be.AppendUint16(nil, algorithmRSA), algorithmSHA256)
	b = be.AppendUint32(b, attributes)
	b = be.AppendUint16(b, 0) // no policy
	b = be.AppendUint16(be.AppendUint16(b, algorithmNull), algorithmNull)
	b = be.AppendUint16(b, uint16(key.Size()*8)) //nolint:gosec // a few thousand
	b = be.AppendUint32(b, uint32(key.E))        // systemd does not leave out the usual one
	modulus := key.N.Bytes()
	b = append(be.AppendUint16(b, uint16(len(modulus))), modulus...) //nolint:gosec // a few hundred
	sum := sha256.Sum256(b)
	return append(be.AppendUint16(nil, algorithmSHA256), sum[:]...), nil
}
