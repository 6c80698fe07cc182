package api_test

import (
	"strings"
	"testing"

	"github.com/incusos/incusos/api"
)

func TestNetworkValidate(t *testing.T) {
	tests := map[string]struct {
		change func(c *api.NetworkConfig)
		field  string // "" means valid
	}{
		"a full configuration":        {func(*api.NetworkConfig) {}, ""},
		"nothing at all":              {func(c *api.NetworkConfig) { *c = api.NetworkConfig{} }, ""},
		"a card named instead of MAC": {func(c *api.NetworkConfig) { c.Interfaces[0].Hwaddr = "enp1s0" }, ""},
		"a hostname with a dot":       {func(c *api.NetworkConfig) { c.DNS.Hostname = "a.b" }, "dns.hostname"},
		"a domain with a space":       {func(c *api.NetworkConfig) { c.DNS.Domain = "a b" }, "dns.domain"},
		"a nameserver by name":        {func(c *api.NetworkConfig) { c.DNS.Nameservers = []string{"192.0.2.1", "ns"} }, "dns.nameservers[1]"},
		"an empty search domain":      {func(c *api.NetworkConfig) { c.DNS.SearchDomains = []string{""} }, "dns.search_domains[0]"},
		"a time zone that escapes":    {func(c *api.NetworkConfig) { c.Time.Timezone = "../../etc/shadow" }, "time.timezone"},
		"an NTP server with a port":   {func(c *api.NetworkConfig) { c.Time.NTPServers = []string{"ntp:123"} }, "time.ntp_servers[0]"},
		"a name too long":             {func(c *api.NetworkConfig) { c.Interfaces[1].Name = "fourteenletter" }, "interfaces[1].name"},
		"a name of ours":              {func(c *api.NetworkConfig) { c.Interfaces[0].Name = "_vmgmt" }, "interfaces[0].name"},
		"one name twice":              {func(c *api.NetworkConfig) { c.Interfaces[1].Name = "mgmt" }, "interfaces[1].name"},
		"no card":                     {func(c *api.NetworkConfig) { c.Interfaces[0].Hwaddr = "" }, "interfaces[0].hwaddr"},
		"one card twice":              {func(c *api.NetworkConfig) { c.Interfaces[1].Hwaddr = "52:54:00:00:00:AA" }, "interfaces[1].hwaddr"},
		"an address without length":   {func(c *api.NetworkConfig) { c.Interfaces[0].Addresses = []string{"192.0.2.1"} }, "interfaces[0].addresses[0]"},
		"an unknown way to addresses": {func(c *api.NetworkConfig) { c.Interfaces[0].Addresses = []string{"dhcp"} }, "interfaces[0].addresses[0]"},
		"a route to a single host":    {func(c *api.NetworkConfig) { c.Interfaces[0].Routes[0].To = "192.0.2.9" }, "interfaces[0].routes[0].to"},
		"a route over a name":         {func(c *api.NetworkConfig) { c.Interfaces[0].Routes[0].Via = "gw" }, "interfaces[0].routes[0].via"},
		"a route of two families":     {func(c *api.NetworkConfig) { c.Interfaces[0].Routes[0].Via = "2001:db8::1" }, "interfaces[0].routes[0].via"},
		"an MTU IPv6 cannot live on":  {func(c *api.NetworkConfig) { c.Interfaces[0].MTU = 1279 }, "interfaces[0].mtu"},
		"an unknown requirement":      {func(c *api.NetworkConfig) { c.Interfaces[0].RequiredForOnline = "yes" }, "interfaces[0].required_for_online"},
		"two minutes to confirm":      {func(c *api.NetworkConfig) { c.ConfirmationTimeout = "2m" }, ""},
		"no time to confirm":          {func(c *api.NetworkConfig) { c.ConfirmationTimeout = "0s" }, "confirmation_timeout"},
		"a day to confirm":            {func(c *api.NetworkConfig) { c.ConfirmationTimeout = "24h" }, "confirmation_timeout"},
		"an unknown role":             {func(c *api.NetworkConfig) { c.Interfaces[0].Roles = []string{"cluster", "boss"} }, "interfaces[0].roles[1]"},
	}
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

func TestNetworkReasonsSayWhatWouldBeRight(t *testing.T) {
	c := full()
	c.Interfaces[0].RequiredForOnline = "yes"
	if err := c.Validate(); !strings.HasSuffix(err.Error(), `"yes" is unknown; want any, ipv4, ipv6, both or no`) {
		t.Errorf("Validate() = %v", err)
	}
}

func full() api.NetworkConfig {
	return api.NetworkConfig{
		DNS:  api.NetworkDNS{Hostname: "node1", Domain: "example.net", Nameservers: []string{"192.0.2.53", "2001:db8::53"}, SearchDomains: []string{"example.net"}},
		Time: api.NetworkTime{Timezone: "America/Argentina/Buenos_Aires", NTPServers: []string{"ntp.example.net", "192.0.2.123"}},
		Interfaces: []api.NetworkInterface{
			{
				Name: "mgmt", Hwaddr: "52:54:00:00:00:aa", Addresses: []string{"dhcp4", "slaac", "192.0.2.10/24"},
				Routes: []api.NetworkRoute{{To: "0.0.0.0/0", Via: "192.0.2.1"}, {To: "::/0", Via: "slaac"}},
				MTU:    9000, RequiredForOnline: "ipv4", Roles: []string{"management", "cluster"}, LLDP: true,
			},
			{Name: "thirteenchars", Hwaddr: "52:54:00:00:00:02"},
		},
	}
}
