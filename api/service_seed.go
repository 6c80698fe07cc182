package api

import (
	"errors"
	"reflect"
)

// SeedServices is the section `services`: the configuration of services, as in the
// API. It is taken once, for those that have none yet.
type SeedServices struct {
	Version   string                  `json:"version,omitempty"`
	ISCSI     *ServiceISCSIConfig     `json:"iscsi,omitempty"`
	LVM       *ServiceLVMConfig       `json:"lvm,omitempty"`
	Multipath *ServiceMultipathConfig `json:"multipath,omitempty"`
	Netbird   *ServiceNetbirdConfig   `json:"netbird,omitempty"`
	NVME      *ServiceNVMEConfig      `json:"nvme,omitempty"`
	OVN       *ServiceOVNConfig       `json:"ovn,omitempty"`
	Tailscale *ServiceTailscaleConfig `json:"tailscale,omitempty"`
	USBIP     *ServiceUSBIPConfig     `json:"usbip,omitempty"`
}

// ByName returns the configurations that are there, as pointers. A section that is
// not there has none.
func (s *SeedServices) ByName() map[string]any {
	all := make(map[string]any)
	if s == nil {
		return all
	}
	for name, c := range map[string]any{
		"iscsi": s.ISCSI, "lvm": s.LVM, "multipath": s.Multipath, "netbird": s.Netbird,
		"nvme": s.NVME, "ovn": s.OVN, "tailscale": s.Tailscale, "usbip": s.USBIP,
	} {
		if !reflect.ValueOf(c).IsNil() {
			all[name] = c
		}
	}
	return all
}

// Validate reports the first thing in s that cannot work, as a FieldError.
func (s SeedServices) Validate() error {
	all := s.ByName()
	for _, name := range ServiceNames() {
		c, ok := all[name].(interface{ Validate() error })
		if !ok {
			continue
		}
		if f, ok := errors.AsType[*FieldError](c.Validate()); ok {
			return Fieldf(name+"."+f.Field, "%s", f.Reason)
		}
	}
	return nil
}
