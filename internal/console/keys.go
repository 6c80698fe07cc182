package console

import "bytes"

// A key is one that means something here: the letter of a page, or one of these.
type key byte

const (
	toStatus key = 's'
	toOlder  key = 'b' // back
	toNewer  key = ' '
)

// sequences are what keys without a character send: on the Linux console, and on
// terminals that speak like an xterm or a VT220.
func sequences() map[string]key {
	return map[string]key{
		"\x1b[[A": toStatus, "\x1bOP": toStatus, "\x1b[11~": toStatus, // F1
		"\x1b[[B": 'l', "\x1bOQ": 'l', "\x1b[12~": 'l', // F2
		"\x1b[[C": 'n', "\x1bOR": 'n', "\x1b[13~": 'n', // F3
		"\x1b[5~": toOlder, "\x1b[A": toOlder, "\x1bOA": toOlder, // page up, up
		"\x1b[6~": toNewer, "\x1b[B": toNewer, "\x1bOB": toNewer, // page down, down
	}
}

// lastKey returns the last key in what was typed; 0 if there is none. What came at
// once is one wish: a key that is held down must not be a hundred.
func lastKey(typed []byte) (last key) {
	for len(typed) > 0 {
		k, n := oneKey(typed)
		if k != 0 {
			last = k
		}
		typed = typed[n:]
	}
	return last
}

// oneKey returns the key that typed begins with, and how long it is.
func oneKey(typed []byte) (k key, length int) {
	if typed[0] == '\x1b' {
		for s, k := range sequences() {
			if bytes.HasPrefix(typed, []byte(s)) {
				return k, len(s)
			}
		}
		if len(typed) == 1 {
			return toStatus, 1 // the key Esc itself
		}
		return 0, sequenceLength(typed)
	}
	switch b := typed[0]; {
	case b == 'q' || b == 'Q':
		return toStatus, 1
	case 'A' <= b && b <= 'Z':
		return key(b - 'A' + 'a'), 1
	case b == ' ' || 'a' <= b && b <= 'z':
		return key(b), 1
	}
	return 0, 1
}

// sequenceLength is how long the sequence is that typed begins with, so that its
// letters are no keys (ECMA-48: parameters, then one byte from @ to ~).
func sequenceLength(typed []byte) int {
	if len(typed) < 2 || typed[1] != '[' && typed[1] != 'O' {
		return min(2, len(typed))
	}
	for i, b := range typed[2:] {
		if b >= '@' && b <= '~' {
			return i + 3
		}
	}
	return len(typed)
}
