package systest

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/google/go-tpm/tpm2"

	"github.com/incusos/incusos/internal/sys"
)

// TPM models as much of a TPM as we ask of one: it makes two keys, signs what the kernel
// shows of its registers, extends them, and answers a challenge. It has no certificates.
// Its keys come from what is in the file of its device, so that another content is
// another TPM; test/vm asks a real emulator the same.
type TPM struct{ files sys.Dir }

const (
	endorsementHandle = 0x80000001
	attestationHandle = 0x80000002
	sessionHandle     = 0x03000000

	tpmSuccess, tpmSessions = 0x8001, 0x8002
)

// Open implements sys.TPM.
func (t *TPM) Open() (sys.TPMConn, error) {
	seed, err := t.files.ReadFile("/dev/tpmrm0")
	if err != nil {
		return nil, fmt.Errorf("opening the TPM: %w", fs.ErrNotExist)
	}
	ak, err1 := keyOf("attestation", seed)
	ek, err2 := keyOf("endorsement", seed)
	return &tpmConn{files: t.files, ak: ak, ek: ek}, errors.Join(err1, err2)
}

func keyOf(what string, seed []byte) (*ecdsa.PrivateKey, error) {
	sum := sha256.Sum256(append([]byte(what), seed...))
	return ecdsa.ParseRawPrivateKey(elliptic.P256(), sum[:])
}

type tpmConn struct {
	files  sys.Dir
	ak, ek *ecdsa.PrivateKey
	name   []byte // of ak
}

func (*tpmConn) Close() error { return nil }

// A tpmCommand is a command taken apart.
type tpmCommand struct {
	code    tpm2.TPMCC
	handles []uint32
	auths   []tpmAuth
	params  []byte
}

// A tpmAuth is a session that a command comes in.
type tpmAuth struct {
	session uint32
	nonce   []byte // of the caller
}

// handlesOf is how many handles come before the parameters of a command.
func handlesOf(code tpm2.TPMCC) int {
	switch code {
	case tpm2.TPMCCCreatePrimary, tpm2.TPMCCNVReadPublic, tpm2.TPMCCQuote, tpm2.TPMCCPCRExtend:
		return 1
	case tpm2.TPMCCEvictControl, tpm2.TPMCCActivateCredential, tpm2.TPMCCStartAuthSession, tpm2.TPMCCPolicySecret:
		return 2
	}
	return 0
}

func readCommand(b []byte) (c tpmCommand, err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("a command that ends too early")
		}
	}()
	be := binary.BigEndian
	sessions := be.Uint16(b) == tpmSessions
	c.code, b = tpm2.TPMCC(be.Uint32(b[6:])), b[10:]
	for range handlesOf(c.code) {
		c.handles, b = append(c.handles, be.Uint32(b)), b[4:]
	}
	if sessions {
		n := be.Uint32(b)
		auth := b[4 : 4+n]
		b = b[4+n:]
		for len(auth) > 0 {
			a := tpmAuth{session: be.Uint32(auth), nonce: auth[6 : 6+be.Uint16(auth[4:])]}
			auth = auth[6+len(a.nonce)+1:]
			auth = auth[2+be.Uint16(auth):]
			c.auths = append(c.auths, a)
		}
	}
	c.params = b
	return c, nil
}

// Send implements sys.TPMConn.
func (t *tpmConn) Send(command []byte) ([]byte, error) {
	c, err := readCommand(command)
	if err != nil {
		return nil, err
	}
	var handle, params []byte
	switch c.code {
	case tpm2.TPMCCCreatePrimary:
		handle, params = t.createPrimary(c.params)
	case tpm2.TPMCCQuote:
		params, err = t.quote(c.params)
	case tpm2.TPMCCStartAuthSession:
		handle, params = binary.BigEndian.AppendUint32(nil, sessionHandle), tpm2.Marshal(tpm2.TPM2BNonce{Buffer: make([]byte, 16)})
	case tpm2.TPMCCPolicySecret:
		params = append(tpm2.Marshal(tpm2.TPM2BTimeout{}), tpm2.Marshal(tpm2.TPMTTKAuth{Tag: tpm2.TPMSTAuthSecret, Hierarchy: tpm2.TPMRHEndorsement})...)
	case tpm2.TPMCCActivateCredential:
		if params = t.activate(c.params); params == nil {
			return refusalOf(tpm2.TPMRCIntegrity), nil
		}
	case tpm2.TPMCCPCRExtend:
		err = t.extend(c.handles[0], c.params)
	case tpm2.TPMCCEvictControl:
		err = t.keep(binary.BigEndian.Uint32(c.params))
	case tpm2.TPMCCFlushContext:
	case tpm2.TPMCCNVReadPublic:
		return refusalOf(tpm2.TPMRCHandle), nil
	default:
		return refusalOf(tpm2.TPMRCCommandCode), nil
	}
	if err != nil {
		return nil, err
	}
	return respond(c, handle, params), nil
}

func refusalOf(code tpm2.TPMRC) []byte {
	be := binary.BigEndian
	return be.AppendUint32(be.AppendUint32(be.AppendUint16(nil, tpmSuccess), 10), uint32(code))
}

// respond puts an answer together, with what closes a session if there is one.
func respond(c tpmCommand, handle, params []byte) []byte {
	be, tag, body := binary.BigEndian, uint16(tpmSuccess), append(handle, params...)
	if c.auths != nil {
		tag = tpmSessions
		body = append(be.AppendUint32(append([]byte{}, handle...), uint32(len(params))), params...) //nolint:gosec // some hundred
		for _, a := range c.auths {
			body = append(body, a.closed(c.code, params)...)
		}
	}
	head := be.AppendUint32(be.AppendUint16(nil, tag), uint32(10+len(body))) //nolint:gosec // some hundred
	return append(append(head, 0, 0, 0, 0), body...)
}

// closed is what a TPM says of a session at the end of a command (part 1, "Session-Based
// Authorizations"): for a password that it goes on, else a digest of the answer as well.
func (a tpmAuth) closed(code tpm2.TPMCC, params []byte) []byte {
	if a.session == uint32(tpm2.TPMRSPW) {
		return []byte{0, 0, 1, 0, 0}
	}
	nonce := make([]byte, 16)
	rand.Read(nonce) //nolint:errcheck // never fails
	of := sha256.Sum256(append(binary.BigEndian.AppendUint32(make([]byte, 4), uint32(code)), params...))
	mac := hmac.New(sha256.New, nil)
	for _, part := range [][]byte{of[:], nonce, a.nonce, {0}} {
		mac.Write(part)
	}
	out := append([]byte{0, byte(len(nonce))}, nonce...)
	return mac.Sum(append(out, 0, 0, sha256.Size))
}

// createPrimary makes one of the two keys, by whether the template is of one that signs.
func (t *tpmConn) createPrimary(params []byte) (handle, answer []byte) {
	sensitive := binary.BigEndian.Uint16(params)
	template, err := tpm2.Unmarshal[tpm2.TPM2BPublic](params[2+sensitive:])
	if err != nil {
		return nil, nil
	}
	public, err := template.Contents()
	if err != nil {
		return nil, nil
	}
	key, number := t.ek, uint32(endorsementHandle)
	if public.ObjectAttributes.SignEncrypt {
		key, number = t.ak, attestationHandle
	}
	public.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, pointOf(key))
	name, err := tpm2.ObjectName(public)
	if err != nil {
		return nil, nil
	}
	if number == attestationHandle {
		t.name = name.Buffer
	}
	answer = tpm2.Marshal(tpm2.New2B(*public))
	answer = append(answer, 0, 0, 0, 0) // creation data and its digest
	answer = append(answer, tpm2.Marshal(tpm2.TPMTTKCreation{Tag: tpm2.TPMSTCreation, Hierarchy: tpm2.TPMRHEndorsement})...)
	return binary.BigEndian.AppendUint32(nil, number), append(answer, tpm2.Marshal(*name)...)
}

func pointOf(key *ecdsa.PrivateKey) *tpm2.TPMSECCPoint {
	raw, err := key.PublicKey.Bytes() // 4, x, y
	if err != nil {
		return &tpm2.TPMSECCPoint{}
	}
	return &tpm2.TPMSECCPoint{X: tpm2.TPM2BECCParameter{Buffer: raw[1:33]}, Y: tpm2.TPM2BECCParameter{Buffer: raw[33:]}}
}

// quote signs what the kernel shows of the registers that are asked for.
func (t *tpmConn) quote(params []byte) ([]byte, error) {
	n := binary.BigEndian.Uint16(params)
	nonce, params := params[2:2+n], params[2+n:]
	selected, err := tpm2.Unmarshal[tpm2.TPMLPCRSelection](params[2:]) // after the scheme, none
	if err != nil {
		return nil, err
	}
	var all []byte
	for i := range 24 {
		if selected.PCRSelections[0].PCRSelect[i/8]&(1<<(i%8)) == 0 {
			continue
		}
		text, err := t.files.ReadFile(fmt.Sprintf("/sys/class/tpm/tpm0/pcr-sha256/%d", i))
		if err != nil {
			return nil, err
		}
		value, err := hex.DecodeString(strings.TrimSpace(string(text)))
		if err != nil {
			return nil, err
		}
		all = append(all, value...)
	}
	digest := sha256.Sum256(all)
	attest := tpm2.TPMSAttest{
		Magic: tpm2.TPMGeneratedValue, Type: tpm2.TPMSTAttestQuote, ExtraData: tpm2.TPM2BData{Buffer: nonce},
		Attested: tpm2.NewTPMUAttest(tpm2.TPMSTAttestQuote, &tpm2.TPMSQuoteInfo{PCRSelect: *selected, PCRDigest: tpm2.TPM2BDigest{Buffer: digest[:]}}),
	}
	message := tpm2.Marshal(attest)
	sum := sha256.Sum256(message)
	r, s, err := ecdsa.Sign(rand.Reader, t.ak, sum[:])
	if err != nil {
		return nil, err
	}
	signature := tpm2.TPMTSignature{SigAlg: tpm2.TPMAlgECDSA, Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgECDSA, &tpm2.TPMSSignatureECC{
		Hash: tpm2.TPMAlgSHA256, SignatureR: tpm2.TPM2BECCParameter{Buffer: r.FillBytes(make([]byte, 32))}, SignatureS: tpm2.TPM2BECCParameter{Buffer: s.FillBytes(make([]byte, 32))},
	})}
	return append(tpm2.Marshal(tpm2.New2B(attest)), tpm2.Marshal(signature)...), nil
}

// activate opens a credential for both keys (part 1, "Credential Protection"); nil if it
// is for others.
func (t *tpmConn) activate(params []byte) []byte {
	blob, err1 := tpm2.Unmarshal[tpm2.TPM2BIDObject](params)
	if err1 != nil || len(blob.Buffer) < 34 {
		return nil
	}
	secret, err2 := tpm2.Unmarshal[tpm2.TPM2BEncryptedSecret](params[2+len(blob.Buffer):])
	if err2 != nil {
		return nil
	}
	seed := t.seed(secret.Buffer)
	if seed == nil {
		return nil
	}
	mac, encrypted := blob.Buffer[2:34], blob.Buffer[34:]
	h := hmac.New(sha256.New, tpm2.KDFa(crypto.SHA256, seed, "INTEGRITY", nil, nil, 256))
	h.Write(encrypted)
	h.Write(t.name)
	if !hmac.Equal(h.Sum(nil), mac) {
		return nil
	}
	block, err := aes.NewCipher(tpm2.KDFa(crypto.SHA256, seed, "STORAGE", t.name, nil, 128))
	if err != nil {
		return nil
	}
	return unmask(block, encrypted)
}

// seed agrees with whoever made a credential on what its keys come of (part 1, annex C.6.4).
func (t *tpmConn) seed(point []byte) []byte {
	p, err := tpm2.Unmarshal[tpm2.TPMSECCPoint](point)
	if err != nil {
		return nil
	}
	other, err := ecdh.P256().NewPublicKey(append([]byte{4}, append(p.X.Buffer, p.Y.Buffer...)...))
	if err != nil {
		return nil
	}
	own, err := t.ek.ECDH()
	if err != nil {
		return nil
	}
	z, err := own.ECDH(other)
	if err != nil {
		return nil
	}
	return tpm2.KDFe(crypto.SHA256, z, "IDENTITY", p.X.Buffer, pointOf(t.ek).X.Buffer, 256)
}

// unmask deciphers in the mode CFB, from a vector of zeros.
func unmask(block cipher.Block, encrypted []byte) []byte {
	var out []byte
	last := make([]byte, block.BlockSize())
	for len(encrypted) > 0 {
		n := min(len(encrypted), len(last))
		mask := make([]byte, len(last))
		block.Encrypt(mask, last)
		plain := make([]byte, n)
		subtle.XORBytes(plain, encrypted[:n], mask)
		out = append(out, plain...)
		last, encrypted = append([]byte{}, encrypted[:n]...), encrypted[n:]
	}
	return out
}
