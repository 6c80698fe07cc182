package rest

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// serviceNames are the services clients know. None is there to be enabled yet,
// but incusd must be told so: it takes any other answer for a broken system.
const serviceNames = "ceph iscsi linstor lvm multipath netbird nvme ovn tailscale usbip"

// A serviceDocument is the part of a service's document that all have.
type serviceDocument struct {
	Config struct {
		Enabled bool `json:"enabled"`
	} `json:"config"`
	State struct{} `json:"state"`
}

// service asks nobody: incusd waits for it while it starts.
func service(r *http.Request) (any, error) {
	name := r.PathValue("name")
	if !slices.Contains(strings.Fields(serviceNames), name) {
		return nil, fmt.Errorf("service %q: %w; known are %s", name, errNotFound, serviceNames)
	}
	return serviceDocument{}, nil
}
