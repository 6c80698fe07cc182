package rest

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
)

func (m Machine) applications(r *http.Request) (any, error) {
	if m.Applications == nil {
		return nil, errNotHere
	}
	apps, err := m.Applications(r.Context())
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, name := range slices.Sorted(maps.Keys(apps)) {
		paths = append(paths, "/1.0/applications/"+name)
	}
	return links(paths...)(r)
}

func (m Machine) application(r *http.Request) (any, error) {
	if m.Applications == nil {
		return nil, errNotHere
	}
	apps, err := m.Applications(r.Context())
	if err != nil {
		return nil, err
	}
	app, ok := apps[r.PathValue("name")]
	if !ok {
		return nil, fmt.Errorf("application %q: %w; /1.0/applications lists what is installed", r.PathValue("name"), errNotFound)
	}
	return app, nil
}
