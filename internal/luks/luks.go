// Package luks reads what a LUKS2 header says about who can open a disk: key slots,
// and the tokens that systemd-cryptenroll adds to them.
//
// Bytes come in and values go out; keys are not among them, since those are in the
// slots in encrypted form only. Package seal decides by it what to enrol and what to
// wipe, which systemd-cryptenroll then does. Encode is for pretend machines. The
// format is that of the LUKS2 On-Disk Format Specification 1.1.
package luks

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
)

// Types of tokens that systemd-cryptenroll makes.
const (
	TokenTPM2     = "systemd-tpm2"
	TokenRecovery = "systemd-recovery"
)

// A Header is who can open a disk.
type Header struct {
	Slots  []int // numbers of key slots in use, in order
	Tokens []Token
}

// A Token says something about key slots.
type Token struct {
	Number int
	Type   string // TokenTPM2 and so on
	Slots  []int
	TPM2   TPM2 // where Type is TokenTPM2
}

// A TPM2 is how a key slot is bound to a TPM (systemd's tokens/cryptsetup-token).
type TPM2 struct {
	PCRs       []int  // bound to by value
	Bank       string // of PCRs, such as "sha256"
	PolicyHash []byte // what the TPM wants to see fulfilled
	PIN        bool
	SignedPCRs []int  // bound to by whoever has the private half of PublicKey
	PublicKey  []byte // PEM
}

const (
	binaryHeader = 4096
	maxHeader    = 4 << 20 // the largest the format allows for
)

// Read reads the header of a disk, or its copy if that is damaged.
func Read(r io.ReaderAt) (Header, error) {
	h, err := readCopy(r, 0, "LUKS\xba\xbe")
	if err == nil {
		return h, nil
	}
	// The copy is as far behind as the header is long, which only the header says.
	for size := int64(16 << 10); size <= maxHeader; size *= 2 {
		if h, err := readCopy(r, size, "SKUL\xba\xbe"); err == nil {
			return h, nil
		}
	}
	return Header{}, err
}

func readCopy(r io.ReaderAt, at int64, magic string) (Header, error) {
	b := make([]byte, binaryHeader)
	if _, err := r.ReadAt(b, at); err != nil {
		return Header{}, fmt.Errorf("reading the LUKS header: %w", err)
	}
	if !bytes.HasPrefix(b, []byte(magic)) || binary.BigEndian.Uint16(b[6:]) != 2 {
		return Header{}, errors.New("there is no LUKS2 header")
	}
	size := binary.BigEndian.Uint64(b[8:])
	if size < 2*binaryHeader || size > maxHeader {
		return Header{}, fmt.Errorf("the LUKS header says it has %d bytes; want %d to %d", size, 2*binaryHeader, maxHeader)
	}
	area := make([]byte, size-binaryHeader)
	if _, err := r.ReadAt(area, at+binaryHeader); err != nil {
		return Header{}, fmt.Errorf("reading the LUKS header: %w", err)
	}
	if !sound(b, area) {
		return Header{}, errors.New("the LUKS header is damaged: its checksum is of something else")
	}
	text, _, _ := bytes.Cut(area, []byte{0})
	return parse(text)
}

// Where the binary header has the name of the checksum's algorithm, and the
// checksum, which is of a header where it is zero.
const (
	algorithmAt, algorithmSize = 72, 32
	checksumAt, checksumSize   = 448, 64
)

func sound(header, area []byte) bool {
	if string(bytes.TrimRight(header[algorithmAt:][:algorithmSize], "\x00")) != "sha256" {
		return false
	}
	sum := checksum(header, area)
	return bytes.Equal(sum[:], header[checksumAt:][:sha256.Size])
}

func checksum(header, area []byte) [sha256.Size]byte {
	blank := slices.Clone(header)
	clear(blank[checksumAt:][:checksumSize])
	return sha256.Sum256(slices.Concat(blank, area))
}

// The JSON of a header, as far as it matters.
type metadata struct {
	Keyslots map[string]json.RawMessage `json:"keyslots"`
	Tokens   map[string]json.RawMessage `json:"tokens"`
}

type token struct {
	Type       string          `json:"type"`
	Keyslots   []string        `json:"keyslots"`
	PCRs       []int           `json:"tpm2-pcrs"`
	Bank       string          `json:"tpm2-pcr-bank"`
	PolicyHash json.RawMessage `json:"tpm2-policy-hash"`
	PIN        bool            `json:"tpm2-pin"`
	SignedPCRs []int           `json:"tpm2_pubkey_pcrs"`
	PublicKey  []byte          `json:"tpm2_pubkey"`
}

func parse(text []byte) (Header, error) {
	var m metadata
	if err := json.Unmarshal(text, &m); err != nil {
		return Header{}, fmt.Errorf("the LUKS header's JSON: %w", err)
	}
	var h Header
	slots, err := numbers(slices.Collect(maps.Keys(m.Keyslots)))
	if err != nil {
		return Header{}, fmt.Errorf("the LUKS header's key slots: %w", err)
	}
	h.Slots = slots
	names, err := numbers(slices.Collect(maps.Keys(m.Tokens)))
	if err != nil {
		return Header{}, fmt.Errorf("the LUKS header's tokens: %w", err)
	}
	for _, n := range names {
		t, err := parseToken(n, m.Tokens[strconv.Itoa(n)])
		if err != nil {
			return Header{}, fmt.Errorf("the LUKS header's token %d: %w", n, err)
		}
		h.Tokens = append(h.Tokens, t)
	}
	return h, nil
}

func parseToken(number int, text []byte) (Token, error) {
	var raw token
	if err := json.Unmarshal(text, &raw); err != nil {
		return Token{}, err
	}
	slots, err := numbers(raw.Keyslots)
	if err != nil {
		return Token{}, err
	}
	t := Token{Number: number, Type: raw.Type, Slots: slots}
	if raw.Type != TokenTPM2 {
		return t, nil
	}
	t.TPM2 = TPM2{PCRs: raw.PCRs, Bank: raw.Bank, PIN: raw.PIN, SignedPCRs: raw.SignedPCRs, PublicKey: raw.PublicKey}
	var hash string
	if json.Unmarshal(raw.PolicyHash, &hash) == nil { // a list of several is none of ours
		if t.TPM2.PolicyHash, err = hex.DecodeString(hash); err != nil {
			return Token{}, fmt.Errorf("policy %q is no digest", hash)
		}
	}
	return t, nil
}

// numbers returns what the names of slots and tokens are: small numbers.
func numbers(names []string) ([]int, error) {
	out := make([]int, 0, len(names))
	for _, name := range names {
		n, err := strconv.Atoi(name)
		if err != nil || n < 0 || n > 99 || strconv.Itoa(n) != name {
			return nil, fmt.Errorf("%q is no number of one", name)
		}
		out = append(out, n)
	}
	slices.Sort(out)
	return out, nil
}

// TPM2Tokens returns the tokens that are bound to a TPM.
func (h Header) TPM2Tokens() []Token {
	return slices.DeleteFunc(slices.Clone(h.Tokens), func(t Token) bool { return t.Type != TokenTPM2 })
}

// Kind is what a slot is for: the type of its token, or "" for a slot without one,
// which a passphrase opens.
func (h Header) Kind(slot int) string {
	for _, t := range h.Tokens {
		if slices.Contains(t.Slots, slot) {
			return t.Type
		}
	}
	return ""
}

// Encode returns a header, and its copy, with h in them: what Read reads, on a disk
// that nothing opens. Size is that of one copy, at least 16 KiB.
func Encode(h Header, size int) ([]byte, error) {
	m := metadata{Keyslots: map[string]json.RawMessage{}, Tokens: map[string]json.RawMessage{}}
	for _, n := range h.Slots {
		m.Keyslots[strconv.Itoa(n)] = json.RawMessage(`{"type":"luks2"}`)
	}
	for _, t := range h.Tokens {
		raw := token{
			Type: t.Type, PCRs: t.TPM2.PCRs, Bank: t.TPM2.Bank, PIN: t.TPM2.PIN, SignedPCRs: t.TPM2.SignedPCRs, PublicKey: t.TPM2.PublicKey,
			PolicyHash: json.RawMessage(strconv.Quote(hex.EncodeToString(t.TPM2.PolicyHash))),
		}
		for _, n := range t.Slots {
			raw.Keyslots = append(raw.Keyslots, strconv.Itoa(n))
		}
		b, err := json.Marshal(raw)
		if err != nil {
			return nil, err
		}
		m.Tokens[strconv.Itoa(t.Number)] = b
	}
	text, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	if len(text) >= size-binaryHeader {
		return nil, fmt.Errorf("%d bytes of JSON do not fit a header of %d", len(text), size)
	}
	return slices.Concat(encodeCopy("LUKS\xba\xbe", text, size), encodeCopy("SKUL\xba\xbe", text, size)), nil
}

func encodeCopy(magic string, text []byte, size int) []byte {
	b := make([]byte, size)
	copy(b, magic)
	binary.BigEndian.PutUint16(b[6:], 2)
	binary.BigEndian.PutUint64(b[8:], uint64(size)) //nolint:gosec // positive
	copy(b[algorithmAt:], "sha256")
	copy(b[binaryHeader:], text)
	sum := checksum(b[:binaryHeader], b[binaryHeader:])
	copy(b[checksumAt:], sum[:])
	return b
}
