// Package api defines the documents of /os/1.0 and of the seed.
//
// Types here are plain data with the names that clients see: no side effects,
// nothing outside the standard library. A document that has something to get
// wrong has a Validate method that needs nothing but the document itself;
// checks that need to look at the machine belong to the area that owns it.
//
// A document of a resource has two halves: `config` is what the operator wants
// and the only thing saved, `state` is what the machine reports and is ignored
// in requests.
package api

import (
	"encoding/json"
	"fmt"
)

// A FieldError reports what is wrong with one field of a document.
type FieldError struct {
	Field  string // JSON path, such as "interfaces[1].mtu"
	Reason string // what is wrong and what would be right
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Reason }

// Fieldf returns a FieldError for field with a formatted reason.
func Fieldf(field, format string, args ...any) error {
	return &FieldError{field, fmt.Sprintf(format, args...)}
}

// A Response is the envelope of every JSON answer, the same as that of Incus.
type Response struct {
	Type       string          `json:"type"`        // "sync" or "error"
	Status     string          `json:"status"`      // "Success" or ""
	StatusCode int             `json:"status_code"` // 200, or 0 in an error
	Operation  string          `json:"operation"`   // always ""
	ErrorCode  int             `json:"error_code"`  // the HTTP status of an error, else 0
	Error      string          `json:"error"`       // one sentence, or ""
	Metadata   json.RawMessage `json:"metadata"`    // the document; null in an error
}
