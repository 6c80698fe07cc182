package storage

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys"
)

// A drive that is encrypted is LUKS2 from its first block on. The key is on root, and
// is what GET of security shows, and a backup holds. An opened drive is a device of
// its own, which pools are made of.
const (
	driveKeys = keyDir + "/luks."
	keySuffix = ".key"
	unproven  = ".new" // of the file of a key that no drive may have yet
	opened    = "luks-"
	mapper    = "/dev/mapper/"
)

// A Meter is told how far something is that takes long, and an error it returns ends
// that.
type Meter interface {
	Phase(name string) error
	Amount(done, total uint64)
}

// CanEncrypt reports why a drive cannot be encrypted, as an api.Error.
func (s *Storage) CanEncrypt(ctx context.Context, w api.StorageDriveWipe) error {
	d, err := s.spare(ctx, w.ID)
	if err != nil {
		return err
	}
	if s.host.Files.Exists(keyOf(nameOf(d))) {
		return api.Errorf(api.Conflict, "the drive %s is encrypted already; wipe it first to have it encrypted with another key", driveID(d))
	}
	return nil
}

// Encrypt makes an encrypted drive of one that is spare, and opens it. What it held is
// lost. A cut leaves a drive that counts as not encrypted, or one that is; doing it
// again goes on.
func (s *Storage) Encrypt(ctx context.Context, w api.StorageDriveWipe, m Meter) error {
	s.drivesMu.Lock()
	defer s.drivesMu.Unlock()
	defer s.forget()
	d, err := s.spare(ctx, w.ID)
	if err != nil {
		return err
	}
	name := nameOf(d)
	if s.host.Files.Exists(keyOf(name)) {
		return s.open(ctx, name) // it was cut after the drive had its key
	}
	if err := s.erase(ctx, d, w.SecureWipe, m); err != nil {
		return err
	}
	if err := m.Phase("encrypting"); err != nil {
		return err
	}
	if err := s.format(ctx, d, name); err != nil {
		return err
	}
	return s.open(ctx, name)
}

// format gives a drive a new key, which counts once the drive has it: a key of
// nothing would be one that somebody writes down.
func (s *Storage) format(ctx context.Context, d sys.Disk, name string) (err error) {
	key := make([]byte, keySize)
	if _, err := rand.Read(key); err != nil {
		return fmt.Errorf("making a key for the drive %s: %w", byID+name, err)
	}
	file := keyOf(name) + unproven
	if err := s.host.Files.WriteFile(file, key, 0o400); err != nil {
		return fmt.Errorf("saving the key of the drive %s: %w", byID+name, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.host.Files.RemoveAll(file))
		}
	}()
	// The key is as random as can be, so that deriving another one from it slowly
	// protects nothing.
	_, err = s.host.Exec.Run(ctx, sys.Command("cryptsetup", "luksFormat", "--batch-mode", "--type", "luks2",
		"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", file, d.Path))
	if err != nil {
		return fmt.Errorf("encrypting the drive %s: %w", byID+name, err)
	}
	return s.keep(file, name)
}

// keep makes a key count, now that it opens the drive.
func (s *Storage) keep(file, name string) error {
	if err := s.host.Files.Rename(file, keyOf(name)); err != nil {
		return fmt.Errorf("saving the key of the drive %s: %w", byID+name, err)
	}
	return s.host.Files.SyncDir(keyDir)
}

// Import opens a drive that was encrypted elsewhere, and keeps its key.
func (s *Storage) Import(ctx context.Context, i api.StorageDriveImport) (err error) {
	s.drivesMu.Lock()
	defer s.drivesMu.Unlock()
	defer s.forget()
	key, err := base64.StdEncoding.DecodeString(string(i.Key))
	if err != nil || len(key) != keySize {
		return api.Fieldf("key", "is no key of a drive; want %d bytes in base64, as `system security show` prints them on the machine it comes from", keySize)
	}
	d, err := s.spare(ctx, i.ID)
	if err != nil {
		return err
	}
	name := nameOf(d)
	if s.host.Files.Exists(keyOf(name)) {
		return api.Errorf(api.Conflict, "the drive %s is there already, with the key that is kept of it", byID+name)
	}
	file := keyOf(name) + unproven
	if err := s.host.Files.WriteFile(file, key, 0o400); err != nil {
		return fmt.Errorf("saving the key of the drive %s: %w", byID+name, err)
	}
	if err := s.fits(ctx, d, file); err != nil {
		return errors.Join(err, s.host.Files.RemoveAll(file))
	}
	if err := s.keep(file, name); err != nil {
		return err
	}
	return s.open(ctx, name)
}

// fits reports why the key in a file does not open a drive.
func (s *Storage) fits(ctx context.Context, d sys.Disk, file string) error {
	_, err := s.host.Exec.Run(ctx, sys.Command("cryptsetup", "open", "--test-passphrase", "--type", "luks2", "--key-file", file, d.Path))
	exit, refused := errors.AsType[*sys.ExecError](err)
	switch {
	case err == nil:
		return nil
	case refused && exit.Code == 2: // cryptsetup(8): no permission, which is a wrong key
		return api.Errorf(api.Invalid, "key: does not open the drive %s; want the one that the machine it comes from kept", driveID(d))
	case refused && exit.Code == 1:
		return api.Errorf(api.Invalid, "the drive %s is not encrypted with LUKS2; to have that done, use encrypt-drive", driveID(d))
	}
	return fmt.Errorf("trying the key of the drive %s: %w", driveID(d), err)
}

// openDrives opens every drive whose key is kept. One that is gone is complained of
// for as long as its key is there: something may be on it.
func (s *Storage) openDrives(ctx context.Context) error {
	entries, err := s.host.Files.ReadDir(keyDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listing the keys of drives: %w", err)
	}
	s.drivesMu.Lock()
	defer s.drivesMu.Unlock()
	var errs []error
	for _, e := range entries {
		name, isDrive := strings.CutPrefix(keyDir+"/"+e.Name(), driveKeys)
		name, isKey := strings.CutSuffix(name, keySuffix)
		if isDrive && isKey {
			errs = append(errs, s.open(ctx, name))
		}
	}
	return errors.Join(errs...)
}

func (s *Storage) open(ctx context.Context, name string) error {
	if s.host.Files.Exists(mapper + opened + name) {
		return nil
	}
	if !s.host.Files.Exists(byID + name) {
		return fmt.Errorf("the encrypted drive %s is not there; connect it, or wipe it by this name to have its key forgotten", byID+name)
	}
	defer s.forget()
	slog.InfoContext(ctx, "Opening an encrypted drive", "drive", name)
	_, err := s.host.Exec.Run(ctx, sys.Command("cryptsetup", "open", "--type", "luks2", "--key-file", keyOf(name), byID+name, opened+name))
	if err != nil {
		return fmt.Errorf("opening the encrypted drive %s with %s: %w", byID+name, keyOf(name), err)
	}
	return nil
}

// shut closes a drive again; one that is not open already is.
func (s *Storage) shut(ctx context.Context, name string) error {
	if !s.host.Files.Exists(mapper + opened + name) {
		return nil
	}
	if _, err := s.host.Exec.Run(ctx, sys.Command("cryptsetup", "close", opened+name)); err != nil {
		return api.Errorf(api.Conflict, "the encrypted drive %s cannot be closed, something uses it: %v", byID+name, err)
	}
	return nil
}

func keyOf(name string) string { return driveKeys + name + keySuffix }

func nameOf(d sys.Disk) string { return strings.TrimPrefix(driveID(d), byID) }
