package seal

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/incusos/incusos/internal/luks"
	"github.com/incusos/incusos/internal/sys"
	"github.com/incusos/incusos/internal/uefi"
)

// Where the kernel and systemd show what was measured.
const (
	registers    = "/sys/class/tpm/tpm0/pcr-sha256/"
	imageKey     = "/run/systemd/tpm2-pcr-public-key.pem"
	imagePolicy  = "/run/systemd/tpm2-pcr-signature.json"
	maxSmallFile = 1 << 20
)

// whyOlder is said where PCR 7 is known to be right.
const whyOlder = "root is not bound to this kernel image (PCR 11): it is an older release, or one that came to the boot partition without an update"

// facts are what a start has measured in its initrd, or will.
type facts struct {
	start
	key      []byte              // of the kernel image, in PEM; what it signs opens the disk
	policies []uefi.SignedPolicy // what that key has signed
}

// Why a binding does not open the disk. The words are those of the screen at boot, of
// the doctor and of errors: whoever has seen them once finds them again.
const (
	whyUnknown = "it is bound in a way that this release does not know"
	whyImage   = "the kernel image is signed with another PCR key than the disk is bound to: it comes from somebody else's build"
	whyPCR7    = "PCR 7 is another: Secure Boot was switched, or its certificates or its databases have changed, or the firmware measures them in another way"
	whyEither  = "the kernel image is none that root is bound to, such as an older release (PCR 11); or " + whyPCR7
	whyOpen    = "the boot loader or the kernel image is none that root is bound to (PCR 4 and 11); or a card or its firmware is another, or a driver was added (PCR 2); or something was given to the kernel (PCR 12 and 13); or " + whyPCR7
	whyGiven   = "something was given to the kernel that is no part of its image, such as another command line (PCR 12 and 13)"
	whyPCR11   = "no signature allows the kernel image that was started (PCR 11): it was changed, or it is none of ours"
)

// refusal says why a TPM keeps the key of a binding back at such a start; "" if it
// does not, given that it is the TPM the disk was bound to, and whoever is asked for
// a PIN knows it.
func refusal(b luks.TPM2, f facts) string {
	if slices.Contains(b.PCRs, 4) != f.open() {
		return whyPCR7
	}
	policy, err := reckon(b, f.start)
	if err != nil {
		return whyUnknown
	}
	if len(b.PublicKey) == 0 && !bytes.Equal(policy[:], b.PolicyHash) {
		return f.either()
	}
	if len(b.PublicKey) > 0 {
		key, err := uefi.PublicKey(b.PublicKey)
		allowed := err == nil && slices.ContainsFunc(f.policies, func(p uefi.SignedPolicy) bool { return p.Allows(f.pcr11, key) })
		if !allowed && !bytes.Equal(trimKey(b.PublicKey), trimKey(f.key)) {
			return whyImage
		}
		if !allowed {
			return whyPCR11
		}
	}
	if !bytes.Equal(policy[:], b.PolicyHash) {
		if f.open() {
			return whyOpen
		}
		return whyPCR7
	}
	return ""
}

// either is what is said of a binding to values that are not those of f.
func (f facts) either() string {
	if f.open() {
		return whyOpen
	}
	return whyEither
}

// boundTo reports whether a binding is to such a start.
func boundTo(b luks.TPM2, at start) bool {
	policy, err := reckon(b, at)
	return err == nil && bytes.Equal(policy[:], b.PolicyHash)
}

// trimKey takes off what differs between a section of a kernel image and a token.
func trimKey(pem []byte) []byte { return bytes.TrimRight(pem, "\x00\n") }

// register returns what the TPM holds in a PCR of the SHA-256 bank.
func register(files sys.Dir, pcr int) (value [sha256.Size]byte, err error) {
	b, err := files.ReadFile(fmt.Sprintf("%s%d", registers, pcr))
	if err != nil {
		return value, fmt.Errorf("reading PCR %d: %w", pcr, err)
	}
	raw, err := hex.DecodeString(strings.TrimSpace(string(b)))
	if err != nil || len(raw) != sha256.Size {
		return value, fmt.Errorf("reading PCR %d: %q is no digest", pcr, strings.TrimSpace(string(b)))
	}
	return [sha256.Size]byte(raw), nil
}

// measured returns what this start has in the registers that root is bound to, without
// PCR 11: that goes on.
func measured(files sys.Dir) (at start, err error) {
	if at.pcr7, err = register(files, 7); err != nil {
		return at, err
	}
	secure, err := secureBoot(files)
	if err != nil || secure {
		return at, err
	}
	if at.pcr2, err = register(files, 2); err != nil {
		return at, err
	}
	at.pcr4, err = register(files, 4)
	return at, err
}

// measuredHere returns the facts of this start while its initrd runs. What cannot be
// had is left out: this is for explaining what has gone wrong already.
func measuredHere(files sys.Dir) facts {
	var f facts
	f.start, _ = measured(files)
	f.pcr11, _ = register(files, 11)
	f.key, _ = files.ReadFile(imageKey)
	if text, err := files.ReadFile(imagePolicy); err == nil && len(text) < maxSmallFile {
		f.policies, _ = uefi.ParsePolicies(text)
	}
	return f
}

// given reports whether something was given to the kernel image that is no part of it.
func given(files sys.Dir) bool {
	for _, pcr := range []int{12, 13} {
		if value, err := register(files, pcr); err == nil && value != unknown {
			return true
		}
	}
	return false
}

// whyLocked says in sentences why the TPM did not open device, from what
// systemd-cryptsetup printed and from what was measured.
func whyLocked(files sys.Dir, device, stderr string) string {
	why := explain(stderr)
	if why != policyMismatch {
		return why
	}
	h, err := readHeader(files, device)
	if err != nil {
		return why
	}
	tokens := h.TPM2Tokens()
	if len(tokens) == 0 {
		return noToken
	}
	f := measuredHere(files)
	var reasons []string
	for _, t := range tokens {
		r := refusal(t.TPM2, f)
		if r == "" && f.open() && given(files) {
			r = whyGiven
		}
		if r == "" {
			return otherTPM
		}
		if !slices.Contains(reasons, r) {
			reasons = append(reasons, r)
		}
	}
	return why + "\nIn detail: " + strings.Join(reasons, "; or ") + "."
}
