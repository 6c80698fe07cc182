package api

// SystemFallbackListener is the document of /os/1.0/system/fallback-listener.
type SystemFallbackListener struct {
	Config SystemFallbackListenerConfig `json:"config"`
	State  SystemFallbackListenerState  `json:"state"`
}

// SystemFallbackListenerConfig is a way to the API for when Incus cannot answer.
// Without certificates there is none.
type SystemFallbackListenerConfig struct {
	ListenAddress             string   `json:"listen_address,omitempty"`              // address and port; "" is port 8443 of every address
	TrustedClientCertificates []string `json:"trusted_client_certificates,omitempty"` // in PEM
}

// SystemFallbackListenerState is whether that way is open.
type SystemFallbackListenerState struct {
	Active  bool   `json:"active"`
	Address string `json:"address,omitempty"` // where it listens; ours: upstream has no such field
}
