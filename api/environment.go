package api

// A Mode says what an image may be trusted with.
type Mode string

const (
	ModeRelease Mode = "release" // built to be kept: no way in but the API
	ModeDev     Mode = "dev"     // has a root shell; for people who work on IncusOS
)

// Server is the document at /os/1.0.
type Server struct {
	Environment Environment `json:"environment"`
}

// Environment describes the running system. All of it is observed.
type Environment struct {
	Hostname           string `json:"hostname"`                       // the kernel's, as set by the operator or made up from the hardware
	MachineID          string `json:"machine_id"`                     // 32 hexadecimal digits, of this installation
	Mode               Mode   `json:"mode"`                           // ours: upstream has no such field
	OSName             string `json:"os_name"`                        // NAME of os-release
	OSVersion          string `json:"os_version"`                     // the running image, such as "202601010000"
	OSVersionNext      string `json:"os_version_next"`                // what the next boot runs; the running one if nothing is staged
	OSVersionAlternate string `json:"os_version_alternate,omitempty"` // the image in the other slot
	SystemIsReady      bool   `json:"system_is_ready"`                // every area was brought up once since boot
	Uptime             int64  `json:"uptime"`                         // seconds since boot
}
