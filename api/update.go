package api

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"time"
)

// SystemUpdate is the document of /os/1.0/system/update.
type SystemUpdate struct {
	Config SystemUpdateConfig `json:"config"`
	State  SystemUpdateState  `json:"state"`
}

// SystemUpdateConfig says when updates are made.
type SystemUpdateConfig struct {
	AutoReboot         bool                      `json:"auto_reboot"`                   // restart into a new version without being asked
	Channel            string                    `json:"channel"`                       // such as "stable", which "" is
	CheckFrequency     string                    `json:"check_frequency"`               // how often to look, such as "6h", which "" is; "never"
	MaintenanceWindows []UpdateMaintenanceWindow `json:"maintenance_windows,omitempty"` // updates are made in one of these; none: always
	UrgentFrom         string                    `json:"urgent_from,omitempty"`         // ours: "low", "medium", "high" or "critical": releases that are so severe or more wait for no window; "": all wait
	Paused             bool                      `json:"paused,omitempty"`              // ours: nothing is looked for, fetched or restarted into until this is taken back
}

// An UpdateMaintenanceWindow is a time of each day, or from a day of the week to
// another, in the time zone of the machine. Its last minute belongs to it.
type UpdateMaintenanceWindow struct {
	StartDayOfWeek string `json:"start_day_of_week,omitempty"` // "Sunday" to "Saturday"; "" is every day
	StartHour      int    `json:"start_hour"`                  // 0 to 23
	StartMinute    int    `json:"start_minute"`                // 0 to 59
	EndDayOfWeek   string `json:"end_day_of_week,omitempty"`   // given if start_day_of_week is
	EndHour        int    `json:"end_hour"`                    // 0 to 23
	EndMinute      int    `json:"end_minute"`                  // 0 to 59
}

// SystemUpdateState is how updates fare.
type SystemUpdateState struct {
	LastCheck   time.Time       `json:"last_check"`        // zero: not since the start
	Status      string          `json:"status"`            // a sentence
	NeedsReboot bool            `json:"needs_reboot"`      // a version waits for a restart
	Phase       string          `json:"phase,omitempty"`   // "fetching", "staged" or "trying"; "" is none
	Version     string          `json:"version,omitempty"` // the one that the phase is about
	Progress    UpdateProgress  `json:"progress,omitzero"` // of what is being fetched
	Failed      []UpdateFailure `json:"failed,omitempty"`  // versions that were tried and did not work, the newest first
	Cluster     *RollingState   `json:"cluster,omitempty"` // whose turn it is to restart; null: the machine is in no cluster, or Incus does not answer
}

// An UpdateProgress is how much of an image was fetched, in bytes. What the machine has
// already is no part of it.
type UpdateProgress struct {
	Done  uint64 `json:"done"`
	Total uint64 `json:"total"`
}

// An UpdateFailure is a version that did not work. It is not tried again.
type UpdateFailure struct {
	Version string   `json:"version"`
	Reason  string   `json:"reason"`
	Log     []string `json:"log,omitempty"` // the end of what its starts wrote, a line each; of the newest failure alone
}

// An UpdateForgive is what /os/1.0/system/update/:forgive takes.
type UpdateForgive struct {
	Version string `json:"version,omitempty"` // "": all that did not work
}

// An UpdateRollback is what /os/1.0/system/update/:rollback takes.
type UpdateRollback struct {
	Reboot bool `json:"reboot,omitempty"` // restart at once; otherwise it counts from the next restart on
}

// SystemProvider is the document of /os/1.0/system/provider.
type SystemProvider struct {
	Config SystemProviderConfig `json:"config"`
	State  SystemProviderState  `json:"state"`
}

// SystemProviderConfig says where updates come from.
type SystemProviderConfig struct {
	Name   string           `json:"name"`            // "images", which "" is: an update repository
	Config ProviderSettings `json:"config,omitzero"` // of that provider
}

// ProviderSettings say where a repository is.
type ProviderSettings struct {
	ServerURL string `json:"server_url,omitempty"` // such as "https://updates.example.net/incusos"; "" is none
	Token     Secret `json:"token,omitempty"`      // for a server that wants one
	Root      string `json:"root,omitempty"`       // ours: what `incusos repo root` prints; "" trusts what the image came with
}

// SystemProviderState is how the provider fares.
type SystemProviderState struct {
	Registered bool `json:"registered"` // always false: repositories know no machines
}

// Defaults of a SystemUpdateConfig.
const (
	DefaultChannel        = "stable"
	DefaultCheckFrequency = "6h"
	neverCheck            = "never"
)

// Frequency returns how often to look for updates; 0 is never.
func (c SystemUpdateConfig) Frequency() (time.Duration, error) {
	switch c.CheckFrequency {
	case neverCheck:
		return 0, nil
	case "":
		return time.ParseDuration(DefaultCheckFrequency)
	}
	return time.ParseDuration(c.CheckFrequency)
}

// Validate reports what cannot be.
func (c SystemUpdateConfig) Validate() error {
	if c.Channel != "" && (!only(c.Channel, "-._") || len(c.Channel) > 64) {
		return Fieldf("channel", "%q is no channel; want letters, digits, '-', '.' and '_'", c.Channel)
	}
	if every, err := c.Frequency(); err != nil || every < 0 || every > 0 && every < time.Minute {
		return Fieldf("check_frequency", "%q is no frequency; want a time of a minute at least, such as \"6h\", or \"never\"", c.CheckFrequency)
	}
	if err := oneOf("urgent_from", c.UrgentFrom, "", "low", "medium", "high", "critical"); err != nil {
		return err
	}
	for i, w := range c.MaintenanceWindows {
		if field, reason := w.validate(); field != "" {
			return Fieldf(fmt.Sprintf("maintenance_windows[%d].%s", i, field), "%s", reason)
		}
	}
	return nil
}

func daysOfWeek() []string {
	return []string{"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"}
}

// validate reports which field of a window is wrong, and why; "" if none is.
func (w UpdateMaintenanceWindow) validate() (field, reason string) {
	for _, n := range []struct {
		field       string
		value, most int
		want        string
	}{
		{"start_hour", w.StartHour, 23, "want 0 to 23"}, {"start_minute", w.StartMinute, 59, "want 0 to 59"},
		{"end_hour", w.EndHour, 23, "want 0 to 23"}, {"end_minute", w.EndMinute, 59, "want 0 to 59"},
	} {
		if n.value < 0 || n.value > n.most {
			return n.field, n.want
		}
	}
	switch start, end := w.StartDayOfWeek, w.EndDayOfWeek; {
	case start != "" && !slices.Contains(daysOfWeek(), start):
		return "start_day_of_week", "want \"Sunday\" to \"Saturday\""
	case end != "" && !slices.Contains(daysOfWeek(), end):
		return "end_day_of_week", "want \"Sunday\" to \"Saturday\""
	case (start == "") != (end == ""):
		return "end_day_of_week", "want both days or neither"
	case start != "" && start == end && w.EndHour*60+w.EndMinute < w.StartHour*60+w.StartMinute:
		return "end_hour", "the window ends before it starts"
	}
	return "", ""
}

// Validate reports what cannot be.
func (c SystemProviderConfig) Validate() error {
	if c.Name != "" && c.Name != "images" {
		return Fieldf("name", "%q is no provider of this release; want \"images\"", c.Name)
	}
	if s := c.Config.ServerURL; s != "" {
		u, err := url.Parse(s)
		if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil {
			return Fieldf("config.server_url", "want an address such as \"https://updates.example.net/incusos\", without a password in it")
		}
	}
	if c.Config.Root != "" && !json.Valid([]byte(c.Config.Root)) {
		return Fieldf("config.root", "want what `incusos repo root` prints")
	}
	return nil
}
