package update_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/incusos/incusos/internal/update"
)

// 2026-11-29 is a Sunday.
func on(weekday time.Weekday, hour, minute int) time.Time {
	return time.Date(2026, 11, 29+int(weekday), hour, minute, 0, 0, time.UTC)
}

func TestWindows(t *testing.T) {
	morning := update.Window{StartHour: 10, EndHour: 11, EndMinute: 15}
	night := update.Window{StartHour: 23, StartMinute: 30, EndHour: 2}
	thursday := update.Window{StartDay: "Thursday", EndDay: "Thursday", StartHour: 12, EndHour: 12, EndMinute: 15}
	midweek := update.Window{StartDay: "Wednesday", EndDay: "Friday", EndHour: 23, EndMinute: 59}
	weekend := update.Window{StartDay: "Saturday", EndDay: "Sunday", EndHour: 23, EndMinute: 59}
	const day = 24 * time.Hour
	tests := map[string]struct {
		w     update.Window
		now   time.Time
		until time.Duration // 0: active
	}{
		"a minute before":         {morning, on(time.Thursday, 9, 59), time.Minute},
		"its last minute":         {morning, on(time.Thursday, 11, 15), 0},
		"a minute after":          {morning, on(time.Thursday, 11, 16), 22*time.Hour + 44*time.Minute},
		"after midnight":          {night, on(time.Friday, 1, 59), 0},
		"a minute after midnight": {night, on(time.Friday, 2, 1), 21*time.Hour + 29*time.Minute},
		"the day before":          {thursday, on(time.Wednesday, 12, 5), 23*time.Hour + 55*time.Minute},
		"the day after":           {thursday, on(time.Friday, 12, 5), 5*day + 23*time.Hour + 55*time.Minute},
		"days, after":             {midweek, on(time.Saturday, 0, 0), 4 * day},
		"over the end of a week":  {weekend, on(time.Sunday, 0, 0), 0},
		"over it, after":          {weekend, on(time.Monday, 0, 0), 5 * day},
		"seconds count":           {morning, on(time.Thursday, 9, 59).Add(20 * time.Second), 40 * time.Second},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := tt.w.Until(tt.now); got != tt.until || tt.w.Active(tt.now) != (tt.until == 0) {
				t.Errorf("active %v, until %v, want %v", tt.w.Active(tt.now), got, tt.until)
			}
		})
	}
	if wait := update.Allowed([]update.Window{thursday, morning}, on(time.Wednesday, 12, 5)); wait != 21*time.Hour+55*time.Minute {
		t.Errorf("the next of two windows is in %v", wait)
	}
	if wait := update.Allowed(nil, on(time.Sunday, 0, 0)); wait != 0 {
		t.Errorf("without windows one waits for %v", wait)
	}
}

// Whoever waits until a window begins finds it active, and not a moment before.
func TestWaitingForAWindow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		minutes := rapid.IntRange(0, 59)
		w := update.Window{StartHour: minutes.Draw(t, "h") % 24, StartMinute: minutes.Draw(t, "m"), EndHour: minutes.Draw(t, "h") % 24, EndMinute: minutes.Draw(t, "m")}
		if rapid.Bool().Draw(t, "days") {
			day := rapid.SampledFrom([]string{"Sunday", "Monday", "Friday", "Saturday"})
			w.StartDay, w.EndDay = day.Draw(t, "from"), day.Draw(t, "to")
		}
		if w.StartDay != "" && w.StartDay == w.EndDay && w.EndHour*60+w.EndMinute < w.StartHour*60+w.StartMinute {
			return // is refused
		}
		now := on(0, 0, 0).Add(time.Duration(rapid.Int64Range(0, int64(14*24*time.Hour)).Draw(t, "now")))
		wait := w.Until(now)
		if wait < 0 || wait > 7*24*time.Hour || !w.Active(now.Add(wait)) {
			t.Fatalf("%+v at %v: waiting %v is wrong", w, now, wait)
		}
		if wait > 0 && w.Active(now.Add(wait-1)) {
			t.Fatalf("%+v at %v: %v is too long", w, now, wait)
		}
	})
}
