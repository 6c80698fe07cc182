package rest

import (
	"context"
	"net/http"

	"github.com/incusos/incusos/api"
)

// applicationRoutes are those of /1.0/applications.
func (m Machine) applicationRoutes() []Route {
	const dir = "/1.0/applications"
	const one = dir + "/{name}"
	a := m.Applications
	routes := []Route{
		{Method: "GET", Path: dir, About: "What is installed: a list of paths.", Answer: typeOf[[]string](), do: names(dir, func(ctx context.Context) ([]string, error) { return a.Names(ctx) })},
		{Method: "POST", Path: dir, About: "Install an application. It goes on as a task after the answer.", Body: typeOf[api.ApplicationAdd](), do: func(r *http.Request) (any, error) { return addApplication(a, r) }},
		{Method: "GET", Path: one, About: "One application.", Answer: typeOf[api.Application](), do: familyGet(a)},
		{Method: "PUT", Path: one, About: "Configure an application.", Body: typeOf[api.Application](), Query: trialQueries, do: familyPut(a)},
		{Method: "POST", Path: one + "/:confirm", About: "Keep the change that is on trial.", do: named(func(ctx context.Context, n string) error { return a.Confirm(ctx, n) })},
		{Method: "POST", Path: one + "/:remove", About: "Stop an application and remove it with what it keeps. The primary one stays.", do: named(func(ctx context.Context, n string) error { return a.Remove(ctx, n) })},
		{Method: "POST", Path: one + "/:restart", About: "Restart an application.", do: named(func(ctx context.Context, n string) error { return a.Restart(ctx, n) })},
		{Method: "POST", Path: one + "/:factory-reset", About: "Make an application as it was first installed. What it kept is lost.", do: named(func(ctx context.Context, n string) error { return a.Reset(ctx, n) })},
		{Method: "POST", Path: one + "/:check-update", About: "Look for a newer release, which is one of all applications. Fetching it is a task.", do: named(func(ctx context.Context, n string) error { return a.CheckUpdate(ctx, n) })},
		{Method: "POST", Path: one + "/:switch-version", About: "Run another version that is stored.", Body: typeOf[api.ApplicationSwitch](),
			do: named1(func(ctx context.Context, n string, s api.ApplicationSwitch) error { return a.Switch(ctx, n, s.Version) })},
		{Method: "POST", Path: one + "/:action", About: "Do what only this application can.", Body: typeOf[api.ApplicationAction](),
			do: named1(func(ctx context.Context, n string, act api.ApplicationAction) error { return a.Act(ctx, n, act) })},
		{Method: "POST", Path: one + "/:debug", About: "Look into an application; the answer is an archive.", Body: typeOf[api.ApplicationAction](), Stream: octets, do: func(r *http.Request) (any, error) {
			var act api.ApplicationAction
			if err := decodeOptional(r, &act); err != nil {
				return nil, err
			}
			return a.Debug(r.Context(), r.PathValue("name"), act.Action)
		}},
		{Method: "POST", Path: one + "/:backup", About: "Everything the application keeps, as an archive. It holds secrets.", Body: typeOf[api.ApplicationBackup](), Stream: gzip, Secret: true, do: func(r *http.Request) (any, error) {
			var b api.ApplicationBackup
			if err := decodeOptional(r, &b); err != nil {
				return nil, err
			}
			return a.Backup(r.Context(), r.PathValue("name"), b.Complete)
		}},
		{Method: "POST", Path: one + "/:restore", About: "Put back what `:backup` gave. Through Incus it may be 1 MiB long; on the machine's own sockets there is no limit.", Upload: gzip, do: func(r *http.Request) (any, error) {
			return nil, a.Restore(detached(r), r.PathValue("name"), r.Body)
		}},
	}
	if a == nil {
		for i := range routes {
			routes[i].do = notHere(dir)
		}
	}
	return routes
}

func addApplication(a Applications, r *http.Request) (any, error) {
	var add api.ApplicationAdd
	if err := decode(r, &add); err != nil {
		return nil, err
	}
	if !api.ApplicationName(add.Name) {
		return nil, api.Fieldf("name", "%q is no application name; want lower case letters, digits and dashes", add.Name)
	}
	return nil, a.Add(detached(r), add.Name)
}
