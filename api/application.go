package api

import "time"

// An Application is the document of /os/1.0/applications/NAME.
type Application struct {
	State  ApplicationState  `json:"state"`
	Config ApplicationConfig `json:"config"`
}

// ApplicationConfig is what the operator wants of an application.
type ApplicationConfig struct {
	PinCurrentVersions bool              `json:"pin_current_versions"` // stay with the version it has
	LXCFS              *ApplicationLXCFS `json:"lxcfs,omitempty"`      // of Incus alone
}

// ApplicationLXCFS is what containers are told about the machine.
type ApplicationLXCFS struct {
	CPUShares   bool `json:"cpu_shares"`   // processors as far as the container's share goes
	LoadAverage bool `json:"load_average"` // the container's load instead of the machine's
}

// ApplicationState is an application as it is.
type ApplicationState struct {
	IsPrimary         bool       `json:"is_primary"`
	Initialized       bool       `json:"initialized"`
	FriendlyVersion   string     `json:"friendly_version"` // such as "7.0.2 [202601010000]"
	Version           string     `json:"version"`          // of the image
	AvailableVersions []string   `json:"available_versions"`
	LastRestored      *time.Time `json:"last_restored,omitempty"`
}

// An ApplicationAdd is the request to install an application.
type ApplicationAdd struct {
	Name string `json:"name"`
}

// An ApplicationSwitch is the request to run another version of one.
type ApplicationSwitch struct {
	Version string `json:"version,omitempty"` // "" is the one before
}

// An ApplicationBackup says what a backup holds.
type ApplicationBackup struct {
	Complete bool `json:"complete,omitempty"` // with what could be fetched again
}

// An ApplicationAction is something that one application alone can do.
type ApplicationAction struct {
	Action string            `json:"action"`
	Config map[string]string `json:"config,omitempty"`
}
