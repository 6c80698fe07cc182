package api_test

import (
	"testing"

	"github.com/incusos/incusos/api"
)

func TestLoggingConfig(t *testing.T) {
	tests := map[string]struct {
		cfg   api.SystemLoggingConfig
		field string // that is blamed, "" for none
	}{
		"nothing":        {api.SystemLoggingConfig{}, ""},
		"a server":       {api.SystemLoggingConfig{Syslog: api.LoggingSyslog{Address: "192.0.2.14:514", Protocol: "tcp", LogFormat: "rfc3164"}}, ""},
		"over IPv6":      {api.SystemLoggingConfig{Syslog: api.LoggingSyslog{Address: "[2001:db8::14]:6514", Protocol: "tls"}}, ""},
		"a name":         {api.SystemLoggingConfig{Syslog: api.LoggingSyslog{Address: "logs.example.net:514"}}, "syslog.address"},
		"no port":        {api.SystemLoggingConfig{Syslog: api.LoggingSyslog{Address: "192.0.2.14"}}, "syslog.address"},
		"port 0":         {api.SystemLoggingConfig{Syslog: api.LoggingSyslog{Address: "192.0.2.14:0"}}, "syslog.address"},
		"protocol":       {api.SystemLoggingConfig{Syslog: api.LoggingSyslog{Protocol: "sctp"}}, "syslog.protocol"},
		"format":         {api.SystemLoggingConfig{Syslog: api.LoggingSyslog{LogFormat: "json"}}, "syslog.log_format"},
		"limits":         {api.SystemLoggingConfig{Journal: api.LoggingJournal{MaxSize: "512MiB", MaxAge: "720h"}}, ""},
		"little":         {api.SystemLoggingConfig{Journal: api.LoggingJournal{MaxSize: "1MiB"}}, "journal.max_size"},
		"negative":       {api.SystemLoggingConfig{Journal: api.LoggingJournal{MaxSize: "-1"}}, "journal.max_size"},
		"age in days":    {api.SystemLoggingConfig{Journal: api.LoggingJournal{MaxAge: "30d"}}, "journal.max_age"},
		"short age":      {api.SystemLoggingConfig{Journal: api.LoggingJournal{MaxAge: "59m"}}, "journal.max_age"},
		"a negative age": {api.SystemLoggingConfig{Journal: api.LoggingJournal{MaxAge: "-2h"}}, "journal.max_age"},
	}
	for name, tt := range tests {
		if err := tt.cfg.Validate(); blamed(err) != tt.field {
			t.Errorf("%s: %v, want field %q blamed", name, err, tt.field)
		}
	}
}
