package seal

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/luks"
)

// The bundle of certificates that programs trust, and the one of the image, which it
// is made of.
const (
	bundle        = "/etc/ssl/certs/ca-certificates.crt"
	factoryBundle = "/usr/share/factory/etc/ssl/certs/ca-certificates.crt"
	maxBundle     = 16 << 20
)

// Plan says what Apply would do, without a word of any key.
func (s *Seal) Plan(_ context.Context, config api.SystemSecurityConfig) (api.Plan, error) {
	s.turn.Lock()
	defer s.turn.Unlock()
	var plan api.Plan
	_, h, rootErr := s.root()
	k, err := s.readKeyring(h)
	if err != nil {
		return plan, err
	}
	wanted, err := k.check(config)
	if err != nil {
		return plan, err
	}
	change, err := k.changes(wanted, rootErr)
	if err != nil {
		return plan, err
	}
	for i, key := range wanted {
		if at := k.find(key); change && (at < 0 || k.Keys[at].Slot == noSlot) {
			plan.Do("add", fmt.Sprintf("recovery key %d to root", i+1))
		}
	}
	for i, o := range k.Keys {
		if change && o.Slot != noSlot && !slices.Contains(wanted, string(o.Key)) {
			plan.Risk("remove", fmt.Sprintf("recovery key %d from root", i+1), "whoever has no other cannot unlock it any more")
		}
	}
	content, differs, err := s.bundle(config)
	if differs && err == nil {
		plan.Do("write", fmt.Sprintf("%s, %d bytes", bundle, len(content)))
	}
	return plan, err
}

// check returns the wanted keys as they are enrolled, or why they are refused. Those
// that are there already are not judged again.
func (k keyring) check(config api.SystemSecurityConfig) ([]string, error) {
	if n := len(config.EncryptionRecoveryKeys); n > mostKeys {
		return nil, api.Fieldf("encryption_recovery_keys", "has %d keys; want at most %d", n, mostKeys)
	}
	var wanted []string
	for i, secret := range config.EncryptionRecoveryKeys {
		key, field := normalize(string(secret)), fmt.Sprintf("encryption_recovery_keys[%d]", i)
		if slices.Contains(wanted, key) {
			return nil, api.Fieldf(field, "is there twice")
		}
		if k.find(key) < 0 {
			if err := weak(key); err != nil {
				return nil, api.Fieldf(field, "%v", err)
			}
		}
		wanted = append(wanted, key)
	}
	return wanted, nil
}

// changes reports whether other keys open root than the wanted ones. Where root
// cannot be looked at, what is saved is taken to be so: there may be none, as on a
// machine without a disk.
func (k keyring) changes(wanted []string, rootErr error) (bool, error) {
	if rootErr != nil {
		for _, key := range wanted {
			if i := k.find(key); i < 0 || !k.Keys[i].Saved {
				return false, rootErr
			}
		}
		if len(wanted) != len(k.saved()) {
			return false, rootErr
		}
		return false, nil
	}
	var have []string
	for _, o := range k.Keys {
		if o.Slot != noSlot {
			have = append(have, string(o.Key))
		}
	}
	same := slices.Equal(slices.Sorted(slices.Values(have)), slices.Sorted(slices.Values(wanted)))
	return len(wanted) > 0 && (k.Growing != nil || !same), nil
}

// Apply brings the key slots of root and the trusted certificates to config: what is
// new is there before anything old goes, and one key that the operator knows opens
// root at any time.
func (s *Seal) Apply(ctx context.Context, config api.SystemSecurityConfig) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	device, h, rootErr := s.root()
	k, err := s.readKeyring(h)
	if err != nil {
		return err
	}
	wanted, err := k.check(config)
	if err != nil {
		return err
	}
	change, err := k.changes(wanted, rootErr)
	if err != nil {
		return err
	}
	if change {
		if err := s.applyKeys(ctx, device, &k, wanted); err != nil {
			return err
		}
	}
	return s.applyBundle(config)
}

func (s *Seal) applyKeys(ctx context.Context, device string, k *keyring, wanted []string) error {
	h, err := readHeader(s.host.Files, device)
	if err != nil {
		return err
	}
	if err := s.tidy(ctx, device, h, k); err != nil {
		return err
	}
	for _, key := range wanted {
		if i := k.find(key); i >= 0 && k.Keys[i].Slot != noSlot {
			continue
		}
		if err := s.add(ctx, device, k, key); err != nil {
			return err
		}
	}
	for i := range k.Keys {
		if k.Keys[i].Slot == noSlot || slices.Contains(wanted, string(k.Keys[i].Key)) {
			continue
		}
		if err := s.remove(ctx, device, k, i); err != nil {
			return err
		}
	}
	return nil
}

// SavedKeys returns the recovery keys of the saved configuration.
func (s *Seal) SavedKeys() ([]api.Secret, error) {
	s.turn.Lock()
	defer s.turn.Unlock()
	_, h, _ := s.root() // which slots they are in does not matter
	k, err := s.readKeyring(h)
	return k.saved(), err
}

// SaveKeys makes keys those of the saved configuration. What opens nothing and is not
// among them is forgotten.
func (s *Seal) SaveKeys(keys []api.Secret) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	_, h, err := s.root()
	k, keyErr := s.readKeyring(h)
	if keyErr != nil {
		return keyErr
	}
	var wanted []string
	for _, key := range keys {
		wanted = append(wanted, normalize(string(key)))
		if k.find(wanted[len(wanted)-1]) < 0 && err == nil {
			return errors.New("a recovery key that root was not given cannot be saved")
		}
	}
	for i, o := range k.Keys {
		k.Keys[i].Saved = slices.Contains(wanted, string(o.Key))
	}
	k.Keys = slices.DeleteFunc(k.Keys, func(o opener) bool { return !o.Saved && o.Slot == noSlot })
	return s.writeKeyring(k)
}

// bundle returns what the bundle of trusted certificates should hold, and whether it
// holds something else.
func (s *Seal) bundle(config api.SystemSecurityConfig) (content []byte, changes bool, err error) {
	factory, err := readAtMost(s.host.Files, factoryBundle, maxBundle)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, false, fmt.Errorf("reading the certificates of the image: %w", err)
	}
	have, err := readAtMost(s.host.Files, bundle, maxBundle)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, false, fmt.Errorf("reading the trusted certificates: %w", err)
	}
	content = slices.Clone(factory)
	for _, cert := range config.CustomCACerts {
		if block, _ := pem.Decode([]byte(cert)); block != nil {
			content = append(content, pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})...)
		}
	}
	return content, !bytes.Equal(content, have), nil
}

// applyBundle writes the bundle of trusted certificates. Programs read it when they
// start; a new image brings a new one, which this is made of again then.
func (s *Seal) applyBundle(config api.SystemSecurityConfig) error {
	content, changes, err := s.bundle(config)
	if err != nil || !changes {
		return err
	}
	if err := s.host.Files.WriteFile(bundle, content, 0o644); err != nil {
		return fmt.Errorf("writing the trusted certificates: %w", err)
	}
	return nil
}

// unlisted returns key slots of root that no key the machine knows of is in: somebody
// has added them by hand.
func (s *Seal) unlisted() []string {
	s.turn.Lock()
	defer s.turn.Unlock()
	_, h, err := s.root()
	if err != nil {
		return nil
	}
	k, err := s.readKeyring(h)
	if err != nil {
		return nil
	}
	var out []string
	for _, slot := range h.Slots {
		if h.Kind(slot) != luks.TokenTPM2 && !slices.ContainsFunc(k.Keys, func(o opener) bool { return o.Slot == slot }) {
			out = append(out, fmt.Sprint(slot))
		}
	}
	return out
}

// complaint says what to do about slots that nobody knows of.
func complaint(slots []string) string {
	return "key slot " + strings.Join(slots, ", ") + " of root opens for a key that is in no list; if you did not add it by hand, somebody else did"
}
