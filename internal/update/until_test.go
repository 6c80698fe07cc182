package update

import (
	"testing"
	"time"
)

func TestWhenToLook(t *testing.T) {
	now := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	night := []Window{{StartHour: 2, EndHour: 4}}
	tests := map[string]struct {
		s      Settings
		last   time.Time
		failed bool
		want   time.Duration
	}{
		"never":                     {Settings{Server: "x"}, time.Time{}, false, time.Minute},
		"nowhere":                   {Settings{Every: time.Hour}, time.Time{}, false, time.Minute},
		"soon after the start":      {Settings{Server: "x", Every: 6 * time.Hour}, time.Time{}, false, 5 * time.Minute},
		"not so soon":               {Settings{Server: "x", Every: 6 * time.Hour}, now.Add(-time.Hour), false, 5 * time.Hour},
		"now":                       {Settings{Server: "x", Every: 6 * time.Hour}, now.Add(-7 * time.Hour), false, 0},
		"sooner after it failed":    {Settings{Server: "x", Every: 6 * time.Hour}, now.Add(-time.Minute), true, retry - time.Minute},
		"not sooner than is wanted": {Settings{Server: "x", Every: 10 * time.Minute}, now.Add(-time.Minute), true, 9 * time.Minute},
		"in the next window":        {Settings{Server: "x", Every: 6 * time.Hour, Windows: night}, now.Add(-7 * time.Hour), false, 14 * time.Hour},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := until(tt.s, now, now.Add(5*time.Minute), tt.last, tt.failed); got != tt.want {
				t.Errorf("in %v, want %v", got, tt.want)
			}
		})
	}
}
