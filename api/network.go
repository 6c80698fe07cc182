package api

// A Network is the document of /os/1.0/system/network.
type Network struct {
	Config NetworkConfig `json:"config"`
	State  NetworkState  `json:"state"`
}

// NetworkConfig is the network the operator wants. Without any interface,
// every network card is configured by DHCP and router advertisements.
type NetworkConfig struct {
	// ConfirmationTimeout is how long a change to this configuration waits to be
	// confirmed before it is undone, such as "2m", at most an hour; "" saves it
	// at once.
	ConfirmationTimeout string `json:"confirmation_timeout,omitempty"`

	DNS        NetworkDNS         `json:"dns,omitzero"`
	Time       NetworkTime        `json:"time,omitzero"`
	Interfaces []NetworkInterface `json:"interfaces,omitempty"`
}

// Within returns how long a change to c waits to be confirmed; "" not at all.
func (c NetworkConfig) Within() string { return c.ConfirmationTimeout }

// NetworkDNS says what the machine is called and whom it asks for names.
type NetworkDNS struct {
	Hostname      string   `json:"hostname,omitempty"`       // one label; "" is chosen by the machine
	Domain        string   `json:"domain,omitempty"`         // appended to the hostname
	Nameservers   []string `json:"nameservers,omitempty"`    // IP addresses, besides those from DHCP
	SearchDomains []string `json:"search_domains,omitempty"` // tried for names without a dot
}

// NetworkTime says what time it is here and whom to ask.
type NetworkTime struct {
	Timezone   string   `json:"timezone,omitempty"`    // such as "Europe/Paris"; "" is UTC
	NTPServers []string `json:"ntp_servers,omitempty"` // host names or IP addresses
}

// A NetworkInterface is a network card with what the machine does on it.
type NetworkInterface struct {
	Name              string         `json:"name"`                          // at most 13 characters
	Hwaddr            string         `json:"hwaddr"`                        // MAC address, or the kernel's name of the card
	Addresses         []string       `json:"addresses,omitempty"`           // "dhcp4", "dhcp6", "slaac" or CIDR notation
	Routes            []NetworkRoute `json:"routes,omitempty"`              // besides those that come with the addresses
	MTU               int            `json:"mtu,omitempty"`                 // bytes, 1280 to 9000; 0 is 1500
	RequiredForOnline string         `json:"required_for_online,omitempty"` // "any", "ipv4", "ipv6", "both" or "no"; "" is "any"
	Roles             []string       `json:"roles,omitempty"`               // "management", "cluster", "instances", "storage"
	StrictHwaddr      bool           `json:"strict_hwaddr,omitempty"`       // frames from other MAC addresses do not leave
	LLDP              bool           `json:"lldp,omitempty"`                // announce and listen
}

// A NetworkRoute says where packets for a network go.
type NetworkRoute struct {
	To  string `json:"to"`  // a network in CIDR notation
	Via string `json:"via"` // an IP address, "dhcp4" or "slaac"
}

// NetworkState is the network as the machine sees it.
type NetworkState struct {
	Interfaces map[string]InterfaceState `json:"interfaces"` // by name
}

// InterfaceState is one network device as the machine sees it.
type InterfaceState struct {
	Type      string   `json:"type"`                // "interface", or "physical" for a card nobody configured
	State     string   `json:"state"`               // as networkd says, such as "routable"
	Hwaddr    string   `json:"hwaddr,omitempty"`    // MAC address, lower case
	MTU       int      `json:"mtu,omitempty"`       // bytes
	Addresses []string `json:"addresses,omitempty"` // CIDR notation, link-local ones left out
	Roles     []string `json:"roles,omitempty"`     // in force, including defaults
}
