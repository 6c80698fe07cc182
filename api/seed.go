package api

import (
	"fmt"
	"strings"
)

// SeedInstall is the section `install` of a seed. That it is there, even empty,
// makes the machine install itself from the medium it was booted from.
type SeedInstall struct {
	Version                  string              `json:"version,omitempty"`
	ForceInstall             bool                `json:"force_install,omitempty"`              // the target may hold data
	ForceInstallConfirmation string              `json:"force_install_confirmation,omitempty"` // first six characters of the machine-id that goes away
	ForceReboot              bool                `json:"force_reboot,omitempty"`               // do not wait until the medium is removed
	Security                 SeedInstallSecurity `json:"security,omitzero"`
	Target                   *SeedInstallTarget  `json:"target,omitempty"` // nil: the only disk there is
}

// SeedInstallSecurity lists what the machine lacks, and is installed without all the same:
// one of them at most. What is set and not lacking is refused. A machine that was
// installed so is marked as not trusted, and says so as long as it is.
type SeedInstallSecurity struct {
	MissingTPM        bool `json:"missing_tpm,omitempty"`         // there is no TPM 2.0, and one in software will do
	MissingSecureBoot bool `json:"missing_secure_boot,omitempty"` // the firmware has no Secure Boot, or it is off
}

// SeedInstallTarget selects a disk. All that is given must hold.
type SeedInstallTarget struct {
	Bus       string `json:"bus,omitempty"`        // "nvme", "scsi", "usb", "virtio" or "mmc"
	ID        string `json:"id,omitempty"`         // part of a name in /dev/disk/by-id, or a whole device path
	MinSize   string `json:"min_size,omitempty"`   // such as "100GiB"
	MaxSize   string `json:"max_size,omitempty"`   // such as "4TiB"
	SortOrder string `json:"sort_order,omitempty"` // of several: "smallest" or "largest"
}

// Validate reports the first thing in s that cannot work, as a FieldError.
func (s SeedInstall) Validate() error {
	if s.Security.MissingTPM && s.Security.MissingSecureBoot {
		return Fieldf("security.missing_secure_boot", "is set beside missing_tpm; a machine may lack one of them, and not both")
	}
	if s.Target == nil {
		return nil
	}
	return s.Target.validate()
}

func (t SeedInstallTarget) validate() error {
	if err := oneOf("target.bus", t.Bus, "", "nvme", "scsi", "usb", "virtio", "mmc"); err != nil {
		return err
	}
	smallest, err := sizeField("target.min_size", t.MinSize)
	if err != nil {
		return err
	}
	largest, err := sizeField("target.max_size", t.MaxSize)
	if err != nil {
		return err
	}
	if t.MaxSize != "" && largest < smallest {
		return Fieldf("target.max_size", "%s is below min_size; want %s or more", t.MaxSize, t.MinSize)
	}
	return oneOf("target.sort_order", t.SortOrder, "", "smallest", "largest")
}

func sizeField(field, value string) (uint64, error) {
	if value == "" {
		return 0, nil
	}
	n, err := ParseSize(value)
	if err != nil {
		return 0, Fieldf(field, "%v", err)
	}
	return n, nil
}

// SeedApplications is the section `applications`: what to install at first boot.
type SeedApplications struct {
	Version      string            `json:"version,omitempty"`
	Applications []SeedApplication `json:"applications"`
}

// A SeedApplication names an application.
type SeedApplication struct {
	Name string `json:"name"` // such as "incus"
}

// Validate reports the first thing in s that cannot work, as a FieldError. An
// empty list is refused: it is more likely forgotten than wanted.
func (s SeedApplications) Validate() error {
	if len(s.Applications) == 0 {
		return Fieldf("applications", "is empty; want at least one application, such as {name: incus}")
	}
	seen := make(map[string]int)
	for i, a := range s.Applications {
		field := fmt.Sprintf("applications[%d].name", i)
		if !ApplicationName(a.Name) {
			return Fieldf(field, "%q is no application name; want lower case letters, digits and dashes", a.Name)
		}
		if first, ok := seen[a.Name]; ok {
			return Fieldf(field, "%q is already listed as applications[%d]", a.Name, first)
		}
		seen[a.Name] = i
	}
	return nil
}

// ApplicationName reports whether s can name an application: lower case
// letters, digits and dashes.
func ApplicationName(s string) bool {
	return s != "" && only(s, "-") && s == strings.ToLower(s)
}

// SeedIncus is the section `incus`: how Incus is set up at first start.
type SeedIncus struct {
	Version       string         `json:"version,omitempty"`
	ApplyDefaults bool           `json:"apply_defaults,omitempty"` // a pool, a bridge and a default profile
	Preseed       map[string]any `json:"preseed,omitempty"`        // Incus' own document (`incus admin init --preseed`)
}

// SeedNetwork is the section `network`.
type SeedNetwork struct {
	Version string `json:"version,omitempty"`
	NetworkConfig
}

// SeedKernel is the section `kernel`.
type SeedKernel struct {
	Version string `json:"version,omitempty"`
	SystemKernelConfig
}

// SeedLogging is the section `logging`.
type SeedLogging struct {
	Version string `json:"version,omitempty"`
	SystemLoggingConfig
}

// SeedSecurity is the section `security`.
type SeedSecurity struct {
	Version                string   `json:"version,omitempty"`
	CustomCACerts          []string `json:"custom_ca_certs,omitempty"`          // PEM, one certificate each
	EncryptionRecoveryKeys []Secret `json:"encryption_recovery_keys,omitempty"` // none: a seed lies in the clear

	// ShowRecoveryKey has the consoles show the recovery key of root, as text and as a QR
	// code, once the machine is set up. Ours: upstream has no such field.
	ShowRecoveryKey bool `json:"show_recovery_key,omitempty"`
}

// Validate reports the first thing in s that cannot work, as a FieldError.
func (s SeedSecurity) Validate() error {
	if len(s.EncryptionRecoveryKeys) > 0 {
		return Fieldf("encryption_recovery_keys", "is not taken from a seed, which lies in the clear; add keys over the API once the machine is up")
	}
	return SystemSecurityConfig{CustomCACerts: s.CustomCACerts}.checkCertificates()
}

// SeedUpdate is the section `update`.
type SeedUpdate struct {
	Version string `json:"version,omitempty"`
	SystemUpdateConfig
}

// SeedProvider is the section `provider`.
type SeedProvider struct {
	Version string `json:"version,omitempty"`
	SystemProviderConfig
}
