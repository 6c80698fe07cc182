package uefi

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// An Event is one measurement of the boot.
type Event struct {
	PCR    int // NoPCR only where Type is EventNoAction
	Type   EventType
	Digest [sha256.Size]byte // what the PCR of the SHA-256 bank was extended with
	Data   []byte            // what was measured, or words about it
}

// NoPCR is the PCR of an event that is of none: some firmware numbers those that
// extend nothing 0xffffffff.
const NoPCR = -1

// The algorithms of digests (TCG algorithm registry). A log may hold others, which
// its header then describes.
const (
	algorithmSHA1   = 0x0004
	algorithmSHA256 = 0x000b
)

// usual returns the length of a digest that the header forgot to list, as some
// firmware does for banks that were switched on in its setup; 0 if it is unheard of.
func usual(algorithm uint16) uint32 {
	switch algorithm {
	case algorithmSHA1:
		return sha1Size
	case algorithmSHA256, 0x0012, 0x0027: // SM3, SHA3-256
		return sha256.Size
	case 0x000c, 0x0028: // SHA-384, SHA3-384
		return 48
	case 0x000d, 0x0029: // SHA-512, SHA3-512
		return maxDigest
	}
	return 0
}

const (
	// pcrs is how many registers a TPM of a PC has.
	pcrs = 24
	// maxAlgorithms and maxDigest bound what a header may announce: five
	// algorithms are registered for PCs, the longest has 64 bytes.
	maxAlgorithms = 16
	maxDigest     = 64
	sha1Size      = 20
)

// specID begins the data of the header (PFP section 10.4.5.1).
var specID = []byte("Spec ID Event03\x00")

// startupLocality begins the data of the event that says by which locality the
// TPM was started, which is what PCR 0 begins with (PFP section 10.4.5.3).
var startupLocality = []byte("StartupLocality\x00")

// ParseEventLog returns the events of b, a log in the crypto-agile form of the
// TCG PC Client Platform Firmware Profile (PFP), section 10.2: a header in the
// form of TPM 1.2 that lists the algorithms, then events with one digest for each.
// Data points into b.
//
// Firmware takes liberties, and those that leave no doubt are taken: padding behind
// the last event, algorithms the header does not list, events that extend nothing
// with neither digest nor PCR. With an error come the events before it: whether they
// are all there were is for Replay to say, since the TPM knows.
func ParseEventLog(b []byte) ([]Event, error) {
	r := &logReader{b: b}
	sizes, err := r.header()
	if err != nil {
		return nil, fmt.Errorf("header of the event log: %w", err)
	}
	var events []Event
	for r.at < len(b) && !padding(b[r.at:]) {
		at := r.at
		e, err := r.event(sizes)
		if err != nil {
			return events, fmt.Errorf("event %d, at byte %d: %w", len(events), at, err)
		}
		events = append(events, e)
	}
	return events, nil
}

// padding reports whether b is what a buffer holds that nothing was written to.
func padding(b []byte) bool {
	filler := b[0]
	return (filler == 0 || filler == 0xff) && len(bytes.Trim(b, string([]byte{filler}))) == 0
}

// ReplayPCR returns what the events leave in a PCR of the SHA-256 bank. It is what
// the TPM holds only as long as nobody else has extended the PCR: that is so for
// PCRs 0 to 7, while others are extended by systems that keep a log of their own.
func ReplayPCR(events []Event, pcr int) [sha256.Size]byte {
	var value [sha256.Size]byte
	for _, e := range events {
		if e.Type == EventNoAction {
			if locality, ok := bytes.CutPrefix(e.Data, startupLocality); ok && pcr == 0 && e.PCR <= 0 && len(locality) == 1 {
				value[len(value)-1] = locality[0]
			}
			continue
		}
		if e.PCR == pcr {
			value = extend(value, e.Digest)
		}
	}
	return value
}

// A logReader takes numbers and bytes off the front of a log. All numbers are
// little-endian.
type logReader struct {
	b  []byte
	at int
}

// take returns the next n bytes.
func (r *logReader) take(n uint32, what string) ([]byte, error) {
	if left := len(r.b) - r.at; uint64(n) > uint64(left) { //nolint:gosec // never negative
		return nil, fmt.Errorf("%s takes %d bytes, and %d are left", what, n, left)
	}
	from := r.at
	r.at += int(n)
	return r.b[from:r.at:r.at], nil
}

func (r *logReader) uint32(what string) (uint32, error) {
	b, err := r.take(4, what)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint32(b), nil
}

func (r *logReader) uint16(what string) (uint16, error) {
	b, err := r.take(2, what)
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint16(b), nil
}

// header reads the first event, a TCG_PCClientPCREvent, and returns the lengths
// of digests by algorithm:
//
//	offset  bytes  field
//	     0      4  PCR, 0
//	     4      4  type, EventNoAction
//	     8     20  digest, zeros
//	    28      4  length of the data
//	    32         data, a TCG_EfiSpecIdEvent
func (r *logReader) header() (map[uint16]uint32, error) {
	fixed, err := r.take(4+4+sha1Size, "its beginning")
	if err != nil {
		return nil, err
	}
	if kind := EventType(binary.LittleEndian.Uint32(fixed[4:])); kind != EventNoAction {
		return nil, fmt.Errorf("is an event of type %#x; want %#x, which begins a log with several algorithms", uint32(kind), uint32(EventNoAction))
	}
	size, err := r.uint32("its length")
	if err != nil {
		return nil, err
	}
	data, err := r.take(size, "its data")
	if err != nil {
		return nil, err
	}
	return (&logReader{b: data}).algorithms()
}

// algorithms reads a TCG_EfiSpecIdEvent. After the signature come four bytes of
// platform class and four of versions; what follows the algorithms is the
// vendor's.
func (r *logReader) algorithms() (map[uint16]uint32, error) {
	fixed, err := r.take(uint32(len(specID))+8, "its signature") //nolint:gosec // sixteen
	if err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(fixed, specID) {
		return nil, fmt.Errorf("is signed %q; want %q", fixed[:len(specID)], specID)
	}
	count, err := r.uint32("the number of algorithms")
	if err != nil {
		return nil, err
	}
	if count == 0 || count > maxAlgorithms {
		return nil, fmt.Errorf("lists %d algorithms; want 1 to %d", count, maxAlgorithms)
	}
	sizes := make(map[uint16]uint32)
	for range count {
		if err := r.algorithm(sizes); err != nil {
			return nil, err
		}
	}
	if sizes[algorithmSHA256] != sha256.Size {
		return nil, fmt.Errorf("has digests of %d bytes for SHA-256; want %d, and a TPM whose SHA-256 bank is in use", sizes[algorithmSHA256], sha256.Size)
	}
	return sizes, nil
}

func (r *logReader) algorithm(sizes map[uint16]uint32) error {
	id, err := r.uint16("an algorithm")
	if err != nil {
		return err
	}
	size, err := r.uint16("the length of a digest")
	if err != nil {
		return err
	}
	if _, twice := sizes[id]; twice {
		return fmt.Errorf("lists algorithm %#x twice", id)
	}
	if size == 0 || size > maxDigest || id == algorithmSHA1 && size != sha1Size {
		return fmt.Errorf("says digests of algorithm %#x have %d bytes", id, size)
	}
	sizes[id] = uint32(size)
	return nil
}

// event reads a TCG_PCR_EVENT2: PCR, type, number of digests, each with its
// algorithm, length of the data, data.
func (r *logReader) event(sizes map[uint16]uint32) (e Event, err error) {
	pcr, err := r.uint32("its PCR")
	if err != nil {
		return e, err
	}
	kind, err := r.uint32("its type")
	if err != nil {
		return e, err
	}
	e = Event{PCR: int(pcr), Type: EventType(kind)}
	if pcr >= pcrs {
		if e.PCR = NoPCR; e.Type != EventNoAction {
			return e, fmt.Errorf("is of PCR %d; want 0 to %d", pcr, pcrs-1)
		}
	}
	var found bool
	if e.Digest, found, err = r.digests(sizes); err != nil {
		return e, err
	}
	if !found && e.Type != EventNoAction {
		return e, errors.New("has no SHA-256 digest")
	}
	size, err := r.uint32("the length of its data")
	if err != nil {
		return e, err
	}
	e.Data, err = r.take(size, "its data")
	return e, err
}

// digests returns the SHA-256 one, if it is found.
func (r *logReader) digests(sizes map[uint16]uint32) (digest [sha256.Size]byte, found bool, err error) {
	count, err := r.uint32("the number of its digests")
	if err != nil {
		return digest, false, err
	}
	if count > maxAlgorithms {
		return digest, false, fmt.Errorf("has %d digests; want at most %d", count, maxAlgorithms)
	}
	for range count {
		id, err := r.uint16("an algorithm")
		if err != nil {
			return digest, false, err
		}
		size := cmp.Or(sizes[id], usual(id))
		if size == 0 {
			return digest, false, fmt.Errorf("has a digest of algorithm %#x, which the header does not list", id)
		}
		b, err := r.take(size, "a digest")
		if err != nil {
			return digest, false, err
		}
		if id == algorithmSHA256 {
			digest, found = [sha256.Size]byte(b), true
		}
	}
	return digest, found, nil
}
