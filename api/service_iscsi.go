package api

import (
	"fmt"
	"strings"
)

// ServiceISCSI is the document of /os/1.0/services/iscsi.
type ServiceISCSI struct {
	Config ServiceISCSIConfig `json:"config"`
	State  ServiceISCSIState  `json:"state"`
}

// ServiceISCSIConfig lists disks to attach by iSCSI.
type ServiceISCSIConfig struct {
	ServiceConfig
	Targets []ServiceISCSITarget `json:"targets,omitempty"`
}

// A ServiceISCSITarget is a target at one of its addresses. List a target once for
// each address to reach it by several paths.
type ServiceISCSITarget struct {
	Target   string `json:"target"`             // its name, such as "iqn.2026-01.org.example:disk1"
	Address  string `json:"address"`            // IP address or host name of the portal
	Port     int    `json:"port,omitempty"`     // of the portal; 0 is 3260
	Username string `json:"username,omitempty"` // ours: for CHAP; "" is no authentication
	Password Secret `json:"password,omitempty"` // ours: for CHAP, 12 to 255 characters
}

// ServiceISCSIState is what the machine says about iSCSI.
type ServiceISCSIState struct {
	ServiceState
	InitiatorName string                `json:"initiator_name,omitempty"` // what this machine calls itself; targets are told to admit it
	Sessions      []ServiceISCSISession `json:"sessions,omitempty"`       // open ones, whoever opened them
}

// A ServiceISCSISession is a connection to a target.
type ServiceISCSISession struct {
	Target  string `json:"target"`
	Address string `json:"address"`
	Port    int    `json:"port"`
	State   string `json:"state"` // as the kernel says: "LOGGED_IN", "FAILED" or "FREE"
}

// Validate reports the first thing in c that cannot work, as a FieldError.
func (c ServiceISCSIConfig) Validate() error {
	for i, t := range c.Targets {
		if err := t.validate(fmt.Sprintf("targets[%d]", i)); err != nil {
			return err
		}
	}
	return onlyOnce("targets", c.Targets, func(t ServiceISCSITarget) string {
		return fmt.Sprint(t.Target, " ", t.Address, " ", t.Portal())
	})
}

func (t ServiceISCSITarget) validate(field string) error {
	if !iscsiName(t.Target) {
		return Fieldf(field+".target", "%q is no name of a target; want one such as %q", t.Target, "iqn.2026-01.org.example:disk1")
	}
	if err := hostField(field+".address", t.Address); err != nil {
		return err
	}
	if err := portField(field+".port", t.Port); err != nil {
		return err
	}
	if t.Username != "" && !printable(t.Username, "#") {
		return Fieldf(field+".username", "%q has a blank, a # or a control character in it; want printable ASCII without them", t.Username)
	}
	if t.Password == "" && t.Username == "" {
		return nil
	}
	if t.Username == "" {
		return Fieldf(field+".username", "is missing although there is a password; want the name that the target knows")
	}
	// RFC 7143, section 12.1.3: at least 96 bits.
	if n := len(t.Password); n < 12 || n > 255 || !printable(string(t.Password), "#") {
		return Fieldf(field+".password", "cannot be used; want 12 to 255 characters of printable ASCII without blanks and #")
	}
	return nil
}

// Portal returns the port of t.
func (t ServiceISCSITarget) Portal() int {
	if t.Port == 0 {
		return 3260 // RFC 7143, section 4.2.7.1
	}
	return t.Port
}

// iscsiName reports whether s is an iSCSI name (RFC 3720, section 3.2.6.3).
func iscsiName(s string) bool {
	for _, kind := range []string{"iqn.", "eui.", "naa."} {
		if rest, ok := strings.CutPrefix(s, kind); ok {
			return rest != "" && len(s) <= 223 && only(rest, "-.:")
		}
	}
	return false
}
