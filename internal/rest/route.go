package rest

import (
	"context"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
)

// A Route is one method of one path, and everything that is known about it.
type Route struct {
	Method string
	Path   string // with at most one segment in braces, which matches any name
	About  string // what it does, in sentences

	Body   reflect.Type // the document it takes; nil: none
	Answer reflect.Type // the document it answers with; nil: {}
	Query  []Query
	Upload string // media type of a body that is no document; "" for none
	Stream string // media type of an answer that is no document; "" for none
	Secret bool   // what it answers with holds keys: each reading is written down
	Polled bool   // incusd asks for it by itself all the time

	do endpoint
}

// A Query is a key of a route's query. Unknown ones are ignored, since incusd
// passes its own on.
type Query struct{ Name, About string }

// An endpoint answers one request. What it returns becomes the metadata of the
// answer; nil becomes {}, a Stream is sent as it is, and a later is done once the
// answer is sent.
type endpoint func(*http.Request) (any, error)

// A later is work that ends the connection it was asked for on.
type later func(context.Context) error

// typeOf returns the type T as routes describe it.
func typeOf[T any]() reflect.Type { return reflect.TypeFor[T]() }

// Routes returns the whole API, in the order of the reference.
func Routes(m Machine) []Route {
	routes := []Route{
		{Method: "GET", Path: "/", About: "The versions of the API: a list of paths.", Answer: typeOf[[]string](), do: links("/1.0")},
		{Method: "GET", Path: "/1.0", About: "What the machine is and runs.", Answer: serverType, do: m.server},
	}
	return slices.Concat(routes, m.applicationRoutes(), m.serviceRoutes(), m.systemRoutes(), m.debugRoutes(), m.ownRoutes())
}

// A table holds routes by path, then by method. It is not an http.ServeMux
// because that answers in plain text where a path or a method is unknown, and
// redirects where a path is not clean.
type table map[string]map[string]Route

func newTable(routes []Route) table {
	t := make(table)
	for _, r := range routes {
		if t[r.Path] == nil {
			t[r.Path] = make(map[string]Route)
		}
		t[r.Path][r.Method] = r
		if r.Method == http.MethodGet {
			t[r.Path][http.MethodHead] = r
		}
	}
	return t
}

// find returns the routes of a path, and in name what its segment in braces
// stands for. Literal paths win.
func (t table) find(path string) (methods map[string]Route, name string) {
	if methods, ok := t[path]; ok && !strings.Contains(path, "{") {
		return methods, ""
	}
	segments := strings.Split(path, "/")
	for i := len(segments) - 1; i > 0 && i >= len(segments)-2; i-- {
		name := segments[i]
		pattern := strings.Join(slices.Concat(segments[:i], []string{"{name}"}, segments[i+1:]), "/")
		if methods, ok := t[pattern]; ok && name != "" && !strings.HasPrefix(name, ":") {
			return methods, name
		}
	}
	return nil, ""
}

// allow is the value of the header Allow for the methods of a path.
func allow(methods map[string]Route) string {
	return strings.Join(slices.Sorted(maps.Keys(methods)), ", ")
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

type prefixKey struct{}

// WithPrefix returns a context that says what was taken off the front of the
// path, so that it is put back: what headers say does not count then.
func WithPrefix(ctx context.Context, prefix string) context.Context {
	return context.WithValue(ctx, prefixKey{}, prefix)
}

// prefix is what incusd has taken off the front of every path, and what must
// be put back. A client can send the header too, but incusd adds its own after
// it: only the last one counts.
func prefix(r *http.Request) string {
	if p, ok := r.Context().Value(prefixKey{}).(string); ok {
		return p
	}
	values := r.Header.Values(proxyHeader)
	if len(values) > 0 && values[len(values)-1] == proxyPrefix {
		return proxyPrefix
	}
	return ""
}

const (
	proxyHeader = "X-IncusOS-Proxy"
	proxyPrefix = "/os"
)
