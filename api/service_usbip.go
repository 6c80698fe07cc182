package api

import (
	"fmt"
	"strings"
)

// ServiceUSBIP is the document of /os/1.0/services/usbip.
type ServiceUSBIP struct {
	Config ServiceUSBIPConfig `json:"config"`
	State  ServiceUSBIPState  `json:"state"`
}

// ServiceUSBIPConfig lists USB devices of other machines to attach.
type ServiceUSBIPConfig struct {
	ServiceConfig
	Targets []ServiceUSBIPTarget `json:"targets,omitempty"`
}

// A ServiceUSBIPTarget is a USB device that another machine exports.
type ServiceUSBIPTarget struct {
	Address string `json:"address"` // IP address or host name of that machine
	BusID   string `json:"bus_id"`  // of the device there, such as "1-1.2"
}

// ServiceUSBIPState is what the machine says about USB over IP.
type ServiceUSBIPState struct {
	ServiceState
	Attached []ServiceUSBIPDevice `json:"attached,omitempty"`
}

// A ServiceUSBIPDevice is a USB device of another machine that is attached here.
type ServiceUSBIPDevice struct {
	Port    int    `json:"port"`    // of the pretended hub
	Address string `json:"address"` // as it was asked for
	BusID   string `json:"bus_id"`
}

// Validate reports the first thing in c that cannot work, as a FieldError.
func (c ServiceUSBIPConfig) Validate() error {
	for i, t := range c.Targets {
		field := fmt.Sprintf("targets[%d]", i)
		if err := hostField(field+".address", t.Address); err != nil {
			return err
		}
		if !busID(t.BusID) {
			return Fieldf(field+".bus_id", "%q is no USB device; want its bus and ports, such as %q", t.BusID, "1-1.2")
		}
	}
	return onlyOnce("targets", c.Targets, func(t ServiceUSBIPTarget) string { return t.Address + " " + t.BusID })
}

// busID reports whether s is the kernel's name of a USB device: a bus, a dash and
// the ports on the way to the device.
func busID(s string) bool {
	bus, ports, ok := strings.Cut(s, "-")
	return ok && bus != "" && ports != "" && len(s) < 32 && strings.Trim(bus, "0123456789") == "" && strings.Trim(ports, ".0123456789") == ""
}
