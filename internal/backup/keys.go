package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys"
)

const (
	localKey = "zpool.local.key"
	keySize  = 32 // bytes of a pool's key, as the area storage makes them

	// triedKey is where a key lies while it is tried. /run is in memory.
	triedKey = "/run/incus-os/restore.key"
)

// keys returns the keys of an archive that take the place of those there are. A
// key that this machine has opens something here, and would be lost: another of
// its name is taken only if it is seen to fit the pool. Keys that the archive
// lacks stay as well.
//
// Recovery keys always stay. That of root is in a key slot of the disk, and
// another in its file would be one that the operator writes down and that opens
// nothing.
func (b *Backup) keys(ctx context.Context, files, have map[string][]byte, skip []string) (map[string][]byte, error) {
	put := make(map[string][]byte)
	for _, file := range slices.Sorted(maps.Keys(files)) {
		pool, isPool := strings.CutPrefix(strings.TrimSuffix(file, ".key"), "zpool.")
		switch {
		case !isKey(file), strings.HasPrefix(file, "recovery."), bytes.Equal(have[file], files[file]):
			continue
		case file == localKey && slices.Contains(skip, skipLocalKey):
			continue
		}
		if err := b.sound(file, files[file]); err != nil {
			return nil, api.Errorf(api.Invalid, "%s of the backup: %v", file, err)
		}
		take := have[file] == nil
		if !take && isPool {
			var err error
			if take, err = b.fits(ctx, pool, files[file]); err != nil {
				return nil, err
			}
		}
		if !take {
			slog.InfoContext(ctx, "A key of the backup is for something else than what is here; this machine's stays", "key", file)
			continue
		}
		put[file] = files[file]
	}
	return put, nil
}

// fits reports whether key opens the pool as it is now. Nothing is opened
// (zfs-load-key(8): -n only checks the key, also of a pool that is open).
func (b *Backup) fits(ctx context.Context, pool string, key []byte) (fits bool, err error) {
	if err := b.host.Files.WriteFile(triedKey, key, 0o600); err != nil {
		return false, fmt.Errorf("trying the key of pool %q: %w", pool, err)
	}
	defer func() { err = errors.Join(err, b.host.Files.Remove(triedKey)) }()
	_, err = b.host.Exec.Run(ctx, sys.Command("zfs", "load-key", "-n", "-L", "file://"+triedKey, pool))
	if _, refused := errors.AsType[*sys.ExecError](err); refused {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("trying the key of pool %q: %w", pool, err)
	}
	return true, nil
}
