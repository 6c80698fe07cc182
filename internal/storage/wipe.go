package storage

import (
	"context"
	"fmt"
	"log/slog"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys"
)

// zeroed is how much is overwritten before somebody is told, in bytes: a second's work
// of a fast drive, ten of a slow one.
const zeroed = 1 << 30

// CanWipe reports why a drive cannot be wiped, as an api.Error.
func (s *Storage) CanWipe(ctx context.Context, w api.StorageDriveWipe) error {
	if s.gone(w.ID) {
		return nil
	}
	_, err := s.spare(ctx, w.ID)
	return err
}

// Wipe takes away all that tells what a drive holds, and the key of an encrypted one;
// and, if that is asked for, all that it holds. Of an encrypted drive that is not there
// the key is forgotten. A cut leaves a drive that can be wiped again.
func (s *Storage) Wipe(ctx context.Context, w api.StorageDriveWipe, m Meter) error {
	s.drivesMu.Lock()
	defer s.drivesMu.Unlock()
	defer s.forget()
	if s.gone(w.ID) {
		return s.forgetKey(strings.TrimPrefix(w.ID, byID))
	}
	d, err := s.spare(ctx, w.ID)
	if err != nil {
		return err
	}
	return s.erase(ctx, d, w.SecureWipe, m)
}

// gone reports whether an id is that of an encrypted drive that is not there.
func (s *Storage) gone(id string) bool {
	name, ok := strings.CutPrefix(id, byID)
	return ok && name == path.Base(name) && s.host.Files.Exists(keyOf(name)) && !s.host.Files.Exists(id)
}

func (s *Storage) forgetKey(name string) error {
	if err := s.host.Files.RemoveAll(keyOf(name)); err != nil {
		return fmt.Errorf("forgetting the key of the drive %s: %w", byID+name, err)
	}
	return s.host.Files.SyncDir(keyDir)
}

// erase wipes a drive that is spare. The key goes last: as long as it is there, what
// the drive holds can be read.
func (s *Storage) erase(ctx context.Context, d sys.Disk, all bool, m Meter) error {
	if err := m.Phase("wiping"); err != nil {
		return err
	}
	name := nameOf(d)
	if err := s.shut(ctx, name); err != nil {
		return err
	}
	encrypted := s.host.Files.Exists(keyOf(name))
	if encrypted {
		if _, err := s.host.Exec.Run(ctx, sys.Command("cryptsetup", "erase", "--batch-mode", d.Path)); err != nil {
			slog.WarnContext(ctx, "Cannot take the keys off an encrypted drive; going on with wiping it", "drive", name, "err", err)
		}
	}
	for _, p := range slices.Backward(d.Partitions) {
		if err := s.wipefs(ctx, p.Path, d); err != nil {
			return err
		}
	}
	if err := s.wipefs(ctx, d.Path, d); err != nil {
		return err
	}
	if err := s.blank(ctx, d, all, m); err != nil {
		return err
	}
	if !encrypted {
		return nil
	}
	return s.forgetKey(name)
}

func (s *Storage) wipefs(ctx context.Context, device string, d sys.Disk) error {
	if _, err := s.host.Exec.Run(ctx, sys.Command("wipefs", "--all", "--force", device)); err != nil {
		return fmt.Errorf("wiping the drive %s: %w", driveID(d), err)
	}
	return nil
}

// blank tells a drive that nothing in it matters, or overwrites all of it. What a drive
// does when told is its own business, so that it is no answer to who wants to be sure.
func (s *Storage) blank(ctx context.Context, d sys.Disk, all bool, m Meter) error {
	if !all {
		if _, err := s.host.Exec.Run(ctx, sys.Command("blkdiscard", "--force", d.Path)); err != nil {
			slog.InfoContext(ctx, "The drive takes no word that its blocks are free", "drive", driveID(d), "err", err)
		}
		return nil
	}
	for at := uint64(0); at < d.Size; at += zeroed {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		m.Amount(at, d.Size)
		length := min(zeroed, d.Size-at)
		_, err := s.host.Exec.Run(ctx, sys.Command("blkdiscard", "--force", "--zeroout",
			"--offset", strconv.FormatUint(at, 10), "--length", strconv.FormatUint(length, 10), d.Path))
		if err != nil {
			return fmt.Errorf("overwriting the drive %s at byte %d: %w", driveID(d), at, err)
		}
	}
	return nil
}

// spare returns the drive of that id if nothing uses it.
func (s *Storage) spare(ctx context.Context, id string) (sys.Disk, error) {
	d, err := s.driveBy(id)
	if err != nil {
		return d, err
	}
	boot, err := s.bootDisk()
	if err != nil {
		return d, err
	}
	if d.Name == boot.Name {
		return d, api.Errorf(api.Conflict, "the drive %s holds the system; only a factory reset or a new installation wipes it", id)
	}
	if d.ReadOnly {
		return d, api.Errorf(api.Conflict, "the drive %s cannot be written to", id)
	}
	state, err := s.State(ctx)
	if err != nil {
		return d, err
	}
	for _, known := range state.Drives {
		if known.ID == driveID(d) && known.MemberPool != "" {
			return d, api.Errorf(api.Conflict, "the drive %s is part of the pool %q; delete the pool, or take the drive out of it, first", id, known.MemberPool)
		}
	}
	if user := s.user(d); user != "" {
		return d, api.Errorf(api.Conflict, "the drive %s is in use: %s", id, user)
	}
	return d, nil
}

// driveBy returns the drive that any of its lasting names leads to.
func (s *Storage) driveBy(id string) (sys.Disk, error) {
	name, ok := strings.CutPrefix(id, byID)
	if !ok || name == "" {
		return sys.Disk{}, api.Fieldf("id", "%q is no name of a drive; want one that starts with %s, as `system storage show` lists them", id, byID)
	}
	disks, err := sys.Disks(s.host.Files)
	if err != nil {
		return sys.Disk{}, err
	}
	i := slices.IndexFunc(disks, func(d sys.Disk) bool { return slices.Contains(d.IDs, name) })
	if i < 0 {
		return sys.Disk{}, api.Errorf(api.NotFound, "there is no drive %s; `system storage show` lists those there are", id)
	}
	return disks[i], nil
}

// user says what has a drive, or a part of it, open: a device that is made of it, or
// whoever mounted it or swaps to it. It is "" for nobody. An opened drive of ours is
// none: closing it tells whether that is in use.
func (s *Storage) user(d sys.Disk) string {
	devices := []string{d.Path}
	dirs := []string{"/sys/block/" + d.Name + "/holders"}
	for _, p := range d.Partitions {
		devices = append(devices, p.Path)
		dirs = append(dirs, "/sys/block/"+d.Name+"/"+p.Name+"/holders")
	}
	for _, dir := range dirs {
		entries, _ := s.host.Files.ReadDir(dir) // a device without holders has no such directory on a pretend machine
		for _, e := range entries {
			label := s.label(e.Name())
			if label != opened+nameOf(d) {
				return "the device " + label + " is made of it"
			}
		}
	}
	for file, does := range map[string]string{"/proc/self/mounts": "mounted at ", "/proc/swaps": "swap, as a "} {
		b, _ := s.host.Files.ReadFile(file)
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) > 1 && slices.Contains(devices, f[0]) {
				return f[0] + " is " + does + f[1]
			}
		}
	}
	return ""
}

// label is what the device mapper calls a device, or what the kernel does.
func (s *Storage) label(device string) string {
	b, err := s.host.Files.ReadFile("/sys/block/" + device + "/dm/name")
	if err != nil {
		return device
	}
	return strings.TrimSpace(string(b))
}
