package console

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/incusos/incusos/api"
)

// incusPort is where Incus listens unless it is told otherwise.
const incusPort = "8443"

// facts returns the status as lines. A line that was not there before is news.
func facts(s Status) []string {
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	title := s.Name + " " + s.Version
	if s.Mode == api.ModeDev {
		add("%s, %s", title, devMark)
	} else {
		add("%s", title)
	}
	if s.Hostname != "" {
		add("host name: %s", s.Hostname)
	}
	for _, a := range s.Alarms {
		add("not trusted: %s", a)
	}
	for _, w := range s.Warnings {
		add("warning: %s", w)
	}
	for _, d := range s.Degraded {
		add("%s is degraded: %s", title, d)
	}
	switch {
	case s.Starting != "":
		add("starting: %s", s.Starting)
	case len(s.Degraded) == 0:
		add("%s is ready: %s", title, reach(s))
	default:
		add("reachable at: %s", reach(s))
	}
	return lines
}

// news returns what after has to say that before had not.
func news(before, after Status) []string {
	lines := facts(after)
	if before.Name == "" {
		return lines
	}
	known := facts(before)
	return slices.DeleteFunc(lines, func(line string) bool { return slices.Contains(known, line) })
}

// reach says where the machine can be reached.
func reach(s Status) string {
	if len(s.Addresses) == 0 {
		return "no network address yet"
	}
	if !s.IncusUp {
		return strings.Join(s.Addresses, ", ") + " (Incus is not running)"
	}
	var urls []string
	for _, a := range s.Addresses {
		urls = append(urls, "https://"+net.JoinHostPort(a, incusPort))
	}
	return strings.Join(urls, ", ")
}

// amount says how far a phase is: "writing usr 40 % (12 s)".
func amount(phase string, done, total uint64, elapsed time.Duration) string {
	if total == 0 {
		return fmt.Sprintf("%s %d MiB (%s)", phase, done>>20, seconds(elapsed))
	}
	return fmt.Sprintf("%s %d %% (%s)", phase, percent(done, total), seconds(elapsed))
}

// percent is 100 only when all is done.
func percent(done, total uint64) int {
	if done >= total {
		return 100
	}
	return min(99, int(float64(done)/float64(total)*100))
}

func seconds(d time.Duration) string { return strconv.Itoa(int(d.Seconds())) + " s" }

// serial returns lines as a serial console gets them.
func serial(lines []string) string {
	var b strings.Builder
	for _, line := range lines {
		b.WriteString("incus-os: " + clean(line) + "\r\n")
	}
	return b.String()
}

// clean returns s with everything that could move the cursor, change colours,
// begin a line or hide text made visible: names of hosts, drives and networks
// come from outside.
func clean(s string) string {
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], string(utf8.RuneError)):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
	}
	return b.String()
}
