package storage

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys"
)

// fresh is how long what was found is told again. Looking takes three programs
// and a thousand files where there are a hundred drives, and pages that watch a
// machine ask every few seconds.
const fresh = 10 * time.Second

// recent is what was found last. Its turn is held by whoever looks: others that
// ask meanwhile wait for what that finds.
type recent struct {
	changes atomic.Uint64 // made so far
	turn    chan struct{}

	state api.SystemStorageState // this and what follows is for the one who has the turn
	signs string                 // of what it was found
	at    time.Time
}

func newRecent() *recent { return &recent{turn: make(chan struct{}, 1)} }

// forget has State look again. It is called after every change.
func (s *Storage) forget() { s.recent.changes.Add(1) }

// State reports drives, pools and the root file system. Figures of drives and
// pools may be ten seconds old; a drive that came or went and a pool that got
// into trouble are seen at once. Callers must not change what is in it.
func (s *Storage) State(ctx context.Context) (api.SystemStorageState, error) {
	signs := s.signs()
	select {
	case s.recent.turn <- struct{}{}:
		defer func() { <-s.recent.turn }()
	case <-ctx.Done():
		return api.SystemStorageState{}, fmt.Errorf("waiting for the state of the storage: %w", context.Cause(ctx))
	}
	if r := s.recent; r.signs != signs || time.Since(r.at) > fresh {
		state, err := s.look(ctx)
		if err != nil {
			return api.SystemStorageState{}, err
		}
		r.state, r.signs, r.at = state, signs, time.Now()
	}
	state := s.recent.state
	size, free, err := s.host.Mounts.Usage("/")
	state.RootPartition = api.RootPartition{Size: size, Available: free}
	return state, err
}

// signs is the little that tells whether anything is different: which devices
// there are, by all their names, what the kernel says of the pools, and whether
// anything was changed.
func (s *Storage) signs() string {
	var b strings.Builder
	fmt.Fprintln(&b, s.recent.changes.Load())
	for _, dir := range []string{"/sys/block", "/dev/disk/by-id"} {
		entries, _ := s.host.Files.ReadDir(dir) // look says what is wrong
		for _, e := range entries {
			b.WriteString(e.Name() + " ")
		}
		b.WriteString("\n")
	}
	const pools = "/proc/spl/kstat/zfs"
	entries, _ := s.host.Files.ReadDir(pools) // without the module there is none
	for _, e := range entries {
		if state, err := s.host.Files.ReadFile(pools + "/" + e.Name() + "/state"); err == nil {
			fmt.Fprintf(&b, "%s %s\n", e.Name(), state)
		}
	}
	return b.String()
}

// look finds out about drives and pools. Without the ZFS module there are no
// pools.
func (s *Storage) look(ctx context.Context) (api.SystemStorageState, error) {
	disks, err := sys.Disks(s.host.Files)
	if err != nil {
		return api.SystemStorageState{}, err
	}
	pools := []api.StoragePool{}
	if s.loaded() {
		if pools, err = s.statePools(ctx, disks); err != nil {
			return api.SystemStorageState{}, err
		}
	}
	return api.SystemStorageState{Drives: s.drives(disks, pools), Pools: pools}, nil
}
