package api

// A Service is the part of the document of /os/1.0/services/NAME that all have.
type Service struct {
	Config ServiceConfig `json:"config"`
	State  struct{}      `json:"state"`
}

// ServiceConfig is the part of a service's configuration that all have.
type ServiceConfig struct {
	Enabled bool `json:"enabled"`
}
