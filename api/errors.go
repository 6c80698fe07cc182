package api

import "fmt"

// A Kind says what sort of no an answer is.
type Kind string

// The kinds of an Error, with the HTTP status that goes with each.
const (
	Invalid     Kind = "invalid"     // 400: the request is wrong
	Forbidden   Kind = "forbidden"   // 403: not for whoever asks
	NotFound    Kind = "not found"   // 404: there is no such thing
	Conflict    Kind = "conflict"    // 409: not while things are as they are
	Changed     Kind = "changed"     // 412: it is not any more what the request says it was
	Unsupported Kind = "unsupported" // 501: this release or this machine does not do that
	Unavailable Kind = "unavailable" // 503: not now, and it is worth trying again
)

// An Error is a refusal that the one who asked can do something about.
type Error struct {
	Kind Kind
	Text string // a sentence for the operator
}

func (e *Error) Error() string { return e.Text }

// Errorf returns an Error of a kind.
func Errorf(k Kind, format string, args ...any) error {
	return &Error{k, fmt.Sprintf(format, args...)}
}
