package attest

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/uefi"
)

const (
	longestLog   = 16 << 20
	mostRegister = 24
)

// Demands are what an attestation is compared with. What is left out is not compared,
// and the report says so.
type Demands struct {
	Nonce    []byte         // that was asked with
	Releases []Measurements // of which one may run
	Programs []string       // Authenticode digests of what else may have been started, hexadecimal
	Key      string         // name of the attestation key, as it was at an earlier time
	Volume   string         // PCR 15 as it was at an earlier time, hexadecimal
	Secret   string         // of the challenge that the attestation answers
	Makers   *x509.CertPool // manufacturers of TPMs
}

// A Verdict is how a check ended.
type Verdict string

// The verdicts.
const (
	Shown    Verdict = "shown"
	NotShown Verdict = "not shown" // nothing speaks against it, and nothing for it
	Refused  Verdict = "refused"
)

// A Finding is one thing that an attestation shows, or does not.
type Finding struct {
	Verdict Verdict `json:"verdict"`
	What    string  `json:"what"`
	Why     string  `json:"why"`
}

// A Report is all that was found, in the order of the argument: the first refusal takes
// the ground from under what follows.
type Report struct {
	Findings []Finding `json:"findings"`
	Version  string    `json:"version"` // of the release that runs, as far as it is shown
	Key      string    `json:"key"`     // name of the attestation key, to be demanded the next time
	Volume   string    `json:"volume"`  // PCR 15, likewise
}

// Refusal returns the first refusal as an error, nil if there is none.
func (r Report) Refusal() error {
	for _, f := range r.Findings {
		if f.Verdict == Refused {
			return fmt.Errorf("%s: %s", f.What, f.Why)
		}
	}
	return nil
}

func (r *Report) shown(what, why string) { r.Findings = append(r.Findings, Finding{Shown, what, why}) }
func (r *Report) notShown(what, why string) {
	r.Findings = append(r.Findings, Finding{NotShown, what, why})
}
func (r *Report) refused(what string, err error) {
	r.Findings = append(r.Findings, Finding{Refused, what, err.Error()})
}

// check notes how a check ended that either shows something or refuses it.
func (r *Report) check(what, shown string, err error) bool {
	if err != nil {
		r.refused(what, err)
		return false
	}
	r.shown(what, shown)
	return true
}

// Verify says what a shows. It stops where nothing that follows would mean anything.
func Verify(a api.Attestation, d Demands) Report {
	var r Report
	if !r.check("signature", "the quote is signed by a key that never leaves its TPM and signs nothing but what that says", checkQuoted(a)) {
		return r
	}
	r.Key, _ = NameOf(a.AttestationKey) // it was read just now
	q, err := parseQuote(a.Quote)
	if !r.check("quote", "the TPM made it itself", err) {
		return r
	}
	if !r.check("nonce", "the quote was made for this request", checkNonce(q, d.Nonce)) {
		return r
	}
	values, err := registers(a, q)
	if !r.check("registers", "the values are those that the TPM quoted", err) {
		return r
	}
	volume := values[15]
	r.Volume = hex.EncodeToString(volume[:])
	r.keys(a, d)
	events, err := replay(a.EventLog, values)
	if r.check("event log", "it leads to what is in PCR 0 to 7", err) {
		r.secureBoot(events)
	}
	r.release(events, err == nil, values, d)
	r.rest(values, d)
	return r
}

func checkQuoted(a api.Attestation) error {
	key, err := readKey("attestation", a.AttestationKey)
	if err != nil {
		return err
	}
	if err := signs(key); err != nil {
		return err
	}
	return checkSignature(key, a.Quote, a.Signature)
}

func checkNonce(q signedQuote, nonce []byte) error {
	if len(nonce) < shortestNonce {
		return fmt.Errorf("the nonce that was asked with has %d bytes; want at least %d", len(nonce), shortestNonce)
	}
	if !bytes.Equal(q.nonce, nonce) {
		return errors.New("the quote is for another nonce: it was made for somebody else, or before")
	}
	return nil
}

// registers returns the values that are in a and that the TPM has quoted.
func registers(a api.Attestation, q signedQuote) (map[int][sha256.Size]byte, error) {
	if !slices.Equal(q.pcrs, PCRs()) {
		return nil, fmt.Errorf("quoted are PCRs %v; want %v", q.pcrs, PCRs())
	}
	if len(a.PCRs) > mostRegister {
		return nil, fmt.Errorf("there are %d values; want %d", len(a.PCRs), len(PCRs()))
	}
	values := make(map[int][sha256.Size]byte)
	for _, p := range a.PCRs {
		b, err := hex.DecodeString(p.Value)
		if err != nil || len(b) != sha256.Size {
			return nil, fmt.Errorf("PCR %d is %q; want a SHA-256 in hexadecimal digits", p.PCR, p.Value)
		}
		values[p.PCR] = [sha256.Size]byte(b)
	}
	var all []byte
	for _, n := range q.pcrs {
		value, ok := values[n]
		if !ok {
			return nil, fmt.Errorf("PCR %d was quoted, and its value is missing", n)
		}
		all = append(all, value[:]...)
	}
	if sum := sha256.Sum256(all); !bytes.Equal(sum[:], q.digest) {
		return nil, errors.New("the values are not those that the TPM quoted")
	}
	return values, nil
}

// replay returns the events of a log that leads to the values.
func replay(log []byte, values map[int][sha256.Size]byte) ([]uefi.Event, error) {
	if len(log) > longestLog {
		return nil, fmt.Errorf("it has %d bytes; want at most %d", len(log), longestLog)
	}
	events, parseErr := uefi.ParseEventLog(log)
	firmware := make(map[int][sha256.Size]byte)
	for n := range 8 {
		firmware[n] = values[n]
	}
	events, err := uefi.Replays(events, firmware)
	if err != nil && parseErr != nil {
		return nil, fmt.Errorf("it cannot be read to its end: %w", parseErr)
	}
	return events, err
}

// secureBoot reports whether the firmware enforced signatures, by whose certificates.
func (r *Report) secureBoot(events []uefi.Event) {
	const what = "Secure Boot"
	var certificates []string
	seen := false
	for _, e := range events {
		if e.PCR != 7 || e.Type != uefi.EventVariable {
			continue
		}
		v, err := e.Variable()
		switch {
		case err != nil || !e.Hashed():
			r.refused(what, errors.New("the firmware measures its variables in a way of its own: the log does not show what they were"))
			return
		case v.Name == "SecureBoot" && v.Vendor == uefi.GlobalVariable:
			if !bytes.Equal(v.Value, []byte{1}) {
				r.refused(what, errors.New("it was off: the machine starts anything"))
				return
			}
			seen = true
		case v.Name == "db" && v.Vendor == uefi.ImageSecurityDatabase:
			lists, err := uefi.ParseSignatureLists(v.Value)
			if err != nil {
				r.refused(what, fmt.Errorf("db: %w", err))
				return
			}
			for _, c := range uefi.X509Certificates(lists) {
				certificates = append(certificates, fmt.Sprintf("%q (%s)", c.Subject, uefi.Fingerprint(c.Raw)))
			}
		}
	}
	if !seen {
		r.refused(what, errors.New("the log does not say whether it was on"))
		return
	}
	r.shown(what, "it was on; db has the certificates "+strings.Join(certificates, ", "))
}

// release reports which release runs, and whether nothing else was started before it.
func (r *Report) release(events []uefi.Event, logged bool, values map[int][sha256.Size]byte, d Demands) {
	const kernel, programs = "kernel image", "programs"
	if len(d.Releases) == 0 {
		r.notShown(kernel, "there are no measurements of a release to compare it with")
		return
	}
	m, phase, found := running(values[11], d.Releases)
	if !found {
		r.refused(kernel, errors.New("PCR 11 is that of none of the releases: another kernel image runs, or it is not up yet"))
		return
	}
	r.Version = m.Version
	r.shown(kernel, fmt.Sprintf("PCR 11 is that of release %s, in the phase %q", m.Version, phase))
	if logged {
		r.check(programs, "PCR 4 has nothing but the boot loader and the kernel image of the release", started(events, m, d.Programs))
	}
}

// running returns the release whose kernel image PCR 11 is of, and how far the system
// has come.
func running(eleven [sha256.Size]byte, releases []Measurements) (m Measurements, phase string, found bool) {
	phases := uefi.PhasesRunning()
	for _, m := range releases {
		b, err := hex.DecodeString(m.PCR11)
		if err != nil || len(b) != sha256.Size {
			continue
		}
		for n := 1; n <= len(phases); n++ {
			if uefi.AfterPhases([sha256.Size]byte(b), phases[:n]...) == eleven {
				return m, phases[n-1], true
			}
		}
	}
	return m, "", false
}

// started says what PCR 4 has that is none of the release's. What an event is of, the
// log says; what it measured, the TPM knows: so each has to be one of the programs that
// are allowed, or to have the digest of its own words.
func started(events []uefi.Event, m Measurements, others []string) error {
	kernel := false
	for _, e := range events {
		if e.PCR != 4 || e.Type == uefi.EventNoAction {
			continue
		}
		digest := hex.EncodeToString(e.Digest[:])
		words := e.Type == uefi.EventEFIAction || e.Type == uefi.EventAction || e.Type == uefi.EventSeparator
		kernel = kernel || digest == m.UKI
		if words && e.Hashed() || slices.Contains(m.programs(), digest) || slices.Contains(others, digest) {
			continue
		}
		return fmt.Errorf("something else was started: %s, digest %s; if it is your firmware's, or a boot loader of an earlier release, allow that digest", e.Describe(), digest)
	}
	if !kernel {
		return errors.New("the kernel image of the release was not started by the firmware")
	}
	return nil
}

// rest reports what was added from outside, the volume, and what no register has.
func (r *Report) rest(values map[int][sha256.Size]byte, d Demands) {
	var err error
	if values[12] != [sha256.Size]byte{} {
		err = errors.New("PCR 12 is not empty: a command line, a credential or an add-on was given to the kernel image from outside")
	}
	r.check("additions", "PCR 12 is empty: the kernel image was given nothing from outside", err)
	switch {
	case d.Volume == "":
		r.notShown("root", "PCR 15 is not compared; keep it, and demand it the next time: another one is another root volume")
	case !strings.EqualFold(d.Volume, r.Volume):
		r.refused("root", errors.New("PCR 15 is another: the root volume was replaced, or made anew"))
	default:
		r.shown("root", "PCR 15 is as it was: it is the same root volume on a machine of the same name")
	}
	r.notShown("applications", "extension images are measured nowhere; the kernel takes none whose hash is not signed by a certificate in db")
	r.notShown("firmware", "PCR 0 to 3, 5 and 6 are what the log says; whether that is the firmware of the manufacturer is not compared")
}
