package service

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/incusos/incusos/api"
)

// ceph makes the machine a client of Ceph clusters: it writes the files that
// Ceph's programs look for, and Incus calls those.
type ceph struct {
	machine
	status cache[*api.ServiceCephState]
}

func newCeph(m machine) *ceph { return &ceph{machine: m} }

const cephDir = "/etc/ceph/"

// renderCeph returns the files of all clusters.
func renderCeph(config api.ServiceCephConfig) map[string]file {
	files := make(map[string]file)
	for name, c := range config.Clusters {
		var b strings.Builder
		fmt.Fprintf(&b, "# Made by incus-osd; do not edit.\n[global]\nfsid = %s\nmon_host = %s\n", c.FSID, strings.Join(c.Monitors, ","))
		if len(c.ClientConfig) > 0 {
			b.WriteString("\n[client]\n")
		}
		for _, key := range slices.Sorted(maps.Keys(c.ClientConfig)) {
			fmt.Fprintf(&b, "%s = %s\n", key, c.ClientConfig[key])
		}
		files[cephDir+name+".conf"] = file{content: b.String(), perm: 0o644}
		for user, k := range c.Keyrings {
			files[cephDir+name+".client."+user+".keyring"] = file{content: fmt.Sprintf("[client.%s]\n\tkey = %s\n", user, string(k.Key)), perm: 0o600}
		}
	}
	return files
}

func (s *ceph) steps(ctx context.Context, config api.ServiceCephConfig, on bool) ([]step, error) {
	base := setup{key: "ceph", owned: []string{cephDir + "*.conf", cephDir + "*.keyring"}}
	if !on {
		return s.lower(ctx, base)
	}
	base.files = renderCeph(config)
	return s.raise(ctx, base)
}

func (s *ceph) check(api.ServiceCephConfig) error { return nil }

// refresh asks the first cluster how it is, as the first user of it.
func (s *ceph) refresh(ctx context.Context, config api.ServiceCephConfig) {
	names := slices.Sorted(maps.Keys(config.Clusters))
	if !config.On() || !s.has("ceph") || len(names) == 0 {
		s.status.put(nil)
		return
	}
	args := []string{"--cluster", names[0], "--connect-timeout", "4", "status", "--format=json"}
	if users := slices.Sorted(maps.Keys(config.Clusters[names[0]].Keyrings)); len(users) > 0 && !slices.Contains(users, "admin") {
		args = append([]string{"--name", "client." + users[0]}, args...)
	}
	out, err := s.run(ctx, "ceph", args...)
	if err != nil {
		return // the state of before stays, with its time
	}
	if state, err := parseCeph(out); err == nil {
		s.status.put(&state)
	}
}

// parseCeph reads what `ceph status --format=json` prints.
func parseCeph(out []byte) (api.ServiceCephState, error) {
	var state api.ServiceCephState
	if err := json.Unmarshal(out, &state); err != nil {
		return state, fmt.Errorf("reading the status of the cluster: %w", err)
	}
	state.ServiceState = api.ServiceState{} // ours
	return state, nil
}

func (s *ceph) document(config api.ServiceCephConfig, state api.ServiceState) any {
	doc := api.ServiceCeph{Config: config, State: api.ServiceCephState{ServiceState: state}}
	if status, observed := s.status.get(); status != nil {
		doc.State = *status
		doc.State.ServiceState = state
		doc.State.Observed = observed
	}
	return doc
}
