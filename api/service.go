package api

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// A Service is the part of the document of /os/1.0/services/NAME that all have.
type Service struct {
	Config ServiceConfig `json:"config"`
	State  ServiceState  `json:"state"`
}

// ServiceConfig is the part of a service's configuration that all have.
type ServiceConfig struct {
	Enabled bool `json:"enabled"`
}

// On reports whether the service is to run.
func (c ServiceConfig) On() bool { return c.Enabled }

// ServiceState is the part of a service's state that all have.
type ServiceState struct {
	Error    string `json:"error,omitempty"`    // why it is not as configured; "" it is
	Observed string `json:"observed,omitempty"` // RFC 3339; when what a program said was asked for last. What has no such source is as of now
}

// ServiceNames lists the services in the order they start in: disks that are
// reached over the network come before what is made of them.
func ServiceNames() []string {
	return []string{"ceph", "iscsi", "linstor", "netbird", "nvme", "multipath", "lvm", "ovn", "tailscale", "usbip"}
}

// hostField refuses what is neither an IP address nor a host name. Nothing else
// may reach the command line of a program.
func hostField(field, value string) error {
	ip, err := netip.ParseAddr(value)
	if err != nil && !domain(value) || ip.Zone() != "" && !deviceName(ip.Zone()) {
		return Fieldf(field, "%q is no IP address or host name; want one such as %q", value, "192.0.2.20")
	}
	return nil
}

// portField refuses what is no TCP port. Zero stands for the usual one.
func portField(field string, port int) error {
	if port < 0 || port > 65535 {
		return Fieldf(field, "%d is no port; want 1 to 65535, or 0 for the usual one", port)
	}
	return nil
}

// pemField refuses what is no PEM. Empty passes.
func pemField(field string, value string) error {
	if value != "" && !strings.Contains(value, "-----BEGIN ") {
		return Fieldf(field, "is no PEM; want text that begins with \"-----BEGIN\"")
	}
	return nil
}

// onlyOnce refuses a list in which something is twice. Key says what an item is,
// as in a field.
func onlyOnce[T any](list string, items []T, key func(T) string) error {
	seen := make(map[string]int)
	for i, item := range items {
		k := key(item)
		if first, ok := seen[k]; ok {
			return Fieldf(fmt.Sprintf("%s[%d]", list, i), "is the same as %s[%d]; keep one", list, first)
		}
		seen[k] = i
	}
	return nil
}

// printable reports whether s has nothing but ASCII that can be seen, and none
// of the characters in without.
func printable(s, without string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune(without, r)
	})
}

// allOrNone refuses fields of which some are set and some are not.
func allOrNone(values map[string]bool) error {
	var set, missing []string
	for field, ok := range values {
		if ok {
			set = append(set, field)
		} else {
			missing = append(missing, field)
		}
	}
	if len(set) == 0 || len(missing) == 0 {
		return nil
	}
	slices.Sort(set)
	slices.Sort(missing)
	return Fieldf(missing[0], "is missing although %s is set; want both, or neither", set[0])
}
