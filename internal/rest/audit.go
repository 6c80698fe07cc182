package rest

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/incusos/incusos/api"
)

// A note is what an endpoint tells about a change.
type note struct{ before, after any }

type noteKey struct{}

// noteChange keeps the configurations before and after a change.
func noteChange(r *http.Request, before, after any) {
	if n, ok := r.Context().Value(noteKey{}).(*note); ok {
		n.before, n.after = before, after
	}
}

type whoKey struct{}

// WithWho returns a context that says who is asking, for the audit log: a
// listener knows better than a request can tell.
func WithWho(ctx context.Context, who string) context.Context {
	return context.WithValue(ctx, whoKey{}, who)
}

// who is whoever asks, as far as known: incusd does not pass identities on.
func who(r *http.Request) string {
	if who, ok := r.Context().Value(whoKey{}).(string); ok {
		return who
	}
	if prefix(r) != "" {
		return "incus"
	}
	return "local"
}

// itself is who incusd is to the log when it asks without being asked. It names
// another host then than its clients and ours do, and no prefix.
const itself = "incus itself"

// polls reports whether r is one of the requests that incusd makes all the time.
func polls(r *http.Request, route Route) bool {
	return route.Polled && who(r) == "local" && r.Host == incusdHost
}

// incusdHost is the host that incusd names in requests of its own.
const incusdHost = "incus-os"

// record writes down a change that was asked for, or a reading of secrets.
// Asking only what a change would do is neither. What incusd reads by itself is
// written down once in a boot: it is the same each time, and would push
// everything else out of the log.
func (m Machine) record(r *http.Request, route Route, n *note, err error) {
	reading := r.Method == http.MethodGet || r.Method == http.MethodHead
	if m.Audit == nil || route.Path == "" || reading && !route.Secret || r.URL.Query().Has("dry-run") {
		return
	}
	ctx := context.WithoutCancel(r.Context())
	e := api.AuditEntry{Time: time.Now().UTC(), Who: who(r), Action: r.Method + " " + r.URL.Path, Result: "ok"}
	e.Before, e.After = redacted(n.before), redacted(n.after)
	if err != nil {
		e.Result = err.Error()
	}
	if reading && polls(r, route) {
		e.Who = itself
		m.Audit.RecordOnce(ctx, e)
		return
	}
	m.Audit.Record(ctx, e)
}

func redacted(v any) json.RawMessage {
	if v == nil {
		return nil
	}
	b, err := json.Marshal(api.Redact(v))
	if err != nil {
		return nil
	}
	return b
}
