package api

// NetworkState is the network as the machine sees it.
type NetworkState struct {
	Interfaces             map[string]InterfaceState `json:"interfaces"`               // by name
	ConfigurationInProcess bool                      `json:"configuration_in_process"` // a change is under way, or waits to be confirmed
	Warnings               []string                  `json:"warnings,omitempty"`       // what does not work although everything is set up, such as a time server that is silent
}

// InterfaceState is one network device as the machine sees it.
type InterfaceState struct {
	Type      string                     `json:"type"`                // "interface", "bond", "vlan", "wireguard", or "physical" for a card nobody configured
	State     string                     `json:"state"`               // as networkd says, such as "routable"
	Hwaddr    string                     `json:"hwaddr,omitempty"`    // MAC address, lower case
	MTU       int                        `json:"mtu,omitempty"`       // bytes
	Speed     string                     `json:"speed,omitempty"`     // megabits per second
	Addresses []string                   `json:"addresses,omitempty"` // CIDR notation, link-local ones left out
	Routes    []NetworkRoute             `json:"routes,omitempty"`    // by way of a gateway
	Roles     []string                   `json:"roles,omitempty"`     // in force, including defaults
	Stats     InterfaceStats             `json:"stats"`
	LLDP      []InterfaceLLDP            `json:"lldp,omitempty"`    // neighbours
	LACP      *InterfaceLACP             `json:"lacp,omitempty"`    // of a bond of mode 802.3ad
	Members   map[string]BondMemberState `json:"members,omitempty"` // of a bond, by the MAC address of the card
	Wireguard *WireguardState            `json:"wireguard,omitempty"`
}

// BondMemberState is one card of a bond as the machine sees it.
type BondMemberState struct {
	Type   string          `json:"type"`             // "bond_member"
	State  string          `json:"state"`            // as networkd says, such as "enslaved"
	Hwaddr string          `json:"hwaddr,omitempty"` // MAC address of the card itself, lower case
	MTU    int             `json:"mtu,omitempty"`    // bytes
	Speed  string          `json:"speed,omitempty"`  // megabits per second
	Stats  InterfaceStats  `json:"stats"`
	LLDP   []InterfaceLLDP `json:"lldp,omitempty"` // neighbours
	LACP   *InterfaceLACP  `json:"lacp,omitempty"` // of a bond of mode 802.3ad
}

// InterfaceStats counts since the device was made.
type InterfaceStats struct {
	RxBytes  int64 `json:"rx_bytes"`
	RxErrors int64 `json:"rx_errors"`
	TxBytes  int64 `json:"tx_bytes"`
	TxErrors int64 `json:"tx_errors"`
}

// InterfaceLLDP is a neighbour that announced itself (IEEE 802.1AB).
type InterfaceLLDP struct {
	ChassisID string `json:"chassis_id"`
	Name      string `json:"name"`           // of the system
	PortID    string `json:"port_id"`        // the port at its side
	Port      string `json:"port,omitempty"` // its description
}

// InterfaceLACP says who aggregates with whom (IEEE 802.1AX).
type InterfaceLACP struct {
	LocalMAC  string `json:"local_mac"`
	RemoteMAC string `json:"remote_mac"` // of the switch; all zero without answer
}

// WireguardState is a tunnel as the kernel has it.
type WireguardState struct {
	PublicKey     string               `json:"public_key"` // what peers are told
	ListeningPort int                  `json:"listening_port,omitempty"`
	Peers         []WireguardPeerState `json:"peers,omitempty"`
}

// WireguardPeerState is the other end of a tunnel as the kernel knows it.
type WireguardPeerState struct {
	PublicKey           string         `json:"public_key"`
	Endpoint            string         `json:"endpoint"` // "" until it is known
	AllowedIPs          []string       `json:"allowed_ips"`
	LatestHandshake     string         `json:"latest_handshake,omitempty"`     // RFC 3339; "" never
	PersistentKeepalive string         `json:"persistent_keepalive,omitempty"` // such as "25s"; "" is none
	Stats               InterfaceStats `json:"stats"`                          // errors are not counted
}
