package api

import "cmp"

// A Network is the document of /os/1.0/system/network.
type Network struct {
	Config NetworkConfig `json:"config"`
	State  NetworkState  `json:"state"`
}

// NetworkConfig is the network the operator wants. Without any interface, bond
// or VLAN, every network card is configured by DHCP and router advertisements.
type NetworkConfig struct {
	// ConfirmationTimeout is how long a change to this configuration waits to be
	// confirmed before it is undone, such as "2m", at most an hour; "" saves it
	// at once, unless default_confirmation_timeout says otherwise.
	ConfirmationTimeout string `json:"confirmation_timeout,omitempty"`
	// DefaultConfirmationTimeout counts for changes that say no time of their own.
	DefaultConfirmationTimeout string `json:"default_confirmation_timeout,omitempty"`

	DNS        NetworkDNS         `json:"dns,omitzero"`
	Time       NetworkTime        `json:"time,omitzero"`
	Proxy      NetworkProxy       `json:"proxy,omitzero"`
	Interfaces []NetworkInterface `json:"interfaces,omitempty"`
	Bonds      []NetworkBond      `json:"bonds,omitempty"`
	VLANs      []NetworkVLAN      `json:"vlans,omitempty"`
	Wireguard  []NetworkWireguard `json:"wireguard,omitempty"`
}

// Within returns how long a change to c waits to be confirmed; "" not at all.
func (c NetworkConfig) Within() string {
	return cmp.Or(c.ConfirmationTimeout, c.DefaultConfirmationTimeout)
}

// Default reports whether c leaves it to the machine which cards to use.
func (c NetworkConfig) Default() bool {
	return len(c.Interfaces) == 0 && len(c.Bonds) == 0 && len(c.VLANs) == 0
}

// NetworkDNS says what the machine is called and whom it asks for names.
type NetworkDNS struct {
	Hostname      string   `json:"hostname,omitempty"`       // one label; "" is chosen by the machine
	Domain        string   `json:"domain,omitempty"`         // appended to the hostname
	Nameservers   []string `json:"nameservers,omitempty"`    // IP addresses, besides those from DHCP; "192.0.2.53#dns.example.net" also says whose certificate it has
	SearchDomains []string `json:"search_domains,omitempty"` // tried for names without a dot
	DNSOverTLS    bool     `json:"dns_over_tls,omitempty"`   // names are asked for over TLS only
}

// NetworkTime says what time it is here and whom to ask.
type NetworkTime struct {
	Timezone   string   `json:"timezone,omitempty"`    // such as "Europe/Paris"; "" is UTC
	NTPServers []string `json:"ntp_servers,omitempty"` // host names or IP addresses
}

// NetworkAddressing is what the host itself does on a device, whatever kind it is of.
type NetworkAddressing struct {
	Addresses         []string              `json:"addresses,omitempty"`           // "dhcp4", "dhcp6", "slaac" or CIDR notation; none leaves the device to instances
	Routes            []NetworkRoute        `json:"routes,omitempty"`              // besides those that come with the addresses
	MTU               int                   `json:"mtu,omitempty"`                 // bytes, 1280 to 9000; 0 is 1500, or what the tunnel leaves of it
	RequiredForOnline string                `json:"required_for_online,omitempty"` // "any", "ipv4", "ipv6", "both" or "no"; "" is "any"
	Roles             []string              `json:"roles,omitempty"`               // "management", "cluster", "instances", "storage"
	FirewallRules     []NetworkFirewallRule `json:"firewall_rules,omitempty"`      // after what the system needs itself, before everything else is dropped
}

// A NetworkInterface is a network card with what the machine does on it. It is a
// bridge of this name, to which Incus connects instances.
type NetworkInterface struct {
	Name   string `json:"name"`   // at most 13 characters
	Hwaddr string `json:"hwaddr"` // MAC address, or the kernel's name of the card
	NetworkAddressing
	StrictHwaddr bool             `json:"strict_hwaddr,omitempty"` // frames from other MAC addresses do not leave
	LLDP         bool             `json:"lldp,omitempty"`          // announce and listen
	VLANTags     []int            `json:"vlan_tags,omitempty"`     // VLANs for instances, 1 to 4094, besides those in vlans
	Bridge       NetworkBridge    `json:"bridge,omitzero"`
	Ethernet     *NetworkEthernet `json:"ethernet,omitempty"` // absent: as the driver has it
}

// A NetworkBond is several network cards that act as one.
type NetworkBond struct {
	Name    string   `json:"name"`              // at most 13 characters
	Mode    string   `json:"mode"`              // "balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb" or "balance-alb"
	Members []string `json:"members,omitempty"` // MAC addresses, or the kernel's names, of the cards
	Hwaddr  string   `json:"hwaddr,omitempty"`  // MAC address of the host; "" is that of the first member
	NetworkAddressing
	Options  NetworkBondOptions `json:"options,omitzero"`
	LLDP     bool               `json:"lldp,omitempty"`      // announce and listen on each member
	VLANTags []int              `json:"vlan_tags,omitempty"` // VLANs for instances, 1 to 4094, besides those in vlans
	Bridge   NetworkBridge      `json:"bridge,omitzero"`
	Ethernet *NetworkEthernet   `json:"ethernet,omitempty"` // of each member; absent: as the driver has it
}

// NetworkBondOptions say how a bond notices that a member fails, and how it spreads
// frames. Times are in milliseconds; 0 is the default.
type NetworkBondOptions struct {
	MIIMonitorInterval int      `json:"mii_monitor_interval,omitempty"` // between two looks at the carrier; 0 is 100, or none with ARP
	UpDelay            int      `json:"up_delay,omitempty"`             // until a member that is back is used; a multiple of mii_monitor_interval
	DownDelay          int      `json:"down_delay,omitempty"`           // until a member without carrier is given up; a multiple of mii_monitor_interval
	ARPInterval        int      `json:"arp_interval,omitempty"`         // between two questions to arp_ip_targets, instead of the carrier
	ARPIPTargets       []string `json:"arp_ip_targets,omitempty"`       // IPv4 addresses, at most 16
	LACPRate           string   `json:"lacp_rate,omitempty"`            // "slow" or "fast", with 802.3ad; "" is "fast"
	TransmitHashPolicy string   `json:"transmit_hash_policy,omitempty"` // "layer2", "layer2+3", "layer3+4", "encap2+3", "encap3+4" or "vlan+srcmac"; "" is "layer3+4" with 802.3ad
}

// NetworkBridge says how the bridge of a device behaves.
type NetworkBridge struct {
	STP                      bool `json:"stp,omitempty"`                        // speaks the Spanning Tree Protocol
	DisableMulticastSnooping bool `json:"disable_multicast_snooping,omitempty"` // multicast goes to every port
}

// NetworkEthernet is how a card is set up. What is disabled is done by the
// processor or not at all.
type NetworkEthernet struct {
	DisableEnergyEfficient bool     `json:"disable_energy_efficient,omitempty"` // Energy Efficient Ethernet
	DisableGRO             bool     `json:"disable_gro,omitempty"`              // joining of received packets
	DisableGSO             bool     `json:"disable_gso,omitempty"`              // cutting of sent packets, by the kernel
	DisableIPv4TSO         bool     `json:"disable_ipv4_tso,omitempty"`         // the same by the card
	DisableIPv6TSO         bool     `json:"disable_ipv6_tso,omitempty"`
	RxBufferSize           string   `json:"rx_buffer_size,omitempty"` // packets, or "max"; "" is the driver's
	RxMiniBufferSize       string   `json:"rx_mini_buffer_size,omitempty"`
	RxJumboBufferSize      string   `json:"rx_jumbo_buffer_size,omitempty"`
	TxBufferSize           string   `json:"tx_buffer_size,omitempty"`
	WakeOnLAN              bool     `json:"wakeonlan,omitempty"`          // the card starts the machine
	WakeOnLANModes         []string `json:"wakeonlan_modes,omitempty"`    // on "phy", "unicast", "multicast", "broadcast", "arp", "magic" or "secureon"; none is "magic"
	WakeOnLANPassword      Secret   `json:"wakeonlan_password,omitempty"` // for secureon; six bytes, such as "01:02:03:04:05:06"
}

// A NetworkVLAN is a VLAN of an interface or bond in which the host has addresses.
type NetworkVLAN struct {
	Name   string `json:"name"`   // at most 13 characters
	Parent string `json:"parent"` // name of an interface or bond
	ID     int    `json:"id"`     // 2 to 4094
	NetworkAddressing
}

// A NetworkWireguard is a tunnel to peers.
type NetworkWireguard struct {
	Name       string `json:"name"`                  // at most 13 characters
	PrivateKey Secret `json:"private_key,omitempty"` // 32 bytes in base64; "" is made by the machine, which keeps it
	Port       int    `json:"port,omitempty"`        // to listen on; 0 is chosen by the kernel
	NetworkAddressing
	Peers []NetworkWireguardPeer `json:"peers,omitempty"`
}

// A NetworkWireguardPeer is the other end of a tunnel.
type NetworkWireguardPeer struct {
	PublicKey           string   `json:"public_key"`                     // 32 bytes in base64
	PresharedKey        Secret   `json:"preshared_key,omitempty"`        // 32 bytes in base64
	AllowedIPs          []string `json:"allowed_ips"`                    // networks behind it, in CIDR notation
	Endpoint            string   `json:"endpoint,omitempty"`             // host and port; "" waits until it calls
	PersistentKeepalive int      `json:"persistent_keepalive,omitempty"` // seconds between two signs of life; 0 is none
}

// A NetworkRoute says where packets for a network go.
type NetworkRoute struct {
	To     string `json:"to"`               // a network in CIDR notation
	Via    string `json:"via"`              // an IP address, "dhcp4" or "slaac"
	OnLink bool   `json:"onlink,omitempty"` // the address is on this device although no network of it says so
}

// A NetworkFirewallRule is about packets that reach the host over a device. The
// first rule that fits counts.
type NetworkFirewallRule struct {
	Action   string `json:"action"`             // "accept", "drop" or "reject"
	Source   string `json:"source,omitempty"`   // IP address or network; "" is anybody
	Protocol string `json:"protocol,omitempty"` // "tcp" or "udp", with a port; "" is all
	Port     int    `json:"port,omitempty"`
}
