package rest

import (
	"context"
	"net/http"
	"strconv"

	"github.com/incusos/incusos/api"
)

var serverType = typeOf[api.Server]()

func (m Machine) server(r *http.Request) (any, error) {
	if m.Environment == nil {
		return notHere("/1.0")(r)
	}
	env, err := m.Environment(r.Context())
	return api.Server{Environment: env}, err
}

// ownRoutes are those that the reference system does not have.
func (m Machine) ownRoutes() []Route {
	const tasks = "/1.0/tasks"
	routes := []Route{
		{Method: "GET", Path: tasks, About: "Work that takes longer than a request, newest first.", Answer: typeOf[[]api.Task](), do: notHere(tasks)},
		{Method: "GET", Path: tasks + "/{name}", About: "One task, by its id.", Answer: typeOf[api.Task](), do: notHere(tasks)},
		{Method: "POST", Path: tasks + "/{name}/:cancel", About: "Ask a task to stop.", do: notHere(tasks)},
		{Method: "GET", Path: "/1.0/trial", About: "The change that waits to be confirmed; null if none does.", Answer: typeOf[*api.Trial](), do: func(*http.Request) (any, error) { return m.trial(), nil }},
		{Method: "GET", Path: "/1.0/audit", About: "The newest entries of the log of changes, oldest first.", Answer: typeOf[[]api.AuditEntry](), Query: []Query{{"entries", "Only the newest so many; without it, 100."}}, do: notHere("/1.0/audit")},
	}
	if m.Tasks != nil {
		routes[0].do = func(*http.Request) (any, error) { return m.Tasks.List(), nil }
		routes[1].do = func(r *http.Request) (any, error) { return m.Tasks.Get(r.PathValue("name")) }
		routes[2].do = named(func(_ context.Context, id string) error { return m.Tasks.Cancel(id) })
	}
	if m.Audit != nil {
		routes[4].do = m.audit
	}
	return routes
}

func (m Machine) trial() any {
	if m.Trial == nil {
		return nil
	}
	return m.Trial()
}

func (m Machine) audit(r *http.Request) (any, error) {
	n := 100
	if q := r.URL.Query().Get("entries"); q != "" {
		var err error
		if n, err = strconv.Atoi(q); err != nil || n < 1 {
			return nil, api.Fieldf("entries", "%q is no number of entries; want one such as 100", q)
		}
	}
	return m.Audit.Entries(r.Context(), n)
}
