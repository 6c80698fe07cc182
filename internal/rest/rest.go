// Package rest translates between HTTP and the machine.
//
// A route names a method, a path and an endpoint; an endpoint reads, calls one
// function of Machine and returns a value or an error. Turning those into the
// envelope that Incus speaks, and errors into status codes, happens once, in
// envelope.go. There is no state here, no goroutine, and no decision that
// another caller of the same function would not get.
//
// The daemon listens; incusd passes on what clients send to /os. It asks for
// /1.0/services/* itself while it starts and waits for the answer without a
// time limit, so nothing there may wait for anything (see services.go).
package rest

import (
	"context"
	"errors"
	"net/http"

	"github.com/incusos/incusos/api"
)

// A Machine is what the routes answer from; package daemon supplies it. A
// function that is nil stands for something this machine does not do: its
// routes answer 501.
type Machine struct {
	Environment  func(context.Context) (api.Environment, error)
	Network      func(context.Context) (api.Network, error)
	Security     func(context.Context) (api.SystemSecurity, error)
	Storage      func(context.Context) (api.SystemStorage, error)
	Applications func(context.Context) (map[string]any, error) // their documents by name
	Power        Power
}

// Power turns the machine off and on. Both ask for it and do not wait.
type Power interface {
	Reboot(context.Context) error
	Poweroff(context.Context) error
}

// An endpoint answers one request. What it returns becomes the metadata of the
// answer; nil becomes {}, a later is done once the answer is sent.
type endpoint func(*http.Request) (any, error)

// A later is work that ends the connection it was asked for on.
type later func(context.Context) error

// routes is the whole API. A segment in braces matches any name.
func routes(m Machine) table {
	t := make(table)
	t.add("GET", "/", links("/1.0"))
	t.add("GET", "/1.0", document(m.server()))
	t.add("GET", "/1.0/applications", func(r *http.Request) (any, error) { return m.applications(r) })
	t.add("GET", "/1.0/applications/{name}", func(r *http.Request) (any, error) { return m.application(r) })
	t.add("GET", "/1.0/services", links())
	t.add("GET", "/1.0/services/{name}", service)
	t.add("GET", "/1.0/system", links("/1.0/system/network", "/1.0/system/security", "/1.0/system/storage"))
	t.add("GET", "/1.0/system/network", document(m.Network))
	t.add("GET", "/1.0/system/security", document(m.Security))
	t.add("GET", "/1.0/system/storage", document(m.Storage))
	t.add("POST", "/1.0/system/:poweroff", m.power(Power.Poweroff))
	t.add("POST", "/1.0/system/:reboot", m.power(Power.Reboot))
	return t
}

// links answers with the addresses of other resources.
func links(paths ...string) endpoint {
	return func(r *http.Request) (any, error) {
		out := make([]string, 0, len(paths))
		for _, p := range paths {
			out = append(out, prefix(r)+p)
		}
		return out, nil
	}
}

// document answers with what read returns.
func document[T any](read func(context.Context) (T, error)) endpoint {
	return func(r *http.Request) (any, error) {
		if read == nil {
			return nil, errNotHere
		}
		return read(r.Context())
	}
}

func (m Machine) server() func(context.Context) (api.Server, error) {
	if m.Environment == nil {
		return nil
	}
	return func(ctx context.Context) (api.Server, error) {
		env, err := m.Environment(ctx)
		return api.Server{Environment: env}, err
	}
}

// power answers first: the machine may be gone before the answer is read.
func (m Machine) power(act func(Power, context.Context) error) endpoint {
	return func(*http.Request) (any, error) {
		if m.Power == nil {
			return nil, errNotHere
		}
		return later(func(ctx context.Context) error { return act(m.Power, ctx) }), nil
	}
}

var (
	errNotHere     = errors.New("this machine has nothing of the kind")
	errNotFound    = errors.New("not found")
	errEndedEarly  = errors.New("the request ended before its body was complete; send it again")
	errBodyTooLong = errors.New("the request's body is longer than 1 MiB")
)
