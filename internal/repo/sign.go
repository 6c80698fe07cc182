package repo

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Roles returns the roles that keys may have: root says which keys there are,
// targets what is published, snapshot and timestamp that it is the newest. The
// keys of the first two are best kept away from the machine that publishes.
func Roles() []string {
	return []string{metadata.ROOT, metadata.TARGETS, metadata.SNAPSHOT, metadata.TIMESTAMP}
}

// A RoleKeys says who may sign for a role.
type RoleKeys struct {
	Threshold int // how many of the keys must sign
	Keys      []crypto.PublicKey
}

// A signer signs as the library wants it, with any key that crypto.Signer stands
// for: in a file, or in a token.
type signer struct {
	key crypto.Signer
	err error // why it did not sign, which the library does not say
}

func (s *signer) PublicKey(...signature.PublicKeyOption) (crypto.PublicKey, error) {
	return s.key.Public(), nil
}

func (s *signer) SignMessage(message io.Reader, _ ...signature.SignOption) (signed []byte, err error) {
	signed, s.err = s.sign(message)
	return signed, s.err
}

func (s *signer) sign(message io.Reader) ([]byte, error) {
	b, err := io.ReadAll(message)
	if err != nil {
		return nil, err
	}
	switch s.key.Public().(type) {
	case ed25519.PublicKey:
		return s.key.Sign(rand.Reader, b, crypto.Hash(0))
	case *ecdsa.PublicKey:
		sum := sha256.Sum256(b)
		return s.key.Sign(rand.Reader, sum[:], crypto.SHA256)
	}
	return nil, fmt.Errorf("a key of type %T; want Ed25519 or ECDSA", s.key.Public())
}

// keyOf returns a public key as metadata has it, with its id.
func keyOf(public crypto.PublicKey) (*metadata.Key, string, error) {
	key, err := metadata.KeyFromPublicKey(public)
	if err != nil {
		return nil, "", fmt.Errorf("a key of type %T: %w", public, err)
	}
	id, err := key.ID()
	return key, id, err
}

// KeyID returns the id by which metadata names a key.
func KeyID(public crypto.PublicKey) (string, error) {
	_, id, err := keyOf(public)
	return id, err
}

// sign replaces the signatures of m by those of all keys that may sign for role,
// according to any of the roots. It fails if one of the roots wants more.
func sign[T metadata.Roles](m *metadata.Metadata[T], role string, keys []crypto.Signer, roots ...*metadata.Metadata[metadata.RootType]) error {
	m.Signatures = nil
	signed := make(map[string]bool)
	for _, root := range roots {
		r, ok := root.Signed.Roles[role]
		if !ok || r == nil {
			return fmt.Errorf("nobody may sign %s", role)
		}
		for _, k := range keys {
			id, err := KeyID(k.Public())
			if err != nil {
				return err
			}
			if !slices.Contains(r.KeyIDs, id) || signed[id] {
				continue
			}
			s := &signer{key: k}
			if _, err := m.Sign(s); err != nil {
				return fmt.Errorf("signing %s: %w", role, cmp.Or(s.err, err))
			}
			signed[id] = true
		}
	}
	for _, root := range roots {
		if err := root.VerifyDelegate(role, m); err != nil {
			return tooFew(role, root.Signed.Roles[role], signed)
		}
	}
	return nil
}

// tooFew says how many keys are missing.
func tooFew(role string, r *metadata.Role, signed map[string]bool) error {
	n := 0
	for _, id := range r.KeyIDs {
		if signed[id] {
			n++
		}
	}
	if n == 0 {
		return fmt.Errorf("none of the keys given may sign %s; want %d of %d others", role, r.Threshold, len(r.KeyIDs))
	}
	return fmt.Errorf("%s needs the signatures of %d keys, and %d of those given may sign it; name more", role, r.Threshold, n)
}

// setRole makes keys the ones of a role.
func setRole(root *metadata.RootType, role string, k RoleKeys) error {
	if k.Threshold < 1 || k.Threshold > len(k.Keys) {
		return fmt.Errorf("%s: a threshold of %d for %d keys; want 1 to %d", role, k.Threshold, len(k.Keys), len(k.Keys))
	}
	r := &metadata.Role{Threshold: k.Threshold}
	for _, public := range k.Keys {
		key, id, err := keyOf(public)
		if err != nil {
			return fmt.Errorf("%s: %w", role, err)
		}
		if slices.Contains(r.KeyIDs, id) {
			return fmt.Errorf("%s: a key is named twice", role)
		}
		r.KeyIDs = append(r.KeyIDs, id)
		root.Keys[id] = key
	}
	root.Roles[role] = r
	return nil
}

// dropUnused removes keys that no role has.
func dropUnused(root *metadata.RootType) {
	used := make(map[string]bool)
	for _, r := range root.Roles {
		for _, id := range r.KeyIDs {
			used[id] = true
		}
	}
	for id := range root.Keys {
		if !used[id] {
			delete(root.Keys, id)
		}
	}
}

// RootVersion returns the version of a root, and the ids of the keys that may sign
// for each role. The root is not verified.
func RootVersion(root []byte) (version int64, keys map[string][]string, err error) {
	m, err := metadata.Root().FromBytes(root)
	if err != nil {
		return 0, nil, err
	}
	keys = make(map[string][]string)
	for name, r := range m.Signed.Roles {
		if r == nil {
			return 0, nil, errors.New("a role has no keys")
		}
		keys[name] = r.KeyIDs
	}
	return m.Signed.Version, keys, nil
}
