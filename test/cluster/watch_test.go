//go:build vm

package cluster_test

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/incusos/incusos/api"
)

// A watcher looks at the cluster all the time, by way of whichever member answers.
type watcher struct {
	stop context.CancelFunc
	done sync.WaitGroup

	most   int      // members that were not online, at a time
	left   []string // members that were evacuated, in that order
	phases map[string][]api.RollingPhase
}

func watch(t *testing.T, machines []*machine) *watcher {
	ctx, stop := context.WithCancel(t.Context())
	w := &watcher{stop: stop, phases: make(map[string][]api.RollingPhase)}
	w.done.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			w.look(ctx, machines[i%len(machines)])
			time.Sleep(300 * time.Millisecond)
		}
	})
	return w
}

// look takes in what one member says; one that is off says nothing.
func (w *watcher) look(ctx context.Context, m *machine) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	members, err := m.members(ctx)
	if err != nil {
		return
	}
	away := 0
	for name, status := range members {
		if status == "Online" {
			continue
		}
		away++
		if status == "Evacuated" && !slices.Contains(w.left, name) {
			w.left = append(w.left, name)
		}
	}
	w.most = max(w.most, away)
	var c configuration
	if _, err := m.door().Get(ctx, project, &c); err != nil {
		return
	}
	var board struct {
		Turns []api.RollingTurn `json:"turns"`
	}
	if c.Config[boardKey] == "" || json.Unmarshal([]byte(c.Config[boardKey]), &board) != nil {
		return
	}
	for _, turn := range board.Turns {
		if !slices.Contains(w.phases[turn.Member], turn.Phase) {
			w.phases[turn.Member] = append(w.phases[turn.Member], turn.Phase)
		}
	}
}

func (w *watcher) end(t *testing.T) {
	t.Helper()
	w.stop()
	w.done.Wait()
	t.Logf("they left in the order %v", w.left)
}
