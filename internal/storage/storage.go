// Package storage owns the drives, those that are encrypted, and the ZFS pool "local".
//
// The pool lies on the partition local-data of the drive the machine booted
// from, encrypted with a key of its own on the encrypted root file system. The
// files are cut so that each can be read alone:
//
//	storage.go  Plan and Apply: what is missing, one step after another
//	probe.go    where the partition is and what it holds     (reads only)
//	zfs.go      the JSON of zpool and zfs                    (pure)
//	state.go    drives, pools and the root file system for GET
//	recent.go   remembering that for a moment
//	crypt.go    drives that are encrypted as a whole, and opened at each start
//	wipe.go     which drives are spare, and wiping them
//
// Nothing of this destroys but what somebody asks to have wiped or encrypted: a pool is created only on a partition without a known
// signature, and whatever else is found there is reported and left alone. The
// order is the safety: the key is on disk before a pool needs it, and a note is
// on disk while the pool is being created, so that a half-made pool can be told
// from a damaged one.
//
// What is below the pool belongs to Incus; see internal/apps.
package storage

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/incusos/incusos/internal/sys"
)

const (
	pool     = "local"
	keyDir   = "/var/lib/incus-os"
	keyFile  = keyDir + "/zpool." + pool + ".key"
	noteFile = keyDir + "/zpool." + pool + ".creating"
	keySize  = 32 // bytes, for aes-256-gcm with keyformat=raw
	module   = "/sys/module/zfs"
)

// maxSteps ends Apply when steps succeed and yet nothing changes.
const maxSteps = 10

// Storage brings one machine's pool into being and reports its storage.
type Storage struct {
	host     sys.Host
	recent   *recent
	drivesMu sync.Mutex // held while a drive is opened, closed, encrypted or wiped
}

// New returns the storage of host.
func New(host sys.Host) *Storage { return &Storage{host: host, recent: newRecent()} }

// Name is the area's name in health reports.
func (s *Storage) Name() string { return "storage" }

// Reconcile opens the encrypted drives and makes the pool usable; see Apply. Drives
// that cannot be opened keep nobody from the pool.
func (s *Storage) Reconcile(ctx context.Context) error {
	return errors.Join(s.openDrives(ctx), s.Apply(ctx))
}

// A Plan is the next thing to do. Later steps depend on what it finds, so there
// is never more than one. The zero Plan means that there is nothing to do.
type Plan struct {
	text string
	run  func(context.Context) error
}

// Empty reports whether the pool is imported and unlocked.
func (p Plan) Empty() bool { return p.run == nil }

// String is the step as a line, or nothing.
func (p Plan) String() string {
	if p.Empty() {
		return ""
	}
	return p.text + "\n"
}

// Apply takes steps until the pool is imported, unlocked and healthy. After an
// interruption at any point, applying again continues.
func (s *Storage) Apply(ctx context.Context) error {
	for range maxSteps {
		p, err := s.Plan(ctx)
		if err != nil {
			return err
		}
		if p.Empty() {
			return s.healthy(ctx)
		}
		err = p.run(ctx)
		s.forget()
		if err != nil {
			return err
		}
	}
	return fmt.Errorf("pool %q is not ready after %d steps; the log of zpool tells more", pool, maxSteps)
}

// Plan returns the next step, or an error that says what stands in its way.
func (s *Storage) Plan(ctx context.Context) (Plan, error) {
	if !s.loaded() {
		return Plan{"load the ZFS module", s.loadModule}, nil
	}
	pools, err := s.pools(ctx)
	if err != nil {
		return Plan{}, err
	}
	if _, ok := pools[pool]; ok {
		return s.planImported(ctx)
	}
	return s.planAbsent(ctx)
}

func (s *Storage) planImported(ctx context.Context) (Plan, error) {
	if s.host.Files.Exists(noteFile) {
		return Plan{"forget that the pool was being created", s.removeNote}, nil
	}
	datasets, err := s.datasets(ctx)
	if err != nil {
		return Plan{}, err
	}
	if datasets[pool].Properties.KeyStatus.Value != "unavailable" {
		return Plan{}, nil
	}
	have, err := s.haveKey()
	if err != nil {
		return Plan{}, err
	}
	if !have {
		return Plan{}, fmt.Errorf("pool %q is encrypted and its key %s is missing; restore a backup of the system, or import the pool with its recovery key", pool, keyFile)
	}
	return Plan{"load the key of pool local", s.loadKey}, nil
}

func (s *Storage) planAbsent(ctx context.Context) (Plan, error) {
	device, err := s.device()
	if err != nil {
		return Plan{}, err
	}
	found, err := s.probe(ctx, device)
	if err != nil {
		return Plan{}, err
	}
	if found.kind == holdsPool {
		return Plan{"import pool local from " + device, s.importFrom(device)}, nil
	}
	half := found.kind == holdsHalf && s.host.Files.Exists(noteFile)
	if found.kind != holdsNothing && !half {
		return Plan{}, fmt.Errorf("%s holds %s and is left alone; wipe it to let pool %q be created there", device, found.text, pool)
	}
	return s.planCreate(device, half)
}

// planCreate creates the pool in three steps. half says that an earlier attempt
// was cut and may be overwritten.
func (s *Storage) planCreate(device string, half bool) (Plan, error) {
	have, err := s.haveKey()
	if err != nil {
		return Plan{}, err
	}
	if !have {
		return Plan{"make a key for pool local", s.makeKey}, nil
	}
	if !s.host.Files.Exists(noteFile) {
		return Plan{"note that the pool is being created", s.writeNote}, nil
	}
	return Plan{"create pool local on " + device, s.create(device, half)}, nil
}

// haveKey reports whether the key file is there and whole.
func (s *Storage) haveKey() (bool, error) {
	b, err := s.host.Files.ReadFile(keyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading the key of pool %q: %w", pool, err)
	}
	if len(b) != keySize {
		return false, fmt.Errorf("%s has %d bytes, a key has %d; restore it from a backup of the system", keyFile, len(b), keySize)
	}
	return true, nil
}

func (s *Storage) loadModule(ctx context.Context) error {
	if _, err := s.host.Exec.Run(ctx, sys.Command("modprobe", "zfs")); err != nil {
		return fmt.Errorf("loading the ZFS module: %w", err)
	}
	if !s.loaded() {
		return fmt.Errorf("loading the ZFS module: modprobe says it did, and %s does not", module)
	}
	return nil
}

// loaded reports whether the ZFS module is ready. It shows up in sysfs a while
// before that; modprobe waits for one that is being loaded by somebody else.
func (s *Storage) loaded() bool {
	b, err := s.host.Files.ReadFile(module + "/initstate")
	if err != nil {
		return s.host.Files.Exists(module) // built into the kernel
	}
	return strings.TrimSpace(string(b)) == "live"
}

func (s *Storage) makeKey(context.Context) error {
	key := make([]byte, keySize)
	if _, err := rand.Read(key); err != nil {
		return fmt.Errorf("making a key for pool %q: %w", pool, err)
	}
	if err := s.host.Files.MkdirAll(keyDir, 0o700); err != nil {
		return fmt.Errorf("making the directory of keys: %w", err)
	}
	if err := s.host.Files.WriteFile(keyFile, key, 0o400); err != nil {
		return fmt.Errorf("saving the key of pool %q: %w", pool, err)
	}
	return nil
}

func (s *Storage) writeNote(context.Context) error {
	if err := s.host.Files.WriteFile(noteFile, nil, 0o600); err != nil {
		return fmt.Errorf("noting that pool %q is being created: %w", pool, err)
	}
	return nil
}

func (s *Storage) removeNote(context.Context) error {
	if err := s.host.Files.Remove(noteFile); err != nil {
		return fmt.Errorf("noting that pool %q is created: %w", pool, err)
	}
	return s.host.Files.SyncDir(keyDir)
}

func (s *Storage) create(device string, half bool) func(context.Context) error {
	args := []string{
		"create", "-o", "ashift=12", "-O", "mountpoint=none",
		"-O", "encryption=aes-256-gcm", "-O", "keyformat=raw", "-O", "keylocation=file://" + keyFile,
		"-O", "compression=on", "-O", "atime=off",
	}
	if half {
		args = append(args, "-f")
	}
	args = append(args, pool, device)
	return func(ctx context.Context) error {
		if _, err := s.host.Exec.Run(ctx, sys.Command("zpool", args...)); err != nil {
			return fmt.Errorf("creating pool %q on %s: %w", pool, device, err)
		}
		return nil
	}
}

func (s *Storage) importFrom(device string) func(context.Context) error {
	return func(ctx context.Context) error {
		if _, err := s.host.Exec.Run(ctx, sys.Command("zpool", "import", "-N", "-d", device, pool)); err != nil {
			return fmt.Errorf("importing pool %q from %s: %w", pool, device, err)
		}
		return nil
	}
}

func (s *Storage) loadKey(ctx context.Context) error {
	if _, err := s.host.Exec.Run(ctx, sys.Command("zfs", "load-key", pool)); err != nil {
		return fmt.Errorf("unlocking pool %q with %s: %w", pool, keyFile, err)
	}
	return nil
}

// healthy complains about every pool that is not as redundant as it should be.
func (s *Storage) healthy(ctx context.Context) error {
	pools, err := s.pools(ctx)
	if err != nil {
		return err
	}
	var sick []string
	for _, name := range slices.Sorted(maps.Keys(pools)) {
		if state := pools[name].State; state != "ONLINE" {
			sick = append(sick, fmt.Sprintf("pool %q is %s; `incus admin os system storage show` lists the devices to replace", name, state))
		}
	}
	if sick != nil {
		return errors.New(strings.Join(sick, "; "))
	}
	return nil
}
