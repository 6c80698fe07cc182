package api

import (
	"net/netip"
	"time"
)

// What a LoggingJournal can be: journald does not work well with less.
const (
	minJournal = 16 << 20
	minAge     = time.Hour
)

// Validate reports the first thing in c that cannot work, as a FieldError.
func (c SystemLoggingConfig) Validate() error {
	if err := c.Syslog.validate(); err != nil {
		return err
	}
	size, err := sizeField("journal.max_size", c.Journal.MaxSize)
	if err != nil {
		return err
	}
	if c.Journal.MaxSize != "" && size < minJournal {
		return Fieldf("journal.max_size", "%q is too little; want 16MiB or more", c.Journal.MaxSize)
	}
	if c.Journal.MaxAge == "" {
		return nil
	}
	if age, err := time.ParseDuration(c.Journal.MaxAge); err != nil || age < minAge {
		return Fieldf("journal.max_age", "%q is no age; want a time of an hour or more, such as %q", c.Journal.MaxAge, "720h")
	}
	return nil
}

func (s LoggingSyslog) validate() error {
	if s.Address != "" {
		// The forwarder asks no name server: it has to work before one answers.
		if a, err := netip.ParseAddrPort(s.Address); err != nil || a.Port() == 0 {
			return Fieldf("syslog.address", "%q is no address; want an IP address and a port, such as %q or %q", s.Address, "192.0.2.14:514", "[2001:db8::14]:514")
		}
	}
	if err := oneOf("syslog.protocol", s.Protocol, "", "udp", "tcp", "tls", "dtls"); err != nil {
		return err
	}
	return oneOf("syslog.log_format", s.LogFormat, "", "rfc5424", "rfc3164", "rfc3339")
}
