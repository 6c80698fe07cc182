package uefi

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A NextBoot is what will be different at the next start, as far as firmware
// measures it.
type NextBoot struct {
	// Variables are the values that SecureBoot, PK, KEK, db, dbx and others will
	// have, by name. What is not in it stays as it was measured.
	Variables map[string][]byte

	// Programs returns the digest of the program that will be at a path of the boot
	// partition, as it is in the log; false if that is not known.
	Programs func(path string) (digest [sha256.Size]byte, ok bool)

	// Payload is the digest of the kernel in the kernel image, which firmware measures
	// when Secure Boot is off; zero if that is not known. See Program.Payload.
	Payload [sha256.Size]byte

	// Was and Will are the certificates of boot loader and kernel image, in the order
	// they are started in: at this start, and at the next. The entries of db that
	// vouch for them are measured.
	Was, Will []*x509.Certificate

	// Ours are certificates whose entries, if they were measured, count as those of
	// Was: for a program that was replaced since this start.
	Ours []*x509.Certificate
}

// A Prediction is what a PCR will hold after the next start.
type Prediction struct {
	PCR    int
	Value  [sha256.Size]byte
	Events []Expected // in the order they are measured
}

// An Expected is an event of this start, of the next, or of both.
type Expected struct {
	Event                      // of this start, or what it would have been there
	Expected [sha256.Size]byte // the digest at the next start; zero: there will be none
	New      bool              // there was none at this start
}

// Differs reports whether the next start measures something else here.
func (e Expected) Differs() bool { return e.New || e.Expected != e.Digest }

// predict carries over the events of a PCR, each turned into what will take its
// place.
func predict(events []Event, pcr int, next func(Event) ([]Expected, error)) (Prediction, error) {
	p := Prediction{PCR: pcr}
	for _, e := range events {
		if e.PCR != pcr || e.Type == EventNoAction {
			continue
		}
		expected, err := next(e)
		if err != nil {
			return Prediction{}, fmt.Errorf("predicting PCR %d: %w", pcr, err)
		}
		p.Events = append(p.Events, expected...)
	}
	if p.Events == nil {
		return Prediction{}, fmt.Errorf("predicting PCR %d: the event log has nothing about it", pcr)
	}
	for _, e := range p.Events {
		if e.Expected != [sha256.Size]byte{} {
			p.Value = extend(p.Value, e.Expected)
		}
	}
	return p, nil
}

func stays(e Event) []Expected { return []Expected{{Event: e, Expected: e.Digest}} }

// PredictPCR4 says what PCR 4 will hold: the programs that are started. The log must
// be one that leads to what the TPM holds; see Replays.
func PredictPCR4(events []Event, next NextBoot) (Prediction, error) {
	return predict(events, 4, func(e Event) ([]Expected, error) {
		if e.Type != EventApplication || next.Programs == nil {
			return stays(e), nil
		}
		image, err := e.Image()
		if err != nil {
			return nil, err
		}
		if image.Payload {
			if next.Payload == [sha256.Size]byte{} {
				return nil, errors.New("the digest of the kernel in the kernel image is not known")
			}
			return []Expected{{Event: e, Expected: next.Payload}}, nil
		}
		if image.Path == "" {
			return stays(e), nil
		}
		digest, ok := next.Programs(image.Path)
		if !ok {
			return stays(e), nil
		}
		return []Expected{{Event: e, Expected: digest}}, nil
	})
}

// PredictPCR7 says what PCR 7 will hold: the Secure Boot variables, and the entries
// of db that vouched for what was started. The log must be one that leads to what
// the TPM holds; see Replays.
func PredictPCR7(events []Event, next NextBoot) (Prediction, error) {
	vouched := false
	return predict(events, 7, func(e Event) ([]Expected, error) {
		switch e.Type {
		case EventVariable:
			return next.variable(e)
		case EventAuthority:
			entry, err := e.Variable()
			if err != nil || !vouches(entry.Value, next.Was) && !vouches(entry.Value, next.Ours) {
				return stays(e), nil //nolint:nilerr // of somebody else, such as a card's program
			}
			if vouched {
				return next.gone(e)
			}
			vouched = true
			return next.authorities(e, entry)
		}
		return stays(e), nil
	})
}

// variable predicts the event of a variable.
func (n NextBoot) variable(e Event) ([]Expected, error) {
	v, err := e.Variable()
	if err != nil {
		return nil, err
	}
	value, ok := n.Variables[v.Name]
	if !ok || bytes.Equal(value, v.Value) {
		return stays(e), nil
	}
	if !e.Hashed() {
		return nil, fmt.Errorf("the firmware measures the variable %s in a way of its own", printable(v.Name))
	}
	v.Value = value
	data, err := v.Encode()
	if err != nil {
		return nil, err
	}
	return []Expected{{Event: e, Expected: sha256.Sum256(data)}}, nil
}

// gone predicts the second and later events of our own entries: all that will be
// measured of them is where the first one was.
func (n NextBoot) gone(e Event) ([]Expected, error) {
	if n.same() {
		return stays(e), nil
	}
	return []Expected{{Event: e}}, nil
}

// same reports that the next start is by the same certificates as this one, and that
// they are where they were.
func (n NextBoot) same() bool {
	_, changed := n.Variables["db"]
	return !changed && slices.EqualFunc(n.Was, n.Will, (*x509.Certificate).Equal)
}

// authorities predicts the events of the entries that vouch for what will be started.
// Firmware measures each entry once (PFP section 3.3.4.8).
func (n NextBoot) authorities(e Event, was VariableEvent) ([]Expected, error) {
	if n.same() {
		return stays(e), nil
	}
	if !e.Hashed() {
		return nil, errors.New("the firmware measures the entries of db in a way of its own")
	}
	entries, err := n.entries(was)
	if err != nil {
		return nil, err
	}
	var expected []Expected
	for _, entry := range entries {
		v := was
		v.Value = entry
		data, err := v.Encode()
		if err != nil {
			return nil, err
		}
		x := Expected{Event: e, Expected: sha256.Sum256(data)}
		if len(expected) > 0 {
			x.New, x.Data, x.Digest = true, data, [sha256.Size]byte{}
		}
		expected = append(expected, x)
	}
	return expected, nil
}

// entries returns the entries of db that vouch for what will be started, without
// repeating one.
func (n NextBoot) entries(was VariableEvent) ([][]byte, error) {
	db, known := n.Variables["db"]
	if !known {
		return nil, errors.New("the value that db will have is not known")
	}
	lists, err := ParseSignatureLists(db)
	if err != nil {
		return nil, fmt.Errorf("the value that db will have: %w", err)
	}
	var entries [][]byte
	for _, signer := range n.Will {
		entry, err := voucher(lists, signer)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(entries, func(have []byte) bool { return bytes.Equal(have, entry) }) {
			entries = append(entries, entry)
		}
	}
	if len(entries) == 0 {
		return [][]byte{was.Value}, nil
	}
	return entries, nil
}

// voucher returns the entry by which firmware takes a program of signer.
func voucher(lists []SignatureList, signer *x509.Certificate) ([]byte, error) {
	for _, l := range lists {
		for _, s := range l.Signatures {
			owner, err := appendGUID(nil, s.Owner)
			if err != nil {
				return nil, err
			}
			entry := slices.Concat(owner, s.Data)
			if l.Type == CertX509 && vouches(entry, []*x509.Certificate{signer}) {
				return entry, nil
			}
		}
	}
	return nil, fmt.Errorf("no entry of db will vouch for what %q has signed", signer.Subject)
}

// vouches reports whether an EFI_SIGNATURE_DATA is the certificate of one of the
// signers, or of who issued it.
func vouches(entry []byte, signers []*x509.Certificate) bool {
	cert := certificateOf(entry)
	return cert != nil && slices.ContainsFunc(signers, func(s *x509.Certificate) bool {
		return cert.Equal(s) || bytes.Equal(cert.RawSubject, s.RawIssuer) && s.CheckSignatureFrom(cert) == nil
	})
}

// certificateOf returns the certificate in an EFI_SIGNATURE_DATA; nil if there is
// none. Some firmware measures the certificate without its owner.
func certificateOf(entry []byte) *x509.Certificate {
	if len(entry) > guidSize {
		if cert, err := x509.ParseCertificate(entry[guidSize:]); err == nil {
			return cert
		}
	}
	if cert, err := x509.ParseCertificate(entry); err == nil {
		return cert
	}
	return nil
}

// Replays returns the events of a log that lead to what the TPM holds in the PCRs of
// live, and an error that names those they do not lead to. Firmware that hands over
// twice, before and after the kernel took over, has the end of the log in it twice:
// such a repeated end is left out if that is what makes it fit.
func Replays(events []Event, live map[int][sha256.Size]byte) ([]Event, error) {
	wrong := mismatches(events, live)
	if wrong == nil {
		return events, nil
	}
	for n := len(events) / 2; n > 0; n-- {
		first, second := events[len(events)-2*n:len(events)-n], events[len(events)-n:]
		if slices.EqualFunc(first, second, equal) && mismatches(events[:len(events)-n], live) == nil {
			return events[:len(events)-n], nil
		}
	}
	return events, fmt.Errorf("the event log does not lead to what the TPM holds in %s: something was measured that the firmware did not write down, or the log was changed", strings.Join(wrong, " and "))
}

func equal(a, b Event) bool {
	return a.PCR == b.PCR && a.Type == b.Type && a.Digest == b.Digest && bytes.Equal(a.Data, b.Data)
}

// mismatches names the PCRs that events do not lead to.
func mismatches(events []Event, live map[int][sha256.Size]byte) []string {
	var wrong []string
	for pcr := range pcrs {
		if value, ok := live[pcr]; ok && ReplayPCR(events, pcr) != value {
			wrong = append(wrong, fmt.Sprintf("PCR %d", pcr))
		}
	}
	return wrong
}
