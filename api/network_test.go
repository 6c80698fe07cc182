package api_test

import (
	"strings"
	"testing"

	"github.com/incusos/incusos/api"
)

// A mistake is made in a full configuration.
type mistake struct {
	change func(c *config)
	field  string // "" means valid
}

type config = api.NetworkConfig

func TestNetworkValidate(t *testing.T) {
	testMistakes(t, map[string]mistake{
		"a full configuration":        {func(*config) {}, ""},
		"nothing at all":              {func(c *config) { *c = config{} }, ""},
		"a card named instead of MAC": {func(c *config) { c.Interfaces[0].Hwaddr = "enp1s0" }, ""},
		"a hostname with a dot":       {func(c *config) { c.DNS.Hostname = "a.b" }, "dns.hostname"},
		"a domain with a space":       {func(c *config) { c.DNS.Domain = "a b" }, "dns.domain"},
		"a nameserver by name":        {func(c *config) { c.DNS.Nameservers = []string{"192.0.2.1", "ns"} }, "dns.nameservers[1]"},
		"a nameserver with its name":  {func(c *config) { c.DNS.Nameservers = []string{"192.0.2.1#dns.example.net"} }, ""},
		"a nameserver with a line":    {func(c *config) { c.DNS.Nameservers = []string{"192.0.2.1#dns\nDNS=x"} }, "dns.nameservers[0]"},
		"a nameserver with a zone":    {func(c *config) { c.DNS.Nameservers = []string{"fe80::1%eth0\n[Match]"} }, "dns.nameservers[0]"},
		"an empty search domain":      {func(c *config) { c.DNS.SearchDomains = []string{""} }, "dns.search_domains[0]"},
		"a time zone that escapes":    {func(c *config) { c.Time.Timezone = "../../etc/shadow" }, "time.timezone"},
		"an NTP server with a port":   {func(c *config) { c.Time.NTPServers = []string{"ntp:123"} }, "time.ntp_servers[0]"},
		"two minutes to confirm":      {func(c *config) { c.ConfirmationTimeout = "2m" }, ""},
		"no time to confirm":          {func(c *config) { c.ConfirmationTimeout = "0s" }, "confirmation_timeout"},
		"a day to confirm":            {func(c *config) { c.ConfirmationTimeout = "24h" }, "confirmation_timeout"},
		"a day by default":            {func(c *config) { c.DefaultConfirmationTimeout = "24h" }, "default_confirmation_timeout"},

		"a name too long":             {func(c *config) { c.Interfaces[1].Name = "fourteenletter" }, "interfaces[1].name"},
		"a name of ours":              {func(c *config) { c.Interfaces[0].Name = "_vmgmt" }, "interfaces[0].name"},
		"a name of the kernel":        {func(c *config) { c.Interfaces[0].Name = "default" }, "interfaces[0].name"},
		"a number as a name":          {func(c *config) { c.Interfaces[0].Name = "42" }, "interfaces[0].name"},
		"one name twice":              {func(c *config) { c.Interfaces[1].Name = "mgmt" }, "interfaces[1].name"},
		"one name in two lists":       {func(c *config) { c.Wireguard[0].Name = "mgmt" }, "wireguard[0].name"},
		"no card":                     {func(c *config) { c.Interfaces[0].Hwaddr = "" }, "interfaces[0].hwaddr"},
		"the MAC of many":             {func(c *config) { c.Interfaces[0].Hwaddr = "01:00:5e:00:00:01" }, "interfaces[0].hwaddr"},
		"one card twice":              {func(c *config) { c.Interfaces[1].Hwaddr = "52-54-00-00-00-AA" }, "interfaces[1].hwaddr"},
		"one card in two lists":       {func(c *config) { c.Bonds[0].Members[1] = "52:54:00:00:00:AA" }, "bonds[0].members[1]"},
		"an address without length":   {func(c *config) { c.Interfaces[0].Addresses = []string{"192.0.2.1"} }, "interfaces[0].addresses[0]"},
		"an unknown way to addresses": {func(c *config) { c.Interfaces[0].Addresses = []string{"dhcp"} }, "interfaces[0].addresses[0]"},
		"a network as an address":     {func(c *config) { c.Interfaces[0].Addresses[2] = "192.0.2.0/24" }, "interfaces[0].addresses[2]"},
		"the address of all":          {func(c *config) { c.Interfaces[0].Addresses[2] = "192.0.2.255/24" }, "interfaces[0].addresses[2]"},
		"a network of two":            {func(c *config) { c.Interfaces[0].Addresses[2] = "192.0.2.0/31" }, ""},
		"one address on two devices":  {func(c *config) { c.VLANs[0].Addresses = []string{"192.0.2.10/32"} }, "vlans[0].addresses[0]"},
		"a route to a single host":    {func(c *config) { c.Interfaces[0].Routes[0].To = "192.0.2.9" }, "interfaces[0].routes[0].to"},
		"a route over a name":         {func(c *config) { c.Interfaces[0].Routes[0].Via = "gw" }, "interfaces[0].routes[0].via"},
		"a route over itself":         {func(c *config) { c.Interfaces[0].Routes[0].Via = "192.0.2.10" }, "interfaces[0].routes[0].via"},
		"a route of two families":     {func(c *config) { c.Interfaces[0].Routes[0].Via = "2001:db8::1" }, "interfaces[0].routes[0].via"},
		"a route nobody tells":        {func(c *config) { c.VLANs[0].Routes = []api.NetworkRoute{{To: "0.0.0.0/0", Via: "dhcp4"}} }, "vlans[0].routes[0].via"},
		"an MTU IPv6 cannot live on":  {func(c *config) { c.Interfaces[0].MTU = 1279 }, "interfaces[0].mtu"},
		"an unknown requirement":      {func(c *config) { c.Interfaces[0].RequiredForOnline = "yes" }, "interfaces[0].required_for_online"},
		"an unknown role":             {func(c *config) { c.Interfaces[0].Roles = []string{"cluster", "boss"} }, "interfaces[0].roles[1]"},
		"VLAN 0 for instances":        {func(c *config) { c.Interfaces[0].VLANTags = []int{0} }, "interfaces[0].vlan_tags[0]"},
	})
}

func TestNetworkValidateDetails(t *testing.T) {
	testMistakes(t, map[string]mistake{
		"a rule without action":        {func(c *config) { c.Interfaces[0].FirewallRules[0].Action = "" }, "interfaces[0].firewall_rules[0].action"},
		"a rule for a port of nothing": {func(c *config) { c.Interfaces[0].FirewallRules[0].Protocol = "" }, "interfaces[0].firewall_rules[0].protocol"},
		"a rule for no port":           {func(c *config) { c.Interfaces[0].FirewallRules[0].Port = 0 }, "interfaces[0].firewall_rules[0].port"},
		"a rule for a name":            {func(c *config) { c.Interfaces[0].FirewallRules[0].Source = "home" }, "interfaces[0].firewall_rules[0].source"},

		"a buffer without size":        {func(c *config) { c.Interfaces[0].Ethernet.RxBufferSize = "0" }, "interfaces[0].ethernet.rx_buffer_size"},
		"a mode without wakeonlan":     {func(c *config) { c.Interfaces[0].Ethernet.WakeOnLAN = false }, "interfaces[0].ethernet.wakeonlan_modes"},
		"an unknown mode of waking":    {func(c *config) { c.Interfaces[0].Ethernet.WakeOnLANModes[0] = "noon" }, "interfaces[0].ethernet.wakeonlan_modes[0]"},
		"no password for secureon":     {func(c *config) { c.Interfaces[0].Ethernet.WakeOnLANPassword = "" }, "interfaces[0].ethernet.wakeonlan_password"},
		"a password for magic packets": {func(c *config) { c.Interfaces[0].Ethernet.WakeOnLANModes = nil }, "interfaces[0].ethernet.wakeonlan_password"},

		"an unknown mode":         {func(c *config) { c.Bonds[0].Mode = "lacp" }, "bonds[0].mode"},
		"a bond of nothing":       {func(c *config) { c.Bonds[0].Members = nil }, "bonds[0].members"},
		"a bond with a name":      {func(c *config) { c.Bonds[0].Hwaddr = "enp1s0" }, "bonds[0].hwaddr"},
		"a bond like its member":  {func(c *config) { c.Bonds[0].Hwaddr = c.Bonds[0].Members[1] }, ""},
		"LACP without LACP":       {func(c *config) { c.Bonds[0].Mode = "active-backup" }, "bonds[0].options.lacp_rate"},
		"a delay out of step":     {func(c *config) { c.Bonds[0].Options.UpDelay = 150 }, "bonds[0].options.up_delay"},
		"ARP with LACP":           {func(c *config) { c.Bonds[0].Options.ARPInterval = 100 }, "bonds[0].options.arp_interval"},
		"targets of no questions": {func(c *config) { c.Bonds[0].Options.ARPIPTargets = []string{"192.0.2.1"} }, "bonds[0].options.arp_interval"},

		"a VLAN of nothing":           {func(c *config) { c.VLANs[0].Parent = "wg0" }, "vlans[0].parent"},
		"a VLAN too far":              {func(c *config) { c.VLANs[0].ID = 4095 }, "vlans[0].id"},
		"the VLAN of no tag":          {func(c *config) { c.VLANs[0].ID = 1 }, "vlans[0].id"},
		"one VLAN twice":              {func(c *config) { c.VLANs = append(c.VLANs, c.VLANs[0]); c.VLANs[1].Name = "again" }, "vlans[1].id"},
		"a VLAN larger than its card": {func(c *config) { c.Bonds[0].MTU = 1500 }, "vlans[0].mtu"},

		"half a key":                 {func(c *config) { c.Wireguard[0].PrivateKey = "AAAA" }, "wireguard[0].private_key"},
		"a tunnel with DHCP":         {func(c *config) { c.Wireguard[0].Addresses = []string{"dhcp4"} }, "wireguard[0].addresses[0]"},
		"a port out of range":        {func(c *config) { c.Wireguard[0].Port = 65536 }, "wireguard[0].port"},
		"a peer without key":         {func(c *config) { c.Wireguard[0].Peers[0].PublicKey = "" }, "wireguard[0].peers[0].public_key"},
		"a peer twice":               {func(c *config) { p := &c.Wireguard[0].Peers; *p = append(*p, (*p)[0]) }, "wireguard[0].peers[1].public_key"},
		"a peer that may send a car": {func(c *config) { c.Wireguard[0].Peers[0].AllowedIPs[0] = "car" }, "wireguard[0].peers[0].allowed_ips[0]"},
		"an endpoint without port":   {func(c *config) { c.Wireguard[0].Peers[0].Endpoint = "192.0.2.7" }, "wireguard[0].peers[0].endpoint"},
		"a sign of life too rare":    {func(c *config) { c.Wireguard[0].Peers[0].PersistentKeepalive = 65536 }, "wireguard[0].peers[0].persistent_keepalive"},

		"a proxy with a reserved name": {func(c *config) { c.Proxy.Servers["direct"] = c.Proxy.Servers["corp"] }, "proxy.servers"},
		"a proxy without port":         {func(c *config) { server(c, func(s *api.NetworkProxyServer) { s.Host = "proxy:0" }) }, "proxy.servers.corp.host"},
		"a proxy by URL":               {func(c *config) { server(c, func(s *api.NetworkProxyServer) { s.Host = "https://proxy" }) }, ""},
		"a proxy of two minds": {func(c *config) {
			server(c, func(s *api.NetworkProxyServer) { s.Host, s.UseTLS = "http://proxy", true })
		}, "proxy.servers.corp.host"},
		"an unknown authentication": {func(c *config) { server(c, func(s *api.NetworkProxyServer) { s.Auth = "ntlm" }) }, "proxy.servers.corp.auth"},
		"kerberos without realm":    {func(c *config) { server(c, func(s *api.NetworkProxyServer) { s.Auth = "kerberos" }) }, "proxy.servers.corp.realm"},
		"a password for nobody":     {func(c *config) { server(c, func(s *api.NetworkProxyServer) { s.Auth, s.Username = "anonymous", "" }) }, "proxy.servers.corp.password"},
		"a rule to nowhere":         {func(c *config) { c.Proxy.Rules[0].Target = "home" }, "proxy.rules[0].target"},
		"a rule for nothing":        {func(c *config) { c.Proxy.Rules[0].Destination = "a||b" }, "proxy.rules[0].destination"},
	})
}

func testMistakes(t *testing.T, tests map[string]mistake) {
	t.Helper()
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := full()
			tt.change(&c)
			if got := blamed(c.Validate()); got != tt.field {
				t.Errorf("Validate() blamed %q, want %q", got, tt.field)
			}
		})
	}
}

func server(c *api.NetworkConfig, change func(s *api.NetworkProxyServer)) {
	s := c.Proxy.Servers["corp"]
	change(&s)
	c.Proxy.Servers["corp"] = s
}

func TestNetworkReasonsSayWhatWouldBeRight(t *testing.T) {
	c := full()
	c.Interfaces[0].RequiredForOnline = "yes"
	if err := c.Validate(); !strings.HasSuffix(err.Error(), `"yes" is unknown; want any, ipv4, ipv6, both or no`) {
		t.Errorf("Validate() = %v", err)
	}
}

func TestNetworkReasonsHoldNoSecret(t *testing.T) {
	c := full()
	c.Wireguard[0].PrivateKey = "my-half-key"
	if err := c.Validate(); err == nil || strings.Contains(err.Error(), "my-half-key") {
		t.Errorf("Validate() = %v", err)
	}
}

func TestProxyAddress(t *testing.T) {
	for host, want := range map[string]string{
		"proxy": "proxy:3128", "proxy:8080": "proxy:8080", "http://proxy:8080/": "proxy:8080", "[2001:db8::1]": "[2001:db8::1]:3128",
		"2001:db8::1": "[2001:db8::1]:3128", "[2001:db8::1]:80": "[2001:db8::1]:80", "https://proxy": "proxy:3128 TLS",
	} {
		got, tls := api.NetworkProxyServer{Host: host}.Address()
		if tls {
			got += " TLS"
		}
		if got != want {
			t.Errorf("the address of %q is %q, want %q", host, got, want)
		}
	}
}

func TestProxyWithoutRulesIsForEverything(t *testing.T) {
	p := full().Proxy
	p.Servers["backup"], p.Rules = p.Servers["corp"], nil
	if got := p.Way(); len(got) != 1 || got[0] != (api.NetworkProxyRule{Destination: "*", Target: "backup"}) {
		t.Errorf("Way() = %v", got)
	}
}

const key = "YAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="

func full() api.NetworkConfig {
	return api.NetworkConfig{
		DNS:  api.NetworkDNS{Hostname: "node1", Domain: "example.net", Nameservers: []string{"192.0.2.53", "2001:db8::53"}, SearchDomains: []string{"example.net"}},
		Time: api.NetworkTime{Timezone: "America/Argentina/Buenos_Aires", NTPServers: []string{"ntp.example.net", "192.0.2.123"}},
		Proxy: api.NetworkProxy{
			Servers: map[string]api.NetworkProxyServer{"corp": {Host: "proxy.example.net:3128", Auth: "basic", Username: "u", Password: "p"}},
			Rules:   []api.NetworkProxyRule{{Destination: "*.example.net|192.0.2.*", Target: "direct"}, {Destination: "*", Target: "corp"}},
		},
		Interfaces: []api.NetworkInterface{
			{
				Name: "mgmt", Hwaddr: "52:54:00:00:00:aa", LLDP: true, VLANTags: []int{10, 20},
				NetworkAddressing: api.NetworkAddressing{
					Addresses: []string{"dhcp4", "slaac", "192.0.2.10/24"},
					Routes:    []api.NetworkRoute{{To: "0.0.0.0/0", Via: "192.0.2.1"}, {To: "::/0", Via: "slaac"}},
					MTU:       9000, RequiredForOnline: "ipv4", Roles: []string{"management", "cluster"},
					FirewallRules: []api.NetworkFirewallRule{{Action: "accept", Source: "192.0.2.0/24", Protocol: "tcp", Port: 22}, {Action: "reject"}},
				},
				Ethernet: &api.NetworkEthernet{RxBufferSize: "max", WakeOnLAN: true, WakeOnLANModes: []string{"secureon"}, WakeOnLANPassword: "01:02:03:04:05:06"},
			},
			{Name: "thirteenchars", Hwaddr: "52:54:00:00:00:02"},
		},
		Bonds: []api.NetworkBond{{
			Name: "data", Mode: "802.3ad", Members: []string{"52:54:00:00:00:03", "52:54:00:00:00:04"},
			NetworkAddressing: api.NetworkAddressing{MTU: 9000, Roles: []string{"instances"}},
			Options:           api.NetworkBondOptions{LACPRate: "slow", UpDelay: 200},
		}},
		VLANs: []api.NetworkVLAN{{
			Name: "storage", Parent: "data", ID: 30,
			NetworkAddressing: api.NetworkAddressing{Addresses: []string{"198.51.100.5/24"}, MTU: 9000, Roles: []string{"storage"}},
		}},
		Wireguard: []api.NetworkWireguard{{
			Name: "wg0", Port: 51820, PrivateKey: key,
			NetworkAddressing: api.NetworkAddressing{Addresses: []string{"10.9.0.1/24"}},
			Peers:             []api.NetworkWireguardPeer{{PublicKey: key, AllowedIPs: []string{"10.9.0.2/32"}, Endpoint: "203.0.113.7:51820", PersistentKeepalive: 25}},
		}},
	}
}
