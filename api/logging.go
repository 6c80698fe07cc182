package api

// SystemLogging is the document of /os/1.0/system/logging.
type SystemLogging struct {
	Config SystemLoggingConfig `json:"config"`
	State  SystemLoggingState  `json:"state"`
}

// SystemLoggingConfig says where the log goes and how much of it is kept.
type SystemLoggingConfig struct {
	Syslog  LoggingSyslog  `json:"syslog"`
	Journal LoggingJournal `json:"journal,omitzero"` // ours: upstream has no such field
}

// LoggingSyslog is a server that gets a copy of the log.
type LoggingSyslog struct {
	Address   string `json:"address"`    // IP address and port, such as "192.0.2.14:514"; "" is none
	Protocol  string `json:"protocol"`   // "udp", "tcp", "tls" or "dtls"; "" is udp
	LogFormat string `json:"log_format"` // "rfc5424"; "rfc3164" or "rfc3339" for the older form, with times as in RFC 3339; "" is rfc5424
}

// LoggingJournal limits the log on the machine.
type LoggingJournal struct {
	MaxSize string `json:"max_size,omitempty"` // such as "512MiB"; "" is the default of the image
	MaxAge  string `json:"max_age,omitempty"`  // such as "720h"; "" keeps what fits
}

// SystemLoggingState is how the log fares.
type SystemLoggingState struct {
	JournalSize  uint64 `json:"journal_size_in_bytes"`
	SyslogStatus string `json:"syslog_status,omitempty"` // as systemd says of the forwarder, such as "active"
}
