package api

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// ServiceOVN is the document of /os/1.0/services/ovn.
type ServiceOVN struct {
	Config ServiceOVNConfig `json:"config"`
	State  ServiceState     `json:"state"`
}

// ServiceOVNConfig makes this machine a chassis of an OVN deployment.
type ServiceOVNConfig struct {
	ServiceConfig
	ICChassis            bool   `json:"ic_chassis,omitempty"`             // a gateway between deployments
	Database             string `json:"database,omitempty"`               // the southbound database: "tcp:192.0.2.1:6642", with commas between several; "ssl:" with certificates
	TLSClientCertificate string `json:"tls_client_certificate,omitempty"` // PEM
	TLSClientKey         Secret `json:"tls_client_key,omitempty"`         // PEM
	TLSCACertificate     string `json:"tls_ca_certificate,omitempty"`     // PEM
	TunnelAddress        string `json:"tunnel_address,omitempty"`         // IP address of this machine; "" is that of the interface with the role cluster
	TunnelProtocol       string `json:"tunnel_protocol,omitempty"`        // "geneve" or "vxlan"; "" is geneve
}

// Validate reports the first thing in c that cannot work, as a FieldError.
func (c ServiceOVNConfig) Validate() error {
	if c.Database == "" && c.Enabled {
		return Fieldf("database", "is missing; want the southbound database, such as %q", "tcp:192.0.2.1:6642")
	}
	if c.Database != "" {
		for db := range strings.SplitSeq(c.Database, ",") {
			if err := c.database(db); err != nil {
				return err
			}
		}
	}
	if _, err := netip.ParseAddr(c.TunnelAddress); c.TunnelAddress != "" && err != nil {
		return Fieldf("tunnel_address", "%q is no IP address; want one of this machine", c.TunnelAddress)
	}
	if err := oneOf("tunnel_protocol", c.TunnelProtocol, "", "geneve", "vxlan"); err != nil {
		return err
	}
	if err := pemField("tls_client_certificate", c.TLSClientCertificate); err != nil {
		return err
	}
	if err := pemField("tls_client_key", string(c.TLSClientKey)); err != nil {
		return err
	}
	if err := pemField("tls_ca_certificate", c.TLSCACertificate); err != nil {
		return err
	}
	return allOrNone(map[string]bool{
		"tls_client_certificate": c.TLSClientCertificate != "", "tls_client_key": c.TLSClientKey != "", "tls_ca_certificate": c.TLSCACertificate != "",
	})
}

// database checks one place of the database (ovsdb(7), connection methods).
func (c ServiceOVNConfig) database(db string) error {
	method, where, ok := strings.Cut(db, ":")
	at := strings.LastIndexByte(where, ':')
	if !ok || at < 0 || method != "tcp" && method != "ssl" {
		return Fieldf("database", "%q is no place of a database; want one such as %q", db, "tcp:192.0.2.1:6642")
	}
	host := strings.TrimSuffix(strings.TrimPrefix(where[:at], "["), "]")
	if err := hostField("database", host); err != nil {
		return err
	}
	if n, err := strconv.Atoi(where[at+1:]); err != nil || n < 1 || n > 65535 {
		return Fieldf("database", "%q is no port; want one such as %q", where[at+1:], fmt.Sprint(6642))
	}
	if method == "ssl" && c.TLSClientCertificate == "" {
		return Fieldf("tls_client_certificate", "is missing although %q wants TLS; want certificate, key and CA in PEM", db)
	}
	return nil
}
