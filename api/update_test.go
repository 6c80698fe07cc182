package api_test

import (
	"strings"
	"testing"
	"time"

	"github.com/incusos/incusos/api"
)

func TestUpdateConfigsAreChecked(t *testing.T) {
	window := func(w api.UpdateMaintenanceWindow) api.SystemUpdateConfig {
		return api.SystemUpdateConfig{MaintenanceWindows: []api.UpdateMaintenanceWindow{{}, w}}
	}
	tests := map[string]api.SystemUpdateConfig{
		"channel: \"a b\" is no channel":                                    {Channel: "a b"},
		"check_frequency: \"often\" is no frequency":                        {CheckFrequency: "often"},
		"check_frequency: \"1s\" is no frequency; want a time of a minute":  {CheckFrequency: "1s"},
		"check_frequency: \"-1h\" is no frequency":                          {CheckFrequency: "-1h"},
		"maintenance_windows[1].start_hour: want 0 to 23":                   window(api.UpdateMaintenanceWindow{StartHour: 24}),
		"maintenance_windows[1].end_minute: want 0 to 59":                   window(api.UpdateMaintenanceWindow{EndMinute: -1}),
		"maintenance_windows[1].start_day_of_week: want \"Sunday\"":         window(api.UpdateMaintenanceWindow{StartDayOfWeek: "monday", EndDayOfWeek: "Friday"}),
		"maintenance_windows[1].end_day_of_week: want both days or neither": window(api.UpdateMaintenanceWindow{StartDayOfWeek: "Monday"}),
		"maintenance_windows[1].end_hour: the window ends before it starts": window(api.UpdateMaintenanceWindow{StartDayOfWeek: "Monday", EndDayOfWeek: "Monday", StartHour: 2, EndHour: 1}),
	}
	for want, c := range tests {
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", c, err, want)
		}
	}
	for text, want := range map[string]time.Duration{"": 6 * time.Hour, "never": 0, "90m": 90 * time.Minute} {
		c := api.SystemUpdateConfig{Channel: "stable-2", CheckFrequency: text}
		if got, err := c.Frequency(); got != want || err != nil || c.Validate() != nil {
			t.Errorf("%q is %v (%v, %v), want %v", text, got, err, c.Validate(), want)
		}
	}
}

func TestProviderConfigsAreChecked(t *testing.T) {
	tests := map[string]api.SystemProviderConfig{
		"name: \"debug\" is no provider of this release; want \"images\"": {Name: "debug"},
		"config.server_url: want an address such as":                      {Config: api.ProviderSettings{ServerURL: "ftp://x"}},
		"config.server_url: want an address such as \"https":              {Config: api.ProviderSettings{ServerURL: "https://me:secret@x"}},
		"config.root: want what `incusos repo root` prints":               {Config: api.ProviderSettings{Root: "{"}},
	}
	for want, c := range tests {
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%+v: %v, want %q", c, err, want)
		}
	}
	if err := (api.SystemProviderConfig{Name: "images", Config: api.ProviderSettings{ServerURL: "https://example.net/os", Root: "{}"}}).Validate(); err != nil {
		t.Error(err)
	}
}
