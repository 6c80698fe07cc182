package rest

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/incusos/incusos/api"
)

// names answers with the addresses of a family's resources below dir.
func names(dir string, list func(context.Context) ([]string, error)) endpoint {
	return func(r *http.Request) (any, error) {
		all, err := list(r.Context())
		if err != nil {
			return nil, err
		}
		var paths []string
		for _, name := range all {
			paths = append(paths, dir+"/"+name)
		}
		return links(paths...)(r)
	}
}

// familyGet answers with the document of one.
func familyGet(f Family) endpoint {
	return func(r *http.Request) (any, error) {
		name := r.PathValue("name")
		doc, err := f.Get(r.Context(), name)
		if err != nil {
			return nil, err
		}
		return tag(doc, func() (any, error) { return f.Config(name) })
	}
}

// familyPut changes the configuration of one.
func familyPut(f Family) endpoint {
	return func(r *http.Request) (any, error) {
		name := r.PathValue("name")
		config, err := f.New(name)
		if err != nil {
			return nil, err
		}
		if err := decodeConfig(r, config); err != nil {
			return nil, err
		}
		return makeChange(r, config, "", changer{
			config: func() (any, error) { return f.Config(name) },
			plan:   func(ctx context.Context) (api.Plan, error) { return f.Plan(ctx, name, config) },
			try:    func(ctx context.Context, within time.Duration) error { return f.Try(ctx, name, config, within) },
		})
	}
}

// named is an endpoint that does one thing to what the path names.
func named(act func(ctx context.Context, name string) error) endpoint {
	return func(r *http.Request) (any, error) { return nil, act(detached(r), r.PathValue("name")) }
}

// named1 is named with a document. One that is left out is its zero value.
func named1[T any](act func(ctx context.Context, name string, doc T) error) endpoint {
	return func(r *http.Request) (any, error) {
		var doc T
		if err := decodeOptional(r, &doc); err != nil {
			return nil, err
		}
		return nil, act(detached(r), r.PathValue("name"), doc)
	}
}

// serviceNames are the services that incusd asks about while it starts. It takes
// any other answer than a document for a broken system.
const serviceNames = "ceph iscsi linstor lvm multipath netbird nvme ovn tailscale usbip"

// serviceRoutes are those of /1.0/services.
func (m Machine) serviceRoutes() []Route {
	const dir = "/1.0/services"
	f := m.Services
	if f == nil {
		f = noServices{}
	}
	return append([]Route{
		{Method: "GET", Path: dir, About: "The services that can be configured: a list of paths.", Answer: typeOf[[]string](), do: names(dir, f.Names)},
		{Method: "GET", Path: dir + "/{name}", About: "One service: `" + strings.ReplaceAll(serviceNames, " ", "`, `") + "`. The document depends on the name.", Answer: typeOf[api.Service](), do: familyGet(f)},
		{Method: "PUT", Path: dir + "/{name}", About: "Configure a service, and start or stop it.", Body: typeOf[api.Service](), Query: trialQueries, do: familyPut(f)},
		{Method: "POST", Path: dir + "/{name}/:confirm", About: "Keep the change that is on trial.", do: named(f.Confirm)},
		{Method: "POST", Path: dir + "/{name}/:reset", About: "Stop a service, forget what it keeps, and start it again.", do: named(f.Reset)},
	}, serviceDocuments(dir, f)...)
}

// serviceDocuments are the routes of /1.0/services/{name} again, for each service
// with its own document.
func serviceDocuments(dir string, f Family) []Route {
	var routes []Route
	for _, s := range []struct {
		name, about string
		document    reflect.Type
	}{
		{"ceph", "The client of Ceph clusters. Enabled, its files are there for Incus.", typeOf[api.ServiceCeph]()},
		{"iscsi", "Disks that are attached by iSCSI.", typeOf[api.ServiceISCSI]()},
		{"linstor", "The satellite of LINSTOR, which this release cannot enable.", typeOf[api.ServiceLinstor]()},
		{"lvm", "Volume groups that are shared with other machines.", typeOf[api.ServiceLVM]()},
		{"multipath", "Disks with more than one path.", typeOf[api.ServiceMultipath]()},
		{"netbird", "The peer of a NetBird network, which this release cannot enable.", typeOf[api.ServiceNetbird]()},
		{"nvme", "Disks that are attached by NVMe over Fabrics.", typeOf[api.ServiceNVME]()},
		{"ovn", "The chassis of an OVN deployment.", typeOf[api.ServiceOVN]()},
		{"tailscale", "The node of a tailnet, which this release cannot enable.", typeOf[api.ServiceTailscale]()},
		{"usbip", "USB devices of other machines.", typeOf[api.ServiceUSBIP]()},
	} {
		path, secret := dir+"/"+s.name, holdsSecret(s.document, nil)
		routes = append(
			routes,
			Route{Method: "GET", Path: path, About: s.about, Answer: s.document, Secret: secret, Polled: true, do: called(s.name, familyGet(f))},
			Route{Method: "PUT", Path: path, About: "Configure it, and start or stop it.", Body: s.document, Query: trialQueries, do: called(s.name, familyPut(f))},
		)
	}
	return routes
}

// called is an endpoint for one resource of a family.
func called(name string, do endpoint) endpoint {
	return func(r *http.Request) (any, error) {
		r.SetPathValue("name", name)
		return do(r)
	}
}

// holdsSecret reports whether there is an api.Secret in a t, which is in the types
// above. Keys are known by their type, so that a new one cannot be forgotten.
func holdsSecret(t reflect.Type, above []reflect.Type) bool {
	if slices.Contains(above, t) {
		return false // seen already
	}
	above = append(slices.Clone(above), t)
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		return holdsSecret(t.Elem(), above)
	case reflect.Struct:
		return slices.ContainsFunc(reflect.VisibleFields(t), func(f reflect.StructField) bool { return !f.Anonymous && holdsSecret(f.Type, above) })
	}
	return t == typeOf[api.Secret]()
}

// noServices is the Family of a machine without services: each is there, and off.
type noServices struct{}

func (noServices) Names(context.Context) ([]string, error) { return nil, nil }

func (noServices) Get(_ context.Context, name string) (any, error) {
	if !contains(serviceNames, name) {
		return nil, api.Errorf(api.NotFound, "service %q: not found; known are %s", name, serviceNames)
	}
	return api.Service{}, nil
}

func (n noServices) Config(name string) (any, error) { return n.New(name) }

func (noServices) New(name string) (any, error) {
	if !contains(serviceNames, name) {
		return nil, api.Errorf(api.NotFound, "service %q: not found; known are %s", name, serviceNames)
	}
	return new(api.ServiceConfig), nil
}

func (n noServices) Plan(context.Context, string, any) (api.Plan, error) {
	return api.Plan{}, n.refuse()
}
func (n noServices) Try(context.Context, string, any, time.Duration) error { return n.refuse() }
func (n noServices) Confirm(context.Context, string) error                 { return n.refuse() }
func (n noServices) Reset(context.Context, string) error                   { return n.refuse() }

func (noServices) refuse() error {
	return fmt.Errorf("configuring services: %w", api.Errorf(api.Unsupported, "this release has no services"))
}
