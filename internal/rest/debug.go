package rest

import (
	"io"
	"net/http"
	"strconv"

	"github.com/incusos/incusos/api"
)

// debugRoutes are those of /1.0/debug.
func (m Machine) debugRoutes() []Route {
	const dir = "/1.0/debug"
	d := m.Debug
	routes := []Route{
		{Method: "GET", Path: dir + "/kernel", About: "The kernel and its modules.", Answer: typeOf[api.DebugKernel](), do: func(r *http.Request) (any, error) { return d.Kernel(r.Context()) }},
		{Method: "GET", Path: dir + "/log", About: "Entries of the log, oldest first.", Answer: typeOf[[]api.LogEntry](), Query: logQueries, do: func(r *http.Request) (any, error) { return readLog(d, r) }},
		{Method: "GET", Path: dir + "/processes", About: "What runs, as a table.", Answer: typeOf[string](), do: func(r *http.Request) (any, error) { return d.Processes(r.Context()) }},
		{Method: "GET", Path: dir + "/report", About: "Figures about the machine.", Answer: typeOf[api.DebugReport](), Query: []Query{{"match", "Only metrics whose name holds this word; may be given more than once."}},
			do: func(r *http.Request) (any, error) { return d.Report(r.Context(), r.URL.Query()["match"]) }},
		{Method: "GET", Path: dir + "/bundle", About: "Everything that helps to find a fault, as an archive: documents without secrets, log, plans and units.", Stream: gzip,
			do: func(r *http.Request) (any, error) { return d.Bundle(r.Context()) }},
		{Method: "POST", Path: dir + "/:run-script", About: "Run a script, an S/MIME message that the support key signed. The answer is what it printed.", Answer: typeOf[string](), Upload: octets, do: func(r *http.Request) (any, error) { return runScript(d, r) }},
		{Method: "GET", Path: dir + "/secureboot/event-log", About: "What was measured while the machine started.", Answer: typeOf[api.SecureBootEventLog](), do: func(r *http.Request) (any, error) { return d.EventLog(r.Context()) }},
		{Method: "GET", Path: dir + "/secureboot/doctor", About: "Whether the next start will unlock the disk by itself, what stands in the way, and what each event of the log will be.", Answer: typeOf[api.SecureBootDoctor](), do: func(r *http.Request) (any, error) { return d.Doctor(r.Context()) }},
	}
	if d == nil {
		for i := range routes {
			routes[i].do = notHere(routes[i].Path)
		}
	}
	lists := []Route{
		{Method: "GET", Path: dir, About: "What can be looked at: a list of paths.", Answer: typeOf[[]string](), do: links(dir+"/kernel", dir+"/log", dir+"/processes", dir+"/report", dir+"/bundle", dir+"/:run-script", dir+"/secureboot")},
		{Method: "GET", Path: dir + "/secureboot", About: "What there is about Secure Boot: a list of paths.", Answer: typeOf[[]string](), do: links(dir+"/secureboot/event-log", dir+"/secureboot/doctor")},
		{Method: "POST", Path: dir + "/secureboot/:update", About: "Apply signed updates of the Secure Boot databases.", Upload: octets, do: m.action(dir + "/secureboot/:update")},
	}
	return append(lists, routes...)
}

func runScript(d Debug, r *http.Request) (any, error) {
	message, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	return d.Script(r.Context(), message)
}

var logQueries = []Query{
	{"unit", "Only of this unit, such as `incus.service`."},
	{"boot", "Only of this boot: `0` is the running one, `-1` the one before. Without it, the running one."},
	{"entries", "Only the newest so many."},
	{"since", "Not before this time, as journalctl understands it."},
	{"until", "Not after this time."},
}

func readLog(d Debug, r *http.Request) (any, error) {
	q := r.URL.Query()
	query := api.DebugLogQuery{Unit: q.Get("unit"), Boot: q.Get("boot"), Since: q.Get("since"), Until: q.Get("until")}
	if n := q.Get("entries"); n != "" {
		var err error
		if query.Entries, err = strconv.Atoi(n); err != nil || query.Entries < 0 {
			return nil, api.Fieldf("entries", "%q is no number of entries; want one such as 100", n)
		}
	}
	return d.Log(r.Context(), query)
}
