package uefi

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"slices"
)

// measuredSections are those of a unified kernel image that systemd-stub measures
// into PCR 11, in its order (UAPI.5, "UKI TPM PCR Measurements"). The signature of
// the very value that comes out, .pcrsig, cannot be among them.
func measuredSections() []string {
	return []string{
		".linux", ".osrel", ".cmdline", ".initrd", ".ucode", ".splash", ".dtb", ".uname", ".sbat", ".pcrpkey",
		".profile", ".dtbauto", ".hwids",
	}
}

// PhaseInitrd is the word that PCR 11 is extended with when the initrd begins
// (systemd-pcrphase-initrd.service(8)). The key of root is to be had only then.
const PhaseInitrd = "enter-initrd"

// PhaseLeave is the word for when root is about to be switched to.
const PhaseLeave = "leave-initrd"

// UKIDigests returns what systemd-stub extends PCR 11 with when it starts p, in order. Of
// each section its name is measured, with a zero behind it, then what it has in memory.
func UKIDigests(p *Program) ([][sha256.Size]byte, error) {
	var all [][sha256.Size]byte
	for _, name := range measuredSections() {
		s, ok := p.Section(name)
		if !ok {
			continue
		}
		h := sha256.New()
		if _, err := io.Copy(h, p.Reader(s)); err != nil {
			return nil, fmt.Errorf("measuring section %s: %w", name, err)
		}
		all = append(all, sha256.Sum256([]byte(name+"\x00")), [sha256.Size]byte(h.Sum(nil)))
	}
	return all, nil
}

// MeasureUKI returns what PCR 11 holds once systemd-stub has started p and systemd
// has come through the phases.
func MeasureUKI(p *Program, phases ...string) (value [sha256.Size]byte, err error) {
	digests, err := UKIDigests(p)
	return ReplayDigests(digests, phases...), err
}

// ReplayDigests returns what PCR 11 holds after these, and after the phases.
func ReplayDigests(digests [][sha256.Size]byte, phases ...string) (value [sha256.Size]byte) {
	for _, d := range digests {
		value = extend(value, d)
	}
	return AfterPhases(value, phases...)
}

// PhaseDigest is what PCR 11 is extended with when systemd comes into a phase.
func PhaseDigest(phase string) [sha256.Size]byte { return sha256.Sum256([]byte(phase)) }

// Payload returns the Authenticode digest of the kernel that is a section of the UKI p.
// Where Secure Boot is off, systemd-stub has the firmware start that like any program,
// and so it is measured into PCR 4 as well.
func Payload(p *Program) ([sha256.Size]byte, error) {
	s, ok := p.Section(".linux")
	if !ok || s.Size > s.file.size {
		return [sha256.Size]byte{}, errors.New("there is no whole section .linux")
	}
	kernel, err := OpenProgram(io.NewSectionReader(p.r, s.file.offset, s.Size), s.Size)
	if err != nil {
		return [sha256.Size]byte{}, fmt.Errorf("section .linux: %w", err)
	}
	return kernel.Authenticode()
}

// PhasesRunning are the words that PCR 11 is extended with until a system is up, in
// order (systemd-pcrphase.service(8)).
func PhasesRunning() []string { return []string{PhaseInitrd, PhaseLeave, "sysinit", "ready"} }

// AfterPhases returns what becomes of PCR 11 when systemd comes through phases.
func AfterPhases(value [sha256.Size]byte, phases ...string) [sha256.Size]byte {
	for _, phase := range phases {
		value = extend(value, PhaseDigest(phase))
	}
	return value
}

// extend is what a TPM does to a PCR.
func extend(value, digest [sha256.Size]byte) [sha256.Size]byte {
	return sha256.Sum256(slices.Concat(value[:], digest[:]))
}

// A SignedPolicy is an entry of a section .pcrsig (systemd-measure(1), "sign"):
// values of PCRs that a key has vouched for.
type SignedPolicy struct {
	PCRs        []int
	Fingerprint string // SHA-256 of the key in DER, hexadecimal
	Policy      []byte // what PolicyPCR comes to
	Signature   []byte
}

const maxPolicies = 1 << 20 // bytes of a .pcrsig

// SignedPolicies returns what the UKI p says of the SHA-256 bank.
func SignedPolicies(p *Program) ([]SignedPolicy, error) {
	text, err := p.Text(".pcrsig", maxPolicies)
	if err != nil {
		return nil, err
	}
	return ParsePolicies(text)
}

// ParsePolicies returns what the content of a .pcrsig says of the SHA-256 bank.
func ParsePolicies(text []byte) ([]SignedPolicy, error) {
	var banks struct {
		SHA256 []struct {
			PCRs []int  `json:"pcrs"`
			Key  string `json:"pkfp"`
			Pol  string `json:"pol"`
			Sig  []byte `json:"sig"`
		} `json:"sha256"`
	}
	if err := json.Unmarshal(bytes.TrimRight(text, "\x00"), &banks); err != nil {
		return nil, fmt.Errorf("signed policies of PCR 11: %w", err)
	}
	var all []SignedPolicy
	for i, e := range banks.SHA256 {
		policy, err := hex.DecodeString(e.Pol)
		if err != nil || len(policy) != sha256.Size {
			return nil, fmt.Errorf("signed policy %d of PCR 11: %q is no digest", i, e.Pol)
		}
		all = append(all, SignedPolicy{e.PCRs, e.Key, policy, e.Sig})
	}
	return all, nil
}

// PublicKey reads an RSA key in PEM, which is the form of section .pcrpkey and of
// the tokens that disks are bound with.
func PublicKey(text []byte) (*rsa.PublicKey, error) {
	block, _ := pem.Decode(bytes.TrimRight(text, "\x00"))
	if block == nil || block.Type != "PUBLIC KEY" {
		return nil, errors.New("no public key in PEM")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	public, ok := key.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("public key of type %T; want RSA, since TPMs know it", key)
	}
	return public, nil
}

// Allows reports whether s is a signature by key of PCR 11 holding value.
func (s SignedPolicy) Allows(value [sha256.Size]byte, key *rsa.PublicKey) bool {
	want := PCRPolicy{}.PCR(11, value).Digest()
	if !slices.Equal(s.PCRs, []int{11}) || !bytes.Equal(s.Policy, want[:]) {
		return false
	}
	sum := sha256.Sum256(s.Policy)
	return rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], s.Signature) == nil
}
