package api

import (
	"fmt"
	"strings"
)

// ServiceMultipath is the document of /os/1.0/services/multipath.
type ServiceMultipath struct {
	Config ServiceMultipathConfig `json:"config"`
	State  ServiceMultipathState  `json:"state"`
}

// ServiceMultipathConfig lists the disks that have more than one path.
type ServiceMultipathConfig struct {
	ServiceConfig
	WWNs []string `json:"wwns,omitempty"` // as in /dev/disk/by-id after "wwn-", such as "0x600508b4000156d7"
}

// ServiceMultipathState is what the machine says about disks with several paths.
type ServiceMultipathState struct {
	ServiceState
	Controllers []ServiceMultipathController      `json:"controllers,omitempty"` // Fibre Channel ports of this machine
	Devices     map[string]ServiceMultipathDevice `json:"devices,omitempty"`     // by WWID, which is "3" and the WWN without "0x"
}

// A ServiceMultipathController is a Fibre Channel port.
type ServiceMultipathController struct {
	FabricName      string `json:"fabric_name"`
	NodeName        string `json:"node_name"`
	PortName        string `json:"port_name"`
	PortState       string `json:"port_state"` // such as "Online" or "Linkdown"
	PortType        string `json:"port_type"`
	Speed           string `json:"speed"`
	SupportedSpeeds string `json:"supported_speeds"`
}

// A ServiceMultipathDevice is a disk with its paths.
type ServiceMultipathDevice struct {
	Vendor     string                      `json:"vendor"` // and model, such as "HP,HSV210"
	Size       string                      `json:"size"`   // such as "50G"
	PathGroups []ServiceMultipathPathGroup `json:"path_groups"`
}

// A ServiceMultipathPathGroup is paths of equal worth.
type ServiceMultipathPathGroup struct {
	Policy   string                 `json:"policy"`   // such as "service-time 0"
	Priority int                    `json:"priority"` // the greatest one is used first
	Status   string                 `json:"status"`   // "active", "enabled" or "disabled"
	Paths    []ServiceMultipathPath `json:"paths"`
}

// A ServiceMultipathPath is one way to a disk.
type ServiceMultipathPath struct {
	ID     string `json:"id"`     // such as "1:0:0:1"
	Status string `json:"status"` // such as "active ready running"
}

// Validate reports the first thing in c that cannot work, as a FieldError.
func (c ServiceMultipathConfig) Validate() error {
	for i, w := range c.WWNs {
		digits, ok := strings.CutPrefix(w, "0x")
		if !ok || len(digits) != 16 && len(digits) != 32 || strings.Trim(digits, "0123456789abcdef") != "" {
			return Fieldf(fmt.Sprintf("wwns[%d]", i), "%q is no WWN; want 0x and 16 or 32 lower case hexadecimal digits, such as %q", w, "0x600508b4000156d7")
		}
	}
	return onlyOnce("wwns", c.WWNs, func(w string) string { return w })
}
