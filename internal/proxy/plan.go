package proxy

import (
	"maps"
	"slices"

	"github.com/incusos/incusos/api"
)

// Plan says what going from one configuration to another means. Nothing of it
// ends a connection.
func Plan(from, to api.NetworkProxy) (p api.Plan) {
	for _, name := range slices.Sorted(maps.Keys(from.Servers)) {
		if _, ok := to.Servers[name]; !ok {
			p.Do("forget", "the proxy "+name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(to.Servers)) {
		was, ok := from.Servers[name]
		at, _ := to.Servers[name].Address()
		switch {
		case !ok:
			p.Do("use", "the proxy "+name+" at "+at)
		case was != to.Servers[name]:
			p.Do("change", "how the proxy "+name+" at "+at+" is asked")
		}
	}
	if !slices.Equal(from.Way(), to.Way()) {
		p.Do("choose", "the way to destinations by other rules")
	}
	return p
}
