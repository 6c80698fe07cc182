package seal

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// What a recovery key that somebody thought of has to be. One that the machine made
// is far beyond it.
const (
	shortestKey  = 15
	longestKey   = 256
	fewestKinds  = 5  // of characters
	fewestTurns  = 10 // characters that do not follow from those before
	mostKeys     = 16 // LUKS2 has 32 key slots, of which the TPM needs some
	keyboardRows = "qwertyuiop asdfghjkl zxcvbnm 1234567890 abcdefghijklmnopqrstuvwxyz"
)

// common are words that guessing begins with; each counts as one character.
func common() []string {
	return []string{"passphrase", "password", "recovery", "welcome", "letmein", "secret", "incusos", "incus", "debian", "linux", "admin", "root", "key"}
}

// weak says why a key is refused; nil if it is not. No error shows any of the key.
func weak(key string) error {
	kinds := make(map[rune]bool)
	symbols := 0
	for _, r := range key {
		if r < ' ' || r > '~' {
			return errors.New("has characters that not every keyboard has; want letters, digits and signs of ASCII, since it is typed before any layout is chosen")
		}
		kinds[r] = true
		if !isAlphanumeric(r) {
			symbols++
		}
	}
	switch {
	case strings.TrimSpace(key) != key:
		return errors.New("begins or ends with a blank, which nobody sees; leave it out")
	case len(key) < shortestKey || len(key) > longestKey:
		return fmt.Errorf("has %d characters; want %d to %d", len(key), shortestKey, longestKey)
	case symbols == 0:
		return errors.New("has letters and digits alone; want at least one sign, such as a dash")
	case len(kinds) < fewestKinds:
		return fmt.Errorf("consists of %d different characters; want at least %d", len(kinds), fewestKinds)
	}
	if n := turns(key); n < fewestTurns {
		return fmt.Errorf("is easily guessed: without common words, repetitions and rows of the keyboard %d characters are left; want at least %d", n, fewestTurns)
	}
	return nil
}

func isAlphanumeric(r rune) bool {
	return r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
}

// turns counts the characters of key that do not follow from what is before them.
func turns(key string) int {
	text := strings.ToLower(key)
	for _, word := range common() {
		text = strings.ReplaceAll(text, word, "\x00")
	}
	if n := period(text); n > 0 {
		text = text[:n]
	}
	count := 0
	for i := range len(text) {
		if i > 0 && follows(text[i-1], text[i]) {
			continue
		}
		count++
	}
	return count
}

// period is the length of what text repeats over and over; 0 if it does not.
func period(text string) int {
	for n := 1; n <= len(text)/2; n++ {
		if strings.HasPrefix(strings.Repeat(text[:n], len(text)/n+1), text) {
			return n
		}
	}
	return 0
}

// follows reports whether b is what comes to mind after a: the same again, or the next
// in a row.
func follows(a, b byte) bool {
	pair := []string{string([]byte{a, b}), string([]byte{b, a})}
	return a == b || slices.ContainsFunc(pair, func(p string) bool { return !strings.Contains(p, " ") && strings.Contains(keyboardRows, p) })
}
