package daemon

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/change"
	"github.com/incusos/incusos/internal/network"
	"github.com/incusos/incusos/internal/service"
	"github.com/incusos/incusos/internal/sys"
)

// wireServices returns the services of a machine, with what the seed asks for as
// the documents of those that have none.
func wireServices(m sys.Host, gate *change.Gate, n *network.Network, seed First, seedErr *error) *service.Services {
	s := service.New(m, service.Options{Gate: gate, Cluster: func() []string { return clusterAddresses(n) }})
	*seedErr = errors.Join(*seedErr, s.Seed(seed.Services))
	return s
}

// clusterAddresses returns the machine's addresses on interfaces with the role
// cluster. Areas do not ask each other.
func clusterAddresses(n *network.Network) []string {
	state, err := n.State(context.Background()) // bounded by itself
	if err != nil {
		return nil
	}
	var all []string
	for _, name := range slices.Sorted(maps.Keys(state.Interfaces)) {
		if i := state.Interfaces[name]; slices.Contains(i.Roles, "cluster") {
			all = append(all, i.Addresses...)
		}
	}
	return all
}

// withServices adds the documents of services to those of a backup.
func withServices(documents map[string]func([]byte) error) map[string]func([]byte) error {
	for name, check := range map[string]func([]byte) error{
		"ceph":      loads[api.ServiceCephConfig],
		"iscsi":     loads[api.ServiceISCSIConfig],
		"linstor":   loads[api.ServiceLinstorConfig],
		"lvm":       loads[api.ServiceLVMConfig],
		"multipath": loads[api.ServiceMultipathConfig],
		"netbird":   loads[api.ServiceNetbirdConfig],
		"nvme":      loads[api.ServiceNVMEConfig],
		"ovn":       loads[api.ServiceOVNConfig],
		"tailscale": loads[api.ServiceTailscaleConfig],
		"usbip":     loads[api.ServiceUSBIPConfig],
	} {
		documents["service-"+name] = check
	}
	return documents
}
