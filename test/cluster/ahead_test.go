//go:build vm

package cluster_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/incusos/incusos/api"
)

// ahead has the machines update to a version whose Incus has a newer database: it serves
// nothing before all members have it. Debian has one Incus, so that the others are made
// older: each is as new as all again when it is started anew.
func ahead(t *testing.T, machines []*machine, s *site) {
	s.publish(t, newer)
	for _, m := range machines {
		m.looks(t)
	}
	var waiting []string
	old := slices.Clone(machines)
	for len(old) > 1 {
		m := restarting(t, old)
		old = slices.DeleteFunc(old, func(o *machine) bool { return o == m })
		m.off(t)
		if len(waiting) == 0 {
			old[0].incus(t, "", "admin", "sql", "global", "UPDATE nodes SET schema = schema - 1, api_extensions = api_extensions - 1 WHERE name <> '"+m.name+"'")
		}
		m.on(t)
		waiting = append(waiting, m.name)
		eventually(t, 4*time.Minute, m.name+" to wait for the others", func() error { return wait(t, machines, waiting) })
		if u, err := m.osd().Update().Get(t.Context()); err != nil || u.State.Phase != "" || len(u.State.Failed) != 0 {
			t.Errorf("%s waits, and its updates are %+v (%v); want the version to be found good", m.name, u.State, err)
		}
		if err := m.serves(t); err == nil {
			t.Errorf("the Incus of %s serves, though others are older", m.name)
		}
	}
	// Incus asks the member that has an instance for it, and those that wait do not answer.
	at := old[0].incus(t, "", "admin", "sql", "global", "SELECT nodes.name FROM instances JOIN nodes ON nodes.id = instances.node_id WHERE instances.name = 'kept'")
	if strings.Contains(at, "node2") != (waiting[0] != "node2") {
		t.Errorf("%q wait, and the instance of node2 is on\n%s\nwant it moved for the first one alone", waiting, at)
	}
	last := restarting(t, old)
	last.off(t)
	last.on(t)
	for _, m := range machines {
		eventually(t, 5*time.Minute, m.name+" to be back", func() error {
			m.revive(t)
			return m.back(t, newer)
		})
	}
	eventually(t, time.Minute, "all to be there", func() error { return all(t.Context(), machines, "Online") })
	if left := machines[1].written(t).Config[boardKey]; left != "" {
		t.Errorf("the board still says %s", left)
	}
}

// wait expects every machine to show that some wait, and none but those.
func wait(t *testing.T, machines []*machine, names []string) error {
	for _, m := range machines {
		s := m.clusterState(t)
		var got []string
		for _, r := range s.Turns {
			if r.Phase == api.RollingWaiting && r.Version == newer {
				got = append(got, r.Member)
			}
		}
		slices.Sort(got)
		if want := slices.Sorted(slices.Values(names)); !slices.Equal(got, want) || s.Member != m.name || s.Paused != "" {
			return fmt.Errorf("%s shows %+v; want %q to wait", m.name, s, want)
		}
	}
	return nil
}
