// Package sys is the only door to the machine.
//
// Everything outside the process's own memory is behind one of seven seams:
// Dir (the file tree, which includes sysfs, devices and EFI variables), Runner
// (other programs), Units (systemd), Mounter (file systems), Links (network
// devices), Power (restarting) and TPM (the security chip). Real returns the machine itself; package
// systest beside this one returns pretend machines that live in a directory. No
// other package may import os/exec; arch_test.go at the root of the module
// enforces it.
//
// Nothing here decides anything: policy belongs to the areas above.
package sys

import (
	"context"
	"time"
)

// A Host is a machine, real or pretend.
type Host struct {
	Files  Dir
	Exec   Runner
	Units  Units
	Mounts Mounter
	Links  Links
	Power  Power
	TPM    TPM
}

// Real returns the machine this process runs on.
func Real() Host {
	return Host{
		Files:  NewDir("/"),
		Exec:   programs{},
		Units:  systemd{},
		Mounts: kernelMounts{},
		Links:  kernelLinks{},
		Power:  kernelPower{},
		TPM:    kernelTPM{},
	}
}

// Units is the service manager. Names are full unit names, such as
// "incus.service".
type Units interface {
	// Start starts a unit and waits until its job is done.
	Start(ctx context.Context, unit string) error
	// Stop stops a unit and waits until its job is done.
	Stop(ctx context.Context, unit string) error
	// Restart stops and starts a unit, or only starts it, and waits until its
	// job is done. What the manager keeps for the unit outlives it.
	Restart(ctx context.Context, unit string) error
	// Queue asks for a unit and does not wait: for what takes its time, and for
	// targets that end this process too, such as reboot.target.
	Queue(ctx context.Context, unit string) error
	// Reload makes the manager read unit files again.
	Reload(ctx context.Context) error
	// State returns the unit's active state: "active", "inactive",
	// "activating", "failed" and so on (org.freedesktop.systemd1, ActiveState).
	State(ctx context.Context, unit string) (string, error)
	// List returns the units that are loaded, by name.
	List(ctx context.Context) ([]Unit, error)
	// Watch sends on the channel whenever the unit's state may have changed,
	// until ctx ends. Changes in quick succession are sent as one.
	Watch(ctx context.Context, unit string) (<-chan struct{}, error)
}

// A Unit is what the service manager says of one.
type Unit struct {
	Name   string
	Active string // as Units.State has it
	Sub    string // what that means for its type, such as "running" or "mounted"
}

// Mounter mounts file systems and measures them. Targets are absolute names as
// the running system sees them.
type Mounter interface {
	// Mount mounts source on target, which must exist. Options are those of
	// mount(8) for the file system, plus ro, nodev, nosuid, noexec and bind.
	Mount(source, target, fstype string, options ...string) error
	// Unmount unmounts target.
	Unmount(target string) error
	// Usage returns the size of the file system that holds name, and what of
	// it is free for use, both in bytes.
	Usage(name string) (size, free uint64, err error)
}

// Links reports and changes network devices.
type Links interface {
	// List returns all network devices but the loopback.
	List() ([]Link, error)
	// Gateways returns where packets go that are for nowhere near.
	Gateways() ([]Gateway, error)
	// Routes returns the routes that have a gateway.
	Routes() ([]Route, error)
	// Wireguard returns what the kernel knows of a tunnel.
	Wireguard(name string) (Wireguard, error)
	// Rename gives a device another name. It stays up, with its addresses.
	Rename(name, to string) error
	// SetHwaddr gives a device another MAC address.
	SetHwaddr(name, hwaddr string) error
	// Delete deletes a device, which is no error if there is none of the name.
	Delete(name string) error
	// Watch sends on the channel whenever an address or the state of a device
	// changed, until ctx ends. Changes in quick succession are sent as one.
	Watch(ctx context.Context) (<-chan struct{}, error)
}

// A Link is a network device as the kernel reports it.
type Link struct {
	Name      string   // such as "enp1s0"
	Hwaddr    string   // MAC address, lower case with colons; of a card the one it was made with
	Current   string   // MAC address in use
	MTU       int      // bytes
	Enabled   bool     // administratively up
	Up        bool     // the same, and has a carrier
	Physical  bool     // a network card rather than a bridge, veth and so on
	Master    string   // bridge or bond that it is part of; "" none
	Addresses []string // in CIDR notation, link-local ones left out
}

// A Route leads to a network by way of a gateway.
type Route struct {
	Link string // name of the device
	To   string // in CIDR notation
	Via  string // IP address
}

// A Wireguard is a tunnel.
type Wireguard struct {
	PublicKey string // base64
	Port      int    // that it listens on
	Peers     []WireguardPeer
}

// A WireguardPeer is the other end of a tunnel.
type WireguardPeer struct {
	PublicKey  string // base64
	Endpoint   string // "" if it is not known
	AllowedIPs []string
	Handshake  time.Time // the last one; zero if there was none
	Keepalive  time.Duration
	Rx, Tx     int64 // bytes
}

// A Gateway is the next hop of a default route, with what the kernel knows of it
// as a neighbour.
type Gateway struct {
	Link    string // name of the device
	Address string // IP address
	State   string // as ip-neighbour(8) says, such as "reachable"; "none" if it was not asked for yet
}
