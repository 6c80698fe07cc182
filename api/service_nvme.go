package api

import (
	"fmt"
	"strings"
)

// ServiceNVME is the document of /os/1.0/services/nvme.
type ServiceNVME struct {
	Config ServiceNVMEConfig `json:"config"`
	State  ServiceNVMEState  `json:"state"`
}

// ServiceNVMEConfig lists subsystems to connect to by NVMe over Fabrics.
type ServiceNVMEConfig struct {
	ServiceConfig
	Targets []ServiceNVMETarget `json:"targets,omitempty"`
}

// A ServiceNVMETarget is a subsystem at one of its addresses, or the discovery
// controller that lists several.
type ServiceNVMETarget struct {
	Transport   string `json:"transport"`              // "tcp" or "fc"
	Address     string `json:"address"`                // IP address or host name; with fc "nn-0x...:pn-0x..."
	HostAddress string `json:"host_address,omitempty"` // our end; "" is chosen by the kernel, with fc every port there is
	Port        int    `json:"port,omitempty"`         // with tcp; 0 is 4420, and 8009 without NQN
	NQN         string `json:"nqn,omitempty"`          // of the subsystem; "" connects to all that the address lists
}

// ServiceNVMEState is what the machine says about NVMe over Fabrics.
type ServiceNVMEState struct {
	ServiceState
	HostID     string                 `json:"host_id,omitempty"`    // a UUID of this machine
	HostNQN    string                 `json:"host_nqn,omitempty"`   // what this machine calls itself; targets are told to admit it
	Subsystems []ServiceNVMESubsystem `json:"subsystems,omitempty"` // connected ones, local drives left out
}

// A ServiceNVMESubsystem is drives at a target.
type ServiceNVMESubsystem struct {
	Name        string                  `json:"name"` // such as "nvme-subsys1"
	NQN         string                  `json:"nqn"`
	Controllers []ServiceNVMEController `json:"controllers"` // the paths to it
}

// A ServiceNVMEController is a path to a subsystem.
type ServiceNVMEController struct {
	Name       string   `json:"name"`      // such as "nvme1"
	Transport  string   `json:"transport"` // "tcp", "fc" and so on
	Address    string   `json:"address"`   // as the kernel says, such as "traddr=192.0.2.20,trsvcid=4420"
	State      string   `json:"state"`     // as the kernel says, such as "live" or "connecting"
	Namespaces []string `json:"namespaces,omitempty"`
}

// Validate reports the first thing in c that cannot work, as a FieldError.
func (c ServiceNVMEConfig) Validate() error {
	for i, t := range c.Targets {
		if err := t.validate(fmt.Sprintf("targets[%d]", i)); err != nil {
			return err
		}
	}
	return onlyOnce("targets", c.Targets, func(t ServiceNVMETarget) string {
		return strings.Join([]string{t.Transport, t.Address, t.HostAddress, fmt.Sprint(t.Port), t.NQN}, " ")
	})
}

func (t ServiceNVMETarget) validate(field string) error {
	if err := oneOf(field+".transport", t.Transport, "tcp", "fc"); err != nil {
		return err
	}
	if t.NQN != "" && (!strings.HasPrefix(t.NQN, "nqn.") || len(t.NQN) > 223 || !printable(t.NQN, ",")) {
		return Fieldf(field+".nqn", "%q is no name of a subsystem; want one such as %q", t.NQN, "nqn.2026-01.org.example:disk1")
	}
	if err := portField(field+".port", t.Port); err != nil {
		return err
	}
	if t.Transport == "fc" {
		return t.validateFC(field)
	}
	if t.HostAddress != "" {
		if err := hostField(field+".host_address", t.HostAddress); err != nil {
			return err
		}
	}
	return hostField(field+".address", t.Address)
}

func (t ServiceNVMETarget) validateFC(field string) error {
	if !fcAddress(t.Address) {
		return Fieldf(field+".address", "%q is no Fibre Channel address; want one such as %q", t.Address, "nn-0x20000090fa942779:pn-0x10000090fa942779")
	}
	if t.HostAddress != "" && !fcAddress(t.HostAddress) {
		return Fieldf(field+".host_address", "%q is no Fibre Channel address; want one such as %q", t.HostAddress, "nn-0x20000090fa942779:pn-0x10000090fa942779")
	}
	return nil
}

// fcAddress reports whether s names a node and a port (nvme-connect(1)).
func fcAddress(s string) bool {
	node, port, ok := strings.Cut(s, ":")
	return ok && wwName(node, "nn-0x") && wwName(port, "pn-0x")
}

func wwName(s, prefix string) bool {
	digits, ok := strings.CutPrefix(s, prefix)
	return ok && len(digits) == 16 && strings.Trim(digits, "0123456789abcdef") == ""
}
