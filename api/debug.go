package api

import "encoding/json"

// DebugKernel is the document of /os/1.0/debug/kernel.
type DebugKernel struct {
	Version      string         `json:"version"`
	Architecture string         `json:"architecture"`
	CPUBaseline  string         `json:"cpu_baseline"` // such as "x86-64-v3"
	Modules      []KernelModule `json:"modules"`
}

// A KernelModule is a loaded part of the kernel.
type KernelModule struct {
	Name         string   `json:"name"`
	Dependencies []string `json:"dependencies"` // modules that it needs
	InUse        bool     `json:"in_use"`
}

// A DebugReport is the document of /os/1.0/debug/report: figures about the
// machine, of which a request may name the ones it wants.
type DebugReport struct {
	MediaType string         `json:"media_type"` // of this form of report
	Timestamp string         `json:"timestamp"`  // RFC 3339
	Metrics   []ReportMetric `json:"metrics"`
}

// A ReportMetric is one figure of a report.
type ReportMetric struct {
	Name   string         `json:"name"`             // such as "incusos_memory_total_bytes"
	Object string         `json:"object,omitempty"` // what it is about, such as the name of a pool
	Fields map[string]any `json:"fields,omitempty"` // more about the object
	Value  any            `json:"value"`
}

// A DebugLogQuery picks entries of the log. All fields are as journalctl has
// them; "" is no restriction.
type DebugLogQuery struct {
	Unit    string
	Boot    string // 0 is this one, -1 the one before
	Entries int    // the newest so many; 0 is all
	Since   string
	Until   string
}

// A LogEntry is an entry of the journal as journalctl prints it in JSON.
type LogEntry = json.RawMessage

// A SecureBootEventLog is the document of /os/1.0/debug/secureboot/event-log:
// what was measured while the machine started.
type SecureBootEventLog struct {
	EventLog []SecureBootEvent `json:"event_log"`
	PCR4     string            `json:"pcr4"` // hexadecimal SHA-256
	PCR7     string            `json:"pcr7"` // hexadecimal SHA-256

	// MatchesTPM says that the events lead to what the TPM holds in PCR 4 and
	// 7, so that the list is whole and nobody has changed it. Ours: upstream
	// has no such field.
	MatchesTPM bool `json:"matches_tpm"`
}

// A SecureBootEvent is one measurement (TCG PC Client Platform Firmware Profile,
// section 10.2). Names are those of the wire.
type SecureBootEvent struct {
	Index  int    `json:"Index"`  // the PCR
	Type   int    `json:"Type"`   // of the event
	Data   []byte `json:"Data"`   // in base64
	Digest []byte `json:"Digest"` // SHA-256, in base64
}
