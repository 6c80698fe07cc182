package api

import (
	"fmt"
	"net/netip"
)

// SystemFallbackListener is the document of /os/1.0/system/fallback-listener.
type SystemFallbackListener struct {
	Config SystemFallbackListenerConfig `json:"config"`
	State  SystemFallbackListenerState  `json:"state"`
}

// SystemFallbackListenerConfig is a way to the API for when Incus cannot answer.
// Without certificates there is none.
type SystemFallbackListenerConfig struct {
	ListenAddress             string   `json:"listen_address,omitempty"`              // IP address and port; "" is port 8443 of every address
	TrustedClientCertificates []string `json:"trusted_client_certificates,omitempty"` // in PEM, one certificate each
}

// SystemFallbackListenerState is whether that way is open.
type SystemFallbackListenerState struct {
	Active      bool   `json:"active"`
	Address     string `json:"address,omitempty"`     // where it listens; ours: upstream has no such field
	Fingerprint string `json:"fingerprint,omitempty"` // SHA-256 of the certificate it shows, in hexadecimal; ours: upstream has no such field
}

// Validate reports the first thing in c that cannot work, as a FieldError.
func (c SystemFallbackListenerConfig) Validate() error {
	if a := c.ListenAddress; a != "" {
		if p, err := netip.ParseAddrPort(a); err != nil || p.Port() == 0 {
			return Fieldf("listen_address", "%q is no IP address and port; want one such as %q, or %q for every address", a, "192.0.2.10:8443", "[::]:8443")
		}
		if len(c.TrustedClientCertificates) == 0 {
			return Fieldf("trusted_client_certificates", "is empty; want the certificate of at least one client, or no listen_address to have no listener")
		}
	}
	for i, text := range c.TrustedClientCertificates {
		if err := checkCertificate(text); err != nil {
			return Fieldf(fmt.Sprintf("trusted_client_certificates[%d]", i), "%v; want one certificate in PEM", err)
		}
	}
	return nil
}
