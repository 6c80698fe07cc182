// Package network makes the machine's network match an api.NetworkConfig.
//
// The work is split so that the difficult parts need no machine:
//
//	Render   turns a configuration into files of systemd-networkd, udev,
//	         systemd-resolved, systemd-timesyncd and nft     (pure)
//	Check    refuses what cannot work on this machine
//	Plan     compares those files with the ones in place     (reads only)
//	Apply    renames cards, writes what differs and tells the services
//	State    reports the devices, whoever set them up
//	Health   complains about what is wanted and not there
//	Diagnose says how far packets get
//
// An interface is a bridge of its name. The card, under another name, is one port
// of it, a veth pair to the host another, and instances are the rest:
//
//	card _p525400000001 ─┐
//	                     ├─ bridge mgmt ── _i525400000001 ═ _vmgmt (addresses)
//	instances ───────────┘                                    └─ VLANs of the host
//
// So Incus can use "mgmt" as a parent, with and without VLANs, while the host keeps
// its addresses. The host's end of the pair has the MAC address of the card, and
// the card another one that nobody sees. A bond takes the place of the card.
//
// All files live below /run and are rebuilt on every boot: the saved configuration
// is the only source of truth. Files not named 20-incus-os* belong to the image and
// are never touched. The digest of what each service last accepted is kept in
// /run/incus-os, so that a reload that did not work is tried again.
//
//	render.go   interfaces, bonds, VLANs, tunnels; layer3.go addresses and routes
//	netdev.go   the details of bonds, tunnels and cards
//	firewall.go what reaches the host
//	cards.go    which card is which, and what it is called
//	keys.go     private keys of tunnels
//	plan.go     the difference; apply.go closes it
//	state.go    devices; lldp.go asks networkd about neighbours
//
// The hostname and the time zone are in the same document but belong to
// internal/host, the proxy to whoever runs it. Instances and the bridges between
// them alone belong to Incus.
package network

import (
	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys"
)

const (
	networkd  = "systemd-networkd.service"
	resolved  = "systemd-resolved.service"
	timesyncd = "systemd-timesyncd.service"
	udevd     = "systemd-udevd.service"
	bus       = "dbus.socket"
	packets   = "firewall" // not a service: the kernel

	networkdDir  = "/run/systemd/network"
	resolvedDir  = "/run/systemd/resolved.conf.d"
	timesyncdDir = "/run/systemd/timesyncd.conf.d"
	firewallDir  = "/run/incus-os/firewall"

	prefix = "20-incus-os"
	stamps = "/run/incus-os/network." // followed by the service that accepted
)

// A Network brings one machine's network to a desired configuration.
type Network struct {
	host    sys.Host
	inForce func() api.NetworkConfig
	port    string // of name servers

	// Listens returns the TCP ports that the system listens on besides that of
	// Incus; nil: none.
	Listens func() []int
}

// New returns the network of host. InForce returns the configuration that was
// applied last, which State and Health are about.
func New(host sys.Host, inForce func() api.NetworkConfig) *Network {
	return &Network{host: host, inForce: inForce, port: "53"}
}

// Name is the area's name in health reports.
func (n *Network) Name() string { return "network" }
