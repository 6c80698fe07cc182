package uefi

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf16"
)

// An EventType says what a measurement is of (PFP section 10.4.1).
type EventType uint32

// The types that change what a log means, or that are predicted.
const (
	EventNoAction    EventType = 0x00000003 // says something and extends nothing
	EventSeparator   EventType = 0x00000004 // ends what the firmware does before it starts something
	EventAction      EventType = 0x00000005
	EventTag         EventType = 0x00000006
	EventIPL         EventType = 0x0000000d // what a boot loader measures
	EventVariable    EventType = 0x80000001 // EV_EFI_VARIABLE_DRIVER_CONFIG: a Secure Boot variable
	EventBoot        EventType = 0x80000002
	EventApplication EventType = 0x80000003 // EV_EFI_BOOT_SERVICES_APPLICATION: a program was started
	EventDriver      EventType = 0x80000004
	EventEFIAction   EventType = 0x80000007
	EventAuthority   EventType = 0x800000e0 // EV_EFI_VARIABLE_AUTHORITY: the entry of db that vouched for a program
)

// String returns the name of the specification, and the number of a type that it
// does not have.
func (t EventType) String() string {
	names := map[EventType]string{
		0: "EV_PREBOOT_CERT", 1: "EV_POST_CODE", EventNoAction: "EV_NO_ACTION", EventSeparator: "EV_SEPARATOR", EventAction: "EV_ACTION",
		EventTag: "EV_EVENT_TAG", 7: "EV_S_CRTM_CONTENTS", 8: "EV_S_CRTM_VERSION", 9: "EV_CPU_MICROCODE", 10: "EV_PLATFORM_CONFIG_FLAGS",
		11: "EV_TABLE_OF_DEVICES", 12: "EV_COMPACT_HASH", EventIPL: "EV_IPL", 14: "EV_IPL_PARTITION_DATA", 15: "EV_NONHOST_CODE",
		16: "EV_NONHOST_CONFIG", 17: "EV_NONHOST_INFO", 18: "EV_OMIT_BOOT_DEVICE_EVENTS", EventVariable: "EV_EFI_VARIABLE_DRIVER_CONFIG",
		EventBoot: "EV_EFI_VARIABLE_BOOT", EventApplication: "EV_EFI_BOOT_SERVICES_APPLICATION", EventDriver: "EV_EFI_BOOT_SERVICES_DRIVER",
		0x80000005: "EV_EFI_RUNTIME_SERVICES_DRIVER", 0x80000006: "EV_EFI_GPT_EVENT", EventEFIAction: "EV_EFI_ACTION",
		0x80000008: "EV_EFI_PLATFORM_FIRMWARE_BLOB", 0x80000009: "EV_EFI_HANDOFF_TABLES", 0x8000000a: "EV_EFI_PLATFORM_FIRMWARE_BLOB2",
		0x8000000b: "EV_EFI_HANDOFF_TABLES2", 0x8000000c: "EV_EFI_VARIABLE_BOOT2", 0x80000010: "EV_EFI_HCRTM_EVENT",
		EventAuthority: "EV_EFI_VARIABLE_AUTHORITY", 0x800000e1: "EV_EFI_SPDM_FIRMWARE_BLOB", 0x800000e2: "EV_EFI_SPDM_FIRMWARE_CONFIG",
	}
	if name, ok := names[t]; ok {
		return name
	}
	return fmt.Sprintf("%#x", uint32(t))
}

// Hashed reports whether the digest of e is that of its data, which is so for
// variables, separators and actions of firmware that keeps to the specification.
func (e Event) Hashed() bool { return sha256.Sum256(e.Data) == e.Digest }

// A VariableEvent is the data of EventVariable, EventBoot and EventAuthority, a
// UEFI_VARIABLE_DATA (PFP section 10.2.6):
//
//	offset  bytes  field
//	     0     16  vendor
//	    16      8  length of the name in characters
//	    24      8  length of the value in bytes
//	    32         name in UTF-16 without terminator, then the value
type VariableEvent struct {
	Vendor GUID
	Name   string
	Value  []byte // of EventAuthority: an EFI_SIGNATURE_DATA of the variable
}

const variableHeader = 32

// Variable reads the data of e. Some firmware counts the name in bytes; what fits
// the length of the whole counts.
func (e Event) Variable() (VariableEvent, error) {
	if len(e.Data) < variableHeader {
		return VariableEvent{}, fmt.Errorf("measured variable of %d bytes; its header alone takes %d", len(e.Data), variableHeader)
	}
	le := binary.LittleEndian
	name, value, rest := le.Uint64(e.Data[16:]), le.Uint64(e.Data[24:]), e.Data[variableHeader:]
	left := uint64(len(rest))
	if name <= left && value <= left && name+value == left && name%2 == 0 && 2*name+value != left {
		name /= 2
	}
	if name > left/2 || value > left || 2*name+value != left {
		return VariableEvent{}, fmt.Errorf("measured variable with a name of %d characters and a value of %d bytes in %d bytes", name, value, left)
	}
	return VariableEvent{readGUID(e.Data), utf16Text(rest[:2*name]), rest[2*name:]}, nil
}

// Encode is the reverse of Event.Variable.
func (v VariableEvent) Encode() ([]byte, error) {
	b, err := appendGUID(nil, v.Vendor)
	if err != nil {
		return nil, fmt.Errorf("vendor of variable %q: %w", v.Name, err)
	}
	name := utf16Bytes(v.Name)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(name)/2))
	b = binary.LittleEndian.AppendUint64(b, uint64(len(v.Value)))
	return slices.Concat(b, name, v.Value), nil
}

// An ImageEvent is the data of EventApplication and EventDriver, a
// UEFI_IMAGE_LOAD_EVENT (PFP section 10.2.3): where the program was in memory, and
// a device path (section 10) to where it came from.
type ImageEvent struct {
	Path    string // on the partition, with backslashes; "" for what is in no file
	OnDisk  bool   // the device path names a partition
	Payload bool   // it is the kernel that systemd-stub has in its own file, and has the firmware start
}

// Kinds of device path nodes (sections 10.3.5 and 10.3.6).
const (
	nodeMedia     = 0x04
	nodeEnd       = 0x7f
	mediaDrive    = 0x01
	mediaVendor   = 0x03
	mediaFilePath = 0x04

	imageHeader = 32
)

// stubPayload is the name by which systemd-stub has the firmware start its kernel
// (systemd, src/boot/efi/linux.c). With Secure Boot it does so in a way that is not
// measured: the kernel is part of a file that was checked already.
const stubPayload GUID = "55c5d1f8-04cd-46b5-8a20-e56cbb3052d0"

// Image reads the data of e. Some firmware announces a device path longer than the
// event; as much of it is read as there is.
func (e Event) Image() (ImageEvent, error) {
	if len(e.Data) < imageHeader {
		return ImageEvent{}, fmt.Errorf("measured program of %d bytes; its header alone takes %d", len(e.Data), imageHeader)
	}
	path := e.Data[imageHeader:]
	if n := binary.LittleEndian.Uint64(e.Data[24:]); n < uint64(len(path)) {
		path = path[:n]
	}
	var image ImageEvent
	for len(path) >= 4 && path[0] != nodeEnd {
		n := int(binary.LittleEndian.Uint16(path[2:]))
		if n < 4 || n > len(path) {
			return image, errors.New("measured program with a device path that does not end")
		}
		switch {
		case path[0] == nodeMedia && path[1] == mediaDrive:
			image.OnDisk = true
		case path[0] == nodeMedia && path[1] == mediaVendor && n >= 4+guidSize && readGUID(path[4:]) == stubPayload:
			image.Payload = true
		case path[0] == nodeMedia && path[1] == mediaFilePath:
			image.Path += utf16Text(path[4:n])
		}
		path = path[n:]
	}
	return image, nil
}

// utf16Bytes returns s as EFI has text, without a terminator.
func utf16Bytes(s string) []byte {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}

// utf16Text returns the text of b up to a zero.
func utf16Text(b []byte) string {
	var units []uint16
	for ; len(b) >= 2 && (b[0] != 0 || b[1] != 0); b = b[2:] {
		units = append(units, binary.LittleEndian.Uint16(b))
	}
	return string(utf16.Decode(units))
}

// Describe says in a few words what e is a measurement of. What firmware wrote is
// shown only where it can be printed.
func (e Event) Describe() string {
	switch e.Type {
	case EventVariable, EventBoot:
		if v, err := e.Variable(); err == nil {
			return "variable " + printable(v.Name)
		}
	case EventAuthority:
		if v, err := e.Variable(); err == nil {
			return "entry of " + printable(v.Name) + " that vouched for a program" + subjectOf(v.Value)
		}
	case EventApplication, EventDriver, 0x80000005:
		image, err := e.Image()
		switch {
		case err == nil && image.Path != "":
			return "program " + printable(image.Path)
		case err == nil && image.Payload:
			return "the kernel in the kernel image"
		}
		return "program in no file, such as the firmware's own or of a card"
	case EventSeparator:
		return "end of what the firmware does by itself"
	case EventAction, EventEFIAction:
		return "the firmware says: " + printable(string(e.Data))
	case EventIPL:
		return "boot loader: " + printable(loaderText(e.Data))
	}
	return e.Type.String()
}

// subjectOf names the certificate of an EFI_SIGNATURE_DATA.
func subjectOf(entry []byte) string {
	if cert := certificateOf(entry); cert != nil {
		return ": " + cert.Subject.String()
	}
	return ""
}

// loaderText is what a boot loader says of what it measures: systemd's in UTF-16,
// others in ASCII.
func loaderText(b []byte) string {
	if len(b) >= 4 && b[1] == 0 && b[3] == 0 {
		return utf16Text(b)
	}
	return string(bytes.TrimRight(b, "\x00"))
}

// printable cuts s to a line of letters that a screen can show.
func printable(s string) string {
	const longest = 120
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == '\uFFFD' {
			return '?'
		}
		return r
	}, s)
	if r := []rune(s); len(r) > longest {
		return string(r[:longest]) + "…"
	}
	return s
}
