package seal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/luks"
	"github.com/incusos/incusos/internal/sys"
)

// slotTable is where it is kept which key is in which key slot of root. The file of
// the machine's own key stays beside it: the early boot makes that one, and a release
// before this knows no other.
const slotTable = keyDir + "/recovery.root.slots"

// noSlot is the slot of a key that opens nothing by now.
const noSlot = -1

// A keyring is every recovery key that the machine knows of, and where it is. It is
// brought up to date with the header before it is used, so that a cut between a change
// of the header and one of the table leaves nothing to chance.
type keyring struct {
	Keys []opener `json:"keys"`
	// Growing is there while a key is added: the slots that were in use before. What
	// a cut left in others nobody has been told of.
	Growing []int `json:"growing,omitempty"`
}

// An opener is a recovery key.
type opener struct {
	Slot  int        `json:"slot"`
	Saved bool       `json:"saved"` // it is in the saved configuration
	Key   api.Secret `json:"key"`
}

// readKeyring returns the keys that the machine knows of, with the slots they are in
// by header.
func (s *Seal) readKeyring(h luks.Header) (keyring, error) {
	var k keyring
	b, err := s.host.Files.ReadFile(slotTable)
	if err == nil {
		err = json.Unmarshal(b, &k)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return keyring{}, fmt.Errorf("reading which recovery key is where: %w", err)
	}
	own, err := s.ownKey()
	if err != nil {
		return keyring{}, err
	}
	k.adopt(own, h)
	for i, o := range k.Keys {
		if !slices.Contains(h.Slots, o.Slot) || h.Kind(o.Slot) == luks.TokenTPM2 {
			k.Keys[i].Slot = noSlot
		}
	}
	return k, nil
}

// ownKey returns the key that the early boot made; "" if there is none.
func (s *Seal) ownKey() (string, error) {
	b, err := s.host.Files.ReadFile(rootKey)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("reading the recovery key: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// adopt adds the key that the early boot made, unless it is known. It is in the slot
// for recovery keys, of which the early boot leaves one.
func (k *keyring) adopt(own string, h luks.Header) {
	if own == "" || k.find(own) >= 0 {
		return
	}
	slot := noSlot
	for _, n := range h.Slots {
		if h.Kind(n) == luks.TokenRecovery {
			slot = n
		}
	}
	for i := range k.Keys {
		if k.Keys[i].Slot == slot {
			k.Keys[i].Slot = noSlot
		}
	}
	k.Keys = append(k.Keys, opener{slot, true, api.Secret(own)})
}

func (k keyring) find(key string) int {
	return slices.IndexFunc(k.Keys, func(o opener) bool { return string(o.Key) == key })
}

// opens returns a key that opens root.
func (k keyring) opens() (string, error) {
	for _, o := range k.Keys {
		if o.Slot != noSlot {
			return string(o.Key), nil
		}
	}
	return "", errors.New("the machine knows no recovery key that opens root; restart it, the TPM then allows to make one")
}

// saved returns the keys of the saved configuration.
func (k keyring) saved() []api.Secret {
	keys := []api.Secret{}
	for _, o := range k.Keys {
		if o.Saved {
			keys = append(keys, o.Key)
		}
	}
	return keys
}

func (s *Seal) writeKeyring(k keyring) error {
	b, err := json.Marshal(k)
	if err != nil {
		return err
	}
	if err := s.host.Files.WriteFile(slotTable, b, 0o400); err != nil {
		return fmt.Errorf("keeping which recovery key is where: %w", err)
	}
	return nil
}

// cryptenroll runs systemd-cryptenroll on device. Keys go by way of the environment,
// which root alone can read.
func (s *Seal) cryptenroll(ctx context.Context, device string, env []string, args ...string) error {
	c := sys.Command("systemd-cryptenroll", append(args, device)...)
	c.Env = env
	if _, err := s.host.Exec.Run(ctx, c); err != nil {
		return discreet(err)
	}
	return nil
}

// tidy takes away what a cut left of a key that was being added.
func (s *Seal) tidy(ctx context.Context, device string, h luks.Header, k *keyring) error {
	if k.Growing == nil {
		return nil
	}
	for _, slot := range h.Slots {
		known := slices.ContainsFunc(k.Keys, func(o opener) bool { return o.Slot == slot })
		if known || slices.Contains(k.Growing, slot) || h.Kind(slot) != "" {
			continue
		}
		if err := s.cryptenroll(ctx, device, nil, "--wipe-slot="+strconv.Itoa(slot)); err != nil {
			return fmt.Errorf("taking away a recovery key that was not added to its end: %w", err)
		}
	}
	k.Growing = nil
	return s.writeKeyring(*k)
}

// add gives root another recovery key. Every key that was there stays.
func (s *Seal) add(ctx context.Context, device string, k *keyring, key string) error {
	with, err := k.opens()
	if err != nil {
		return err
	}
	before, err := readHeader(s.host.Files, device)
	if err != nil {
		return err
	}
	k.Growing = before.Slots
	if err := s.writeKeyring(*k); err != nil {
		return err
	}
	if err := s.cryptenroll(ctx, device, []string{"PASSWORD=" + with, "NEWPASSWORD=" + key}, "--password"); err != nil {
		return fmt.Errorf("adding a recovery key to %s: %w", device, err)
	}
	after, err := readHeader(s.host.Files, device)
	if err != nil {
		return err
	}
	added := slices.DeleteFunc(slices.Clone(after.Slots), func(n int) bool { return slices.Contains(before.Slots, n) })
	if len(added) != 1 {
		return fmt.Errorf("adding a recovery key to %s: %d key slots are new; want 1", device, len(added))
	}
	if i := k.find(key); i >= 0 {
		k.Keys[i].Slot = added[0]
	} else {
		k.Keys = append(k.Keys, opener{added[0], false, api.Secret(key)})
	}
	k.Growing = nil
	return s.writeKeyring(*k)
}

// remove takes a key off root. One of those that stay becomes the machine's own if it
// was that.
func (s *Seal) remove(ctx context.Context, device string, k *keyring, i int) error {
	stays := slices.IndexFunc(k.Keys, func(o opener) bool { return o.Slot != noSlot && o.Slot != k.Keys[i].Slot })
	if stays < 0 {
		return errors.New("removing a recovery key: it is the last one that opens root")
	}
	own, err := s.ownKey()
	if err != nil {
		return err
	}
	if own == string(k.Keys[i].Key) {
		// The table first: what it does not know, it takes for a new one of the early boot's.
		if err := s.writeKeyring(*k); err != nil {
			return err
		}
		if err := s.host.Files.WriteFile(rootKey, []byte(string(k.Keys[stays].Key)+"\n"), 0o400); err != nil {
			return fmt.Errorf("keeping a recovery key: %w", err)
		}
	}
	if err := s.cryptenroll(ctx, device, nil, "--wipe-slot="+strconv.Itoa(k.Keys[i].Slot)); err != nil {
		return fmt.Errorf("removing a recovery key from %s: %w", device, err)
	}
	k.Keys[i].Slot = noSlot
	return s.writeKeyring(*k)
}
