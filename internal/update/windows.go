package update

import (
	"slices"
	"time"
)

// A Window is a time of the day, or from a day of the week to another, in which
// updates may be made. Its last minute belongs to it. What its fields may be is
// checked where they are read (package api).
type Window struct {
	// Days are given both or neither; "" is every day. "Sunday" to "Saturday".
	StartDay, EndDay       string
	StartHour, StartMinute int
	EndHour, EndMinute     int
}

// day and week in minutes.
const day, week = 24 * 60, 7 * day

// days returns the names of days, in the order of time.Weekday.
func days() []string {
	return []string{"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"}
}

// minutes returns start and end, from the beginning of the week or of the day.
func (w Window) minutes() (start, end int) {
	start, end = w.StartHour*60+w.StartMinute, w.EndHour*60+w.EndMinute
	if w.StartDay != "" {
		start += slices.Index(days(), w.StartDay) * day
		end += slices.Index(days(), w.EndDay) * day
	}
	return start, end
}

// at returns the minute of the week, or of the day, and how long that is.
func (w Window) at(now time.Time) (minute, period int) {
	minute = now.Hour()*60 + now.Minute()
	if w.StartDay == "" {
		return minute, day
	}
	return minute + int(now.Weekday())*day, week
}

// Active reports whether updates may be made now, which is in the machine's time
// zone.
func (w Window) Active(now time.Time) bool {
	start, end := w.minutes()
	minute, _ := w.at(now)
	if start <= end {
		return start <= minute && minute <= end
	}
	return minute >= start || minute <= end
}

// Until returns how long it is until the window begins; zero while it is active.
// Clocks that are put forward or back in between are not taken into account: who
// waits looks again.
func (w Window) Until(now time.Time) time.Duration {
	if w.Active(now) {
		return 0
	}
	start, _ := w.minutes()
	minute, period := w.at(now)
	wait := time.Duration((start-minute+period)%period) * time.Minute
	return wait - time.Duration(now.Second())*time.Second - time.Duration(now.Nanosecond())
}

// Allowed reports whether updates may be made now, and if not, how long it is until
// then. Without any window they always may.
func Allowed(windows []Window, now time.Time) (wait time.Duration) {
	for i, w := range windows {
		if until := w.Until(now); i == 0 || until < wait {
			wait = until
		}
	}
	return wait
}
