package token

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"
)

const scheme = "pkcs11:"

// longest is how long a URI may be, in bytes.
const longest = 4096

// Is reports whether a name is that of a key in a token, and not of a file.
func Is(name string) bool { return strings.HasPrefix(name, scheme) }

// A location is where a key is, as a PKCS #11 URI has it (RFC 7512).
type location struct {
	token  string // label of the token
	id     string // of the key, hexadecimal: pkcs11-tool signs with the first key whatever label is asked for
	object string // label of the key; "" if the URI does not say
	module string // path of the library that knows the token; "" if the URI does not say
	pin    string // path of the file with the PIN; "" if the URI does not say
}

// parse reads a URI such as "pkcs11:token=updates;id=%01?pin-source=file:/etc/pin".
func parse(uri string) (location, error) {
	l, err := read(uri)
	if err != nil {
		return location{}, fmt.Errorf("the name of a key in a token: %w", err)
	}
	return l, nil
}

func read(uri string) (l location, err error) {
	text, ok := strings.CutPrefix(uri, scheme)
	if !ok || len(uri) > longest {
		return l, fmt.Errorf("want a URI of at most %d bytes such as pkcs11:token=updates;id=%%01", longest)
	}
	before, after, _ := strings.Cut(text, "?")
	if err := attributes(before, ";", l.where); err != nil {
		return l, err
	}
	if err := attributes(after, "&", l.how); err != nil {
		return l, err
	}
	switch {
	case l.token == "":
		return l, errors.New("it names no token; want one by its label, as token=updates")
	case l.id == "":
		return l, errors.New("it names no key; want one by its id, as id=%01, which `pkcs11-tool --list-objects` shows")
	}
	return l, nil
}

// attributes calls set for each "name=value" between separators, with the value decoded.
func attributes(text, separator string, set func(name, value string) error) error {
	if text == "" {
		return nil
	}
	seen := make(map[string]bool)
	for _, pair := range strings.Split(text, separator) {
		name, value, ok := strings.Cut(pair, "=")
		value, err := url.PathUnescape(value)
		if !ok || err != nil || value == "" || seen[name] || strings.ContainsRune(value, 0) {
			return fmt.Errorf("the attribute %.50q; want NAME=VALUE once, with other bytes than letters and digits as %%20", name)
		}
		seen[name] = true
		if err := set(name, value); err != nil {
			return err
		}
	}
	return nil
}

// where takes in an attribute of the path: which key it is.
func (l *location) where(name, value string) error {
	switch name {
	case "token":
		l.token = value
	case "object":
		l.object = value
	case "id":
		l.id = hex.EncodeToString([]byte(value))
	case "type":
		if value != "private" && value != "public" {
			return fmt.Errorf("type=%.50q is no key; want private, or leave it out", value)
		}
	default:
		return fmt.Errorf("the attribute %.50q is not understood; want token, object and id, and leave the rest out", name)
	}
	return nil
}

// how takes in an attribute of the query: how to come to the key.
func (l *location) how(name, value string) error {
	switch name {
	case "module-path":
		l.module = value
	case "pin-source":
		l.pin = strings.TrimPrefix(strings.TrimPrefix(value, "file:"), "//")
		if !path.IsAbs(l.pin) {
			return fmt.Errorf("pin-source=%.50q; want file:/PATH of a file with the PIN", value)
		}
	case "pin-value":
		return errors.New("pin-value lets everybody see the PIN who can list processes; want pin-source=file:/PATH")
	default:
		return fmt.Errorf("the attribute %.50q is not understood; want module-path or pin-source", name)
	}
	return nil
}
