package rest

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/change"
)

// trialQueries are those of every PUT of a configuration.
var trialQueries = []Query{
	{"dry-run", "Answer with what the change would do, and change nothing."},
	{"confirmation_timeout", "Undo the change unless it is confirmed within this time, such as `2m`. Without it the change is saved at once."},
}

// A tagged is an answer with the ETag of the configuration in it.
type tagged struct {
	value any
	etag  string
}

// resource returns the routes of a document that can be read and changed.
func resource[D, C any](path, about string, r Resource[D, C]) []Route {
	put := func(req *http.Request) (any, error) {
		var config C
		if err := decodeConfig(req, &config); err != nil {
			return nil, err
		}
		return makeChange(req, config, configWithin(config), changer{
			config: func() (any, error) { return r.Config() },
			plan:   func(ctx context.Context) (api.Plan, error) { return r.Plan(ctx, config) },
			try:    func(ctx context.Context, within time.Duration) error { return r.Try(ctx, config, within) },
		})
	}
	get := func(req *http.Request) (any, error) {
		doc, err := r.Get(req.Context())
		if err != nil {
			return nil, err
		}
		return tag(doc, func() (any, error) { return r.Config() })
	}
	confirm := func(req *http.Request) (any, error) { return nil, r.Confirm(detached(req)) }
	routes := []Route{
		{Method: "GET", Path: path, About: about, Answer: typeOf[D](), do: get},
		{Method: "PUT", Path: path, About: "Change that: `config` replaces what is there, `state` is ignored.", Body: typeOf[D](), Query: trialQueries, do: put},
		{Method: "POST", Path: path + "/:confirm", About: "Keep the change that is on trial.", do: confirm},
	}
	if r == nil {
		for i := range routes {
			routes[i].do = notHere(path)
		}
	}
	return routes
}

// A changer is what is done with a configuration that was decoded.
type changer struct {
	config func() (any, error) // in force
	plan   func(context.Context) (api.Plan, error)
	try    func(context.Context, time.Duration) error
}

// makeChange plans a change or makes it, as the request says.
func makeChange(r *http.Request, config any, within string, c changer) (any, error) {
	if v, ok := config.(interface{ Validate() error }); ok {
		if err := v.Validate(); err != nil {
			return nil, inConfig(err)
		}
	}
	before, err := c.config()
	if err != nil {
		return nil, err
	}
	noteChange(r, before, config)
	if err := match(r, c.config); err != nil {
		return nil, err
	}
	if r.URL.Query().Has("dry-run") {
		plan, err := c.plan(r.Context())
		if err != nil {
			return nil, inConfig(err)
		}
		return plan.DryRun(), nil
	}
	wait, err := patience(r, within)
	if err != nil {
		return nil, err
	}
	return nil, inConfig(c.try(detached(r), wait))
}

// detached is a context that outlives the request: a change may cut the
// connection that it was asked for on, and must be finished all the same.
func detached(r *http.Request) context.Context { return context.WithoutCancel(r.Context()) }

// patience is how long a change may wait to be confirmed: what the query says,
// else what the configuration itself does.
func patience(r *http.Request, within string) (time.Duration, error) {
	field := "config.confirmation_timeout"
	if q := r.URL.Query(); q.Has("confirmation_timeout") {
		field, within = "confirmation_timeout", q.Get("confirmation_timeout")
	}
	if within == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(within)
	if err != nil || d <= 0 || d > time.Hour {
		return 0, api.Fieldf(field, "%q is no time to confirm in; want one of up to an hour, such as %q", within, "2m")
	}
	return d, nil
}

// configWithin returns the time to confirm in that a configuration asks for
// itself, as that of the network can.
func configWithin(config any) string {
	if c, ok := config.(interface{ Within() string }); ok {
		return c.Within()
	}
	return ""
}

// inConfig puts the place of the configuration before the field of an error, also
// of one that a change failed of. Areas that know nothing else name the field
// with its place already.
func inConfig(err error) error {
	switch e := err.(type) { //nolint:errorlint // areas return them bare: a text around one would keep the old name
	case *api.FieldError:
		if e.Field != "config" && !strings.HasPrefix(e.Field, "config.") {
			return &api.FieldError{Field: "config." + e.Field, Reason: e.Reason}
		}
	case *change.Failure:
		return &change.Failure{Resource: e.Resource, Err: inConfig(e.Err), Back: e.Back}
	}
	return err
}

// tag adds to an answer the tag that If-Match can be told.
func tag(doc any, config func() (any, error)) (any, error) {
	etag, err := etagOf(config)
	return tagged{doc, etag}, err
}

func etagOf(config func() (any, error)) (string, error) {
	c, err := config()
	if err != nil {
		return "", err
	}
	b, err := json.Marshal(c)
	return fmt.Sprintf(`"%x"`, sha256.Sum256(b))[:33] + `"`, err
}

// match refuses a change of something else than the client has read (RFC 9110,
// section 13.1.1). Most clients do not ask.
func match(r *http.Request, config func() (any, error)) error {
	want := r.Header.Get("If-Match")
	if want == "" || want == "*" {
		return nil
	}
	have, err := etagOf(config)
	if err != nil {
		return err
	}
	if want != have {
		return api.Errorf(api.Changed, "the configuration was changed since it was read; read it again and repeat the change")
	}
	return nil
}

// notHere is the endpoint of what this machine does not do.
func notHere(path string) endpoint {
	return func(*http.Request) (any, error) {
		return nil, api.Errorf(api.Unsupported, "%s: this release has nothing of the kind", path)
	}
}
