package api

import (
	"encoding/json"
	"time"
)

// An AuditEntry is one line of the audit log: a change, or a reading of secrets.
type AuditEntry struct {
	Time   time.Time       `json:"time"`
	Who    string          `json:"who"`              // as far as known: "incus", "incus itself", "local", "listener:FINGERPRINT" or "system"
	Action string          `json:"action"`           // method and path, such as "PUT /1.0/system/kernel"
	Before json.RawMessage `json:"before,omitempty"` // the configuration that was, secrets taken out
	After  json.RawMessage `json:"after,omitempty"`  // the one asked for, secrets taken out
	Result string          `json:"result"`           // "ok", or the error
}
