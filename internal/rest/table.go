package rest

import (
	"maps"
	"net/http"
	"slices"
	"strings"
)

// A table holds endpoints by path, then by method. It is not an http.ServeMux
// because that answers in plain text where a path or a method is unknown, and
// redirects where a path is not clean.
type table map[string]map[string]endpoint

func (t table) add(method, path string, e endpoint) {
	if t[path] == nil {
		t[path] = make(map[string]endpoint)
	}
	t[path][method] = e
	if method == http.MethodGet {
		t[path][http.MethodHead] = e
	}
}

// find returns the endpoints of a path, and in name what its segment in braces
// stands for. Literal paths win.
func (t table) find(path string) (methods map[string]endpoint, name string) {
	if methods, ok := t[path]; ok && !strings.Contains(path, "{") {
		return methods, ""
	}
	dir, name, ok := cutLast(path)
	if !ok || name == "" {
		return nil, ""
	}
	return t[dir+"/{name}"], name
}

// cutLast splits a path before its last segment.
func cutLast(path string) (dir, last string, ok bool) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", "", false
	}
	return path[:i], path[i+1:], true
}

// allow is the value of the header Allow for the methods of a path.
func allow(methods map[string]endpoint) string {
	return strings.Join(slices.Sorted(maps.Keys(methods)), ", ")
}
