package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/incusos/incusos/internal/rest"
)

// description returns the OpenAPI description as it lies in the tree.
func description(t *testing.T) map[string]any {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, "doc/reference/openapi.json"))
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// walk calls visit with every object in v.
func walk(v any, visit func(object)) {
	switch v := v.(type) {
	case object:
		visit(v)
		for _, e := range v {
			walk(e, visit)
		}
	case []any:
		for _, e := range v {
			walk(e, visit)
		}
	}
}

// find follows a reference such as "#/components/schemas/Server".
func find(doc any, ref string) bool {
	path, ok := strings.CutPrefix(ref, "#/")
	for key := range strings.SplitSeq(path, "/") {
		var o object
		if o, ok = doc.(object); !ok {
			return false
		}
		if doc, ok = o[key]; !ok {
			return false
		}
	}
	return ok
}

func TestReferencesLeadSomewhere(t *testing.T) {
	doc := description(t)
	count := 0
	walk(doc, func(o object) {
		ref, ok := o["$ref"].(string)
		if !ok {
			return
		}
		count++
		if !find(doc, ref) {
			t.Errorf("%s leads nowhere", ref)
		}
	})
	if count < 100 {
		t.Errorf("found %d references; has the form changed?", count)
	}
}

func TestEveryRouteIsAnOperation(t *testing.T) {
	paths := description(t)["paths"].(object)
	operations := 0
	for _, item := range paths {
		operations += len(item.(object))
	}
	routes := rest.Routes(rest.Machine{})
	ids := make(map[string]string)
	for _, r := range routes {
		item, _ := paths[r.Path].(object)
		op, ok := item[strings.ToLower(r.Method)].(object)
		if !ok {
			t.Errorf("%s %s is not described", r.Method, r.Path)
			continue
		}
		id, _ := op["operationId"].(string)
		if other, taken := ids[id]; taken || id == "" {
			t.Errorf("%s %s and %s are both called %q", r.Method, r.Path, other, id)
		}
		ids[id] = r.Method + " " + r.Path
		checkOperation(t, r, op)
	}
	if operations != len(routes) {
		t.Errorf("%d operations are described; want %d", operations, len(routes))
	}
}

// checkOperation looks for what every operation must have (OpenAPI 3.1.0,
// sections 4.8.10 and 4.8.12).
func checkOperation(t *testing.T, r rest.Route, op object) {
	t.Helper()
	where := r.Method + " " + r.Path
	responses, _ := op["responses"].(object)
	for _, code := range []string{"200", "default"} {
		if _, ok := responses[code].(object); !ok {
			t.Errorf("%s has no answer %q", where, code)
		}
	}
	if _, ok := responses["200"].(object)["description"].(string); !ok {
		t.Errorf("%s has an answer without description", where)
	}
	if _, has := op["requestBody"]; has != (r.Body != nil || r.Upload != "") {
		t.Errorf("%s: is a body described: %v", where, has)
	}
	named := false
	for _, p := range list(op["parameters"]) {
		in, name := p["in"], p["name"]
		if !slices.Contains([]any{"path", "query", "header"}, in) || name == "" || p["schema"] == nil || in == "path" && p["required"] != true {
			t.Errorf("%s: parameter %v is in %v, with schema %v", where, name, in, p["schema"])
		}
		named = named || in == "path"
	}
	if named != strings.Contains(r.Path, "{") {
		t.Errorf("%s: is the name in the path described: %v", where, named)
	}
}

func list(v any) []object {
	var out []object
	all, _ := v.([]any)
	for _, e := range all {
		out = append(out, e.(object))
	}
	return out
}

func TestSchemasSayWhatFieldsAre(t *testing.T) {
	schemas := description(t)["components"].(object)["schemas"].(object)
	property := func(schema, key string) object {
		s, _ := schemas[schema].(object)
		properties, _ := s["properties"].(object)
		p, _ := properties[key].(object)
		return p
	}
	if p := property("Environment", "uptime"); p["type"] != "integer" || p["description"] != "seconds since boot" {
		t.Errorf("Environment.uptime is %v", p)
	}
	if p := property("Environment", "mode"); len(p["enum"].([]any)) != 2 {
		t.Errorf("Environment.mode is %v; want one of two words", p)
	}
	if p := property("Task", "ended"); p["format"] != "date-time" {
		t.Errorf("Task.ended is %v; want a time", p)
	}
	if p := property("StorageDriveImport", "key"); p["format"] != "password" {
		t.Errorf("StorageDriveImport.key is %v; want a secret", p)
	}
}

// The list only grows: see its head.
func TestNothingDisappearsFromTheAPI(t *testing.T) {
	want, err := goldenLines(root)
	if err != nil {
		t.Fatal(err)
	}
	have := apiLines(rest.Routes(rest.Machine{}))
	for _, line := range want {
		if !slices.Contains(have, line) {
			t.Errorf("%s has %q, which is not true any more; its head says what to do", goldenName, line)
		}
	}
	if len(want) < 500 {
		t.Errorf("%s has %d lines; has its form changed?", goldenName, len(want))
	}
}

func TestTheListNoticesWhatGoes(t *testing.T) {
	lines := apiLines(rest.Routes(rest.Machine{}))
	for _, want := range []string{
		"GET /1.0/system/network", "GET /1.0/system/network > config.interfaces[].mtu integer",
		"GET /1.0/system/network > state.interfaces{}.state string", "PUT /1.0/system/network ?dry-run", "PUT /1.0/system/network < as GET",
		"POST /1.0/applications < name string", "GET /1.0/debug/bundle > application/gzip", "GET /1.0/system/provider > config.config.server_url string", "GET /1.0/system/update > state.status string",
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("the list would not have %q", want)
		}
	}
}
