// Package uefi reads and writes the formats of UEFI Secure Boot.
//
// Bytes come in and values go out, or the other way round; nothing here opens
// a file or asks the machine. The formats are little-endian:
//
//	SignatureList  what PK, KEK, db and dbx hold
//	SignedUpdate   a new value for one of them, as in an .auth file
//	Event          what was measured into the TPM while the machine started
//	Prediction     what will be measured at the next start, given what changed
//	Program        what is started: a PE file, its sections, digest and signers
//	PCRPolicy      the condition under which a TPM gives a key away
//
// Package keys makes trust roots with it on the build side, and package seal
// reads and changes the variables of a running machine, for which package sys
// fetches the bytes. Section numbers are those of the UEFI specification 2.10.
package uefi

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// A GUID names a vendor, a type or an owner. It is kept in its text form, in
// lower case: "8be4df61-93ca-11d2-aa0d-00e098032b8c". Use ParseGUID for text
// from elsewhere.
type GUID string

// Vendors of variables (sections 3.3 and 32.6).
const (
	GlobalVariable        GUID = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
	ImageSecurityDatabase GUID = "d719b2cb-3d3a-4596-a3bc-dad00e67656f"
)

// Types of signature lists (section 32.4.1).
const (
	CertX509   GUID = "a5c059a1-94e4-4aa7-87b5-ab155c2bf072"
	CertSHA256 GUID = "c1c41626-504c-4092-aca9-41f936934328"
)

// MicrosoftOwner is the owner Microsoft gives to its own signatures
// (Windows Secure Boot Key Creation and Management Guidance).
const MicrosoftOwner GUID = "77fa9abd-0359-4d32-bd60-28f4e78f784b"

// guidSize is the length of a GUID in bytes.
const guidSize = 16

// ParseGUID returns the GUID that s spells.
func ParseGUID(s string) (GUID, error) {
	g := GUID(strings.ToLower(s))
	if _, err := appendGUID(nil, g); err != nil {
		return "", err
	}
	return g, nil
}

// appendGUID appends the binary form of g (appendix A): the first three groups
// are little-endian numbers, the other two are bytes in the order of the text.
func appendGUID(b []byte, g GUID) ([]byte, error) {
	groups := strings.Split(string(g), "-")
	raw, err := hex.DecodeString(strings.Join(groups, ""))
	if err != nil || len(raw) != guidSize || !slices.Equal(lengths(groups), []int{8, 4, 4, 4, 12}) {
		return nil, fmt.Errorf("%q is no GUID; want hexadecimal digits in groups of 8-4-4-4-12", string(g))
	}
	slices.Reverse(raw[0:4])
	slices.Reverse(raw[4:6])
	slices.Reverse(raw[6:8])
	return append(b, raw...), nil
}

func lengths(groups []string) []int {
	n := make([]int, len(groups))
	for i, g := range groups {
		n[i] = len(g)
	}
	return n
}

// readGUID returns the GUID at the start of b, which must hold one.
func readGUID(b []byte) GUID {
	le := binary.LittleEndian
	return GUID(fmt.Sprintf("%08x-%04x-%04x-%x-%x",
		le.Uint32(b), le.Uint16(b[4:]), le.Uint16(b[6:]), b[8:10], b[10:guidSize]))
}

// Attributes say how a variable is kept and written (section 8.2.1). In
// efivarfs they are the first four bytes of a file.
type Attributes uint32

// The attributes that matter to Secure Boot.
const (
	NonVolatile            Attributes = 0x01
	BootService            Attributes = 0x02
	Runtime                Attributes = 0x04
	TimeBasedAuthenticated Attributes = 0x20
	AppendWrite            Attributes = 0x40

	// Authenticated is what PK, KEK, db and dbx have.
	Authenticated = NonVolatile | BootService | Runtime | TimeBasedAuthenticated
)

// A Variable is the place an authenticated value is written to. All of it is
// covered by the signature, so that an update for one cannot be used on another.
type Variable struct {
	Name       string
	Vendor     GUID
	Attributes Attributes
}

// SecureBootVariable returns the variable named PK, KEK, db or dbx.
func SecureBootVariable(name string) (Variable, error) {
	switch name {
	case "PK", "KEK":
		return Variable{name, GlobalVariable, Authenticated}, nil
	case "db", "dbx":
		return Variable{name, ImageSecurityDatabase, Authenticated}, nil
	}
	return Variable{}, fmt.Errorf("%q is no Secure Boot variable; want PK, KEK, db or dbx", name)
}

// Appending returns v as it is named in updates that add to its value instead
// of replacing it.
func (v Variable) Appending() Variable {
	v.Attributes |= AppendWrite
	return v
}

// appendVariable appends what a signature covers of v (section 8.2.2): the name
// in UTF-16 without a terminator, the vendor and the attributes.
func appendVariable(b []byte, v Variable) ([]byte, error) {
	b, err := appendGUID(append(b, utf16Bytes(v.Name)...), v.Vendor)
	if err != nil {
		return nil, fmt.Errorf("vendor of variable %q: %w", v.Name, err)
	}
	return binary.LittleEndian.AppendUint32(b, uint32(v.Attributes)), nil
}
