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

// A Started is a program that the firmware started, as it is found afterwards.
type Started struct {
	Path   string            // on the boot partition, with slashes
	Digest [sha256.Size]byte // by Authenticode
	Signer *x509.Certificate // an entry of db vouches for what it has signed
}

// Reconstruct returns the events of PCR 4 and 7 that firmware with Secure Boot would have
// written down, for a machine without TPM, whose firmware measures nothing. Variables are
// the values of SecureBoot, PK, KEK, db and dbx by name, one that is missing being empty;
// programs are in the order they were started in. The log is no evidence of anything: it
// says what whoever calls this has found.
func Reconstruct(variables map[string][]byte, programs []Started) ([]Event, error) {
	var events []Event
	for _, name := range []string{"SecureBoot", "PK", "KEK", "db", "dbx"} {
		vendor := GlobalVariable
		if v, err := SecureBootVariable(name); err == nil {
			vendor = v.Vendor
		}
		e, err := variableEvent(EventVariable, VariableEvent{vendor, name, variables[name]})
		if err != nil {
			return nil, err
		}
		events = append(events, e)
	}
	for _, pcr := range []int{4, 7} {
		separator := make([]byte, 4)
		events = append(events, Event{PCR: pcr, Type: EventSeparator, Digest: sha256.Sum256(separator), Data: separator})
	}
	db, err := ParseSignatureLists(variables["db"])
	if err != nil {
		return nil, fmt.Errorf("the variable db: %w", err)
	}
	var vouched [][]byte
	for _, p := range programs {
		if p.Signer == nil {
			return nil, fmt.Errorf("%s: nobody has signed it, and yet it was started", p.Path)
		}
		entry, err := voucher(db, p.Signer)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.Path, err)
		}
		if !slices.ContainsFunc(vouched, func(e []byte) bool { return bytes.Equal(e, entry) }) {
			vouched = append(vouched, entry)
			e, err := variableEvent(EventAuthority, VariableEvent{ImageSecurityDatabase, "db", entry})
			if err != nil {
				return nil, err
			}
			events = append(events, e)
		}
		image := ImageEvent{Path: strings.ReplaceAll(p.Path, "/", `\`), OnDisk: true}
		events = append(events, Event{PCR: 4, Type: EventApplication, Digest: p.Digest, Data: image.Encode()})
	}
	if len(programs) == 0 {
		return nil, errors.New("no program was started")
	}
	return events, nil
}

func variableEvent(kind EventType, v VariableEvent) (Event, error) {
	data, err := v.Encode()
	return Event{PCR: 7, Type: kind, Digest: sha256.Sum256(data), Data: data}, err
}
