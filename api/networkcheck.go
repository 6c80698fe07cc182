package api

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Validate reports the first thing in c that cannot work on any machine, as a
// FieldError.
func (c NetworkConfig) Validate() error {
	if err := waitField("confirmation_timeout", c.ConfirmationTimeout); err != nil {
		return err
	}
	if err := waitField("default_confirmation_timeout", c.DefaultConfirmationTimeout); err != nil {
		return err
	}
	if err := c.DNS.validate(); err != nil {
		return err
	}
	if err := c.Time.validate(); err != nil {
		return err
	}
	if err := c.Proxy.validate(); err != nil {
		return err
	}
	if n := len(c.Interfaces) + len(c.Bonds) + len(c.VLANs) + len(c.Wireguard); n > mostDevices {
		return Fieldf("interfaces", "and bonds, vlans and wireguard are %d devices; want at most %d", n, mostDevices)
	}
	return c.validateDevices()
}

// waitField checks a time to confirm in.
func waitField(field, value string) error {
	if d, err := time.ParseDuration(value); value != "" && (err != nil || d <= 0 || d > time.Hour) {
		return Fieldf(field, "%q is no time to confirm in; want one of up to an hour, such as %q", value, "2m")
	}
	return nil
}

// once refuses a value that an earlier field has already.
func once(seen map[string]string, value, field string) error {
	if first, ok := seen[value]; ok {
		return Fieldf(field, "%q is already used by %s", value, first)
	}
	seen[value] = field
	return nil
}

func (d NetworkDNS) validate() error {
	if d.Hostname != "" && (!domain(d.Hostname) || strings.Contains(d.Hostname, ".")) {
		return Fieldf("dns.hostname", "%q is no hostname; want letters, digits and inner dashes, at most 63, and no dot", d.Hostname)
	}
	if d.Domain != "" && !domain(d.Domain) {
		return Fieldf("dns.domain", "%q is no domain; want a name such as %q", d.Domain, "example.net")
	}
	for i, s := range d.Nameservers {
		address, name, named := strings.Cut(s, "#")
		if _, err := plainAddr(address); err != nil || named && !domain(name) {
			return Fieldf(fmt.Sprintf("dns.nameservers[%d]", i), "%q is no IP address; want one such as %q, or with the name in its certificate, %q", s, "192.0.2.53", "192.0.2.53#dns.example.net")
		}
	}
	for i, s := range d.SearchDomains {
		if !domain(s) {
			return Fieldf(fmt.Sprintf("dns.search_domains[%d]", i), "%q is no domain; want a name such as %q", s, "example.net")
		}
	}
	return nil
}

func (t NetworkTime) validate() error {
	if t.Timezone != "" && !timezone(t.Timezone) {
		return Fieldf("time.timezone", "%q is no time zone; want one such as %q", t.Timezone, "Europe/Paris")
	}
	for i, s := range t.NTPServers {
		if !isHost(s) {
			return Fieldf(fmt.Sprintf("time.ntp_servers[%d]", i), "%q is no host name or IP address; want one such as %q", s, "ntp.example.net")
		}
	}
	return nil
}

// oneOf refuses a value that is not among want. The empty string may be among
// them but is not offered.
func oneOf(field, value string, want ...string) error {
	if slices.Contains(want, value) {
		return nil
	}
	named := slices.DeleteFunc(want, func(s string) bool { return s == "" })
	last := len(named) - 1
	return Fieldf(field, "%q is unknown; want %s or %s", value, strings.Join(named[:last], ", "), named[last])
}

func deviceName(s string) bool {
	return s != "" && len(s) <= 15 && only(s, "-.") && only(s[:1], "")
}

// domain reports whether s is a DNS name (RFC 1123, section 2.1).
func domain(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || !only(label, "-") || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
	}
	return len(s) <= 253
}

func timezone(s string) bool {
	for part := range strings.SplitSeq(s, "/") {
		if part == "" || !only(part, "-+_") {
			return false
		}
	}
	return true
}

// only reports whether s has nothing but ASCII letters, digits and extra.
func only(s, extra string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
		return !letter && (r < '0' || r > '9') && !strings.ContainsRune(extra, r)
	})
}
