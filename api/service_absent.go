package api

import (
	"fmt"
	"net/netip"
	"strings"
)

// ServiceLinstor is the document of /os/1.0/services/linstor.
type ServiceLinstor struct {
	Config ServiceLinstorConfig `json:"config"`
	State  ServiceState         `json:"state"`
}

// ServiceLinstorConfig makes this machine a satellite of LINSTOR. This release
// cannot enable it.
type ServiceLinstorConfig struct {
	ServiceConfig
	ListenAddress          string   `json:"listen_address,omitempty"` // address and port; "" is every address, port 3366, or 3367 with TLS
	TLSServerCertificate   string   `json:"tls_server_certificate,omitempty"`
	TLSServerKey           Secret   `json:"tls_server_key,omitempty"`
	TLSTrustedCertificates []string `json:"tls_trusted_certificates,omitempty"`
}

// Validate reports the first thing in c that cannot work, as a FieldError.
func (c ServiceLinstorConfig) Validate() error {
	if err := pemField("tls_server_certificate", c.TLSServerCertificate); err != nil {
		return err
	}
	if err := pemField("tls_server_key", string(c.TLSServerKey)); err != nil {
		return err
	}
	for i, cert := range c.TLSTrustedCertificates {
		if err := pemField(fmt.Sprintf("tls_trusted_certificates[%d]", i), cert); err != nil {
			return err
		}
	}
	return allOrNone(map[string]bool{
		"tls_server_certificate": c.TLSServerCertificate != "", "tls_server_key": c.TLSServerKey != "",
		"tls_trusted_certificates": len(c.TLSTrustedCertificates) > 0,
	})
}

// ServiceNetbird is the document of /os/1.0/services/netbird.
type ServiceNetbird struct {
	Config ServiceNetbirdConfig `json:"config"`
	State  ServiceState         `json:"state"`
}

// ServiceNetbirdConfig makes this machine a peer of a NetBird network. This
// release cannot enable it.
type ServiceNetbirdConfig struct {
	ServiceConfig
	SetupKey            Secret   `json:"setup_key,omitempty"`
	ManagementURL       string   `json:"management_url,omitempty"`
	AdminURL            string   `json:"admin_url,omitempty"`
	Anonymize           bool     `json:"anonymize,omitempty"`
	BlockInbound        bool     `json:"block_inbound,omitempty"`
	BlockLANAccess      bool     `json:"block_lan_access,omitempty"`
	DisableClientRoutes bool     `json:"disable_client_routes,omitempty"`
	DisableServerRoutes bool     `json:"disable_server_routes,omitempty"`
	DisableDNS          bool     `json:"disable_dns,omitempty"`
	DisableFirewall     bool     `json:"disable_firewall,omitempty"`
	DNSResolverAddress  string   `json:"dns_resolver_address,omitempty"`
	ExternalIPMap       []string `json:"external_ip_map,omitempty"`
	ExtraDNSLabels      []string `json:"extra_dns_labels,omitempty"`
}

// Validate reports the first thing in c that cannot work, as a FieldError.
func (c ServiceNetbirdConfig) Validate() error {
	if err := urlField("management_url", c.ManagementURL); err != nil {
		return err
	}
	return urlField("admin_url", c.AdminURL)
}

// ServiceTailscale is the document of /os/1.0/services/tailscale.
type ServiceTailscale struct {
	Config ServiceTailscaleConfig `json:"config"`
	State  ServiceState           `json:"state"`
}

// ServiceTailscaleConfig makes this machine a node of a tailnet. This release
// cannot enable it.
type ServiceTailscaleConfig struct {
	ServiceConfig
	LoginServer            string   `json:"login_server,omitempty"`
	AuthKey                Secret   `json:"auth_key,omitempty"`
	AcceptRoutes           bool     `json:"accept_routes,omitempty"`
	AcceptDNS              bool     `json:"accept_dns,omitempty"`
	AdvertisedRoutes       []string `json:"advertised_routes,omitempty"`
	AdvertiseExitNode      bool     `json:"advertise_exit_node,omitempty"`
	ExitNode               string   `json:"exit_node,omitempty"`
	ExitNodeAllowLANAccess bool     `json:"exit_node_allow_lan_access,omitempty"`
	ServeEnabled           bool     `json:"serve_enabled,omitempty"`
	ServePort              int      `json:"serve_port,omitempty"`
	ServeService           string   `json:"serve_service,omitempty"`
}

// Validate reports the first thing in c that cannot work, as a FieldError.
func (c ServiceTailscaleConfig) Validate() error {
	if err := urlField("login_server", c.LoginServer); err != nil {
		return err
	}
	for i, r := range c.AdvertisedRoutes {
		if _, err := netip.ParsePrefix(r); err != nil {
			return Fieldf(fmt.Sprintf("advertised_routes[%d]", i), "%q is no network; want one such as %q", r, "192.0.2.0/24")
		}
	}
	return portField("serve_port", c.ServePort)
}

func urlField(field, value string) error {
	if value != "" && (!strings.HasPrefix(value, "https://") && !strings.HasPrefix(value, "http://") || !printable(value, `"'\`)) {
		return Fieldf(field, "%q is no URL; want one such as %q", value, "https://vpn.example.org")
	}
	return nil
}
