package main

import (
	"encoding/json"
	"reflect"
	"strings"
	"unicode"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/rest"
)

// An object is a JSON object; encoding/json sorts its keys, which makes the file
// the same each time.
type object = map[string]any

const openAPIAbout = `The API that a machine with IncusOS has below /os of its Incus, for the clients that Incus trusts, and on the unix socket /run/incus-os/unix.socket, for root, without /os. Every path that answers to GET answers to HEAD too. In requests nothing is required unless the text says so: what is left out is its default.`

// openAPI returns the description of the API in OpenAPI 3.1.
func openAPI(docs *types) (string, error) {
	s := newSchemas(docs)
	paths := make(object)
	for _, r := range rest.Routes(rest.Machine{}) {
		item, ok := paths[r.Path].(object)
		if !ok {
			item = make(object)
			paths[r.Path] = item
		}
		item[strings.ToLower(r.Method)] = operation(r, s)
	}
	envelope := s.of(reflect.TypeFor[api.Response]())
	if s.err != nil {
		return "", s.err
	}
	out, err := json.MarshalIndent(object{
		"openapi": "3.1.0",
		"info":    object{"title": "IncusOS", "version": "1.0", "description": openAPIAbout, "license": object{"name": "Apache-2.0", "identifier": "Apache-2.0"}},
		"servers": []object{{"url": "/os", "description": "Through Incus."}, {"url": "/", "description": "On the machine itself."}},
		"paths":   paths,
		"components": object{
			"schemas":   s.components,
			"responses": object{"Error": object{"description": "The machine says no; `error` says why.", "content": inJSON(envelope)}},
		},
	}, "", " ")
	return string(out) + "\n", err
}

// operation describes a route.
func operation(r rest.Route, s *schemas) object {
	op := object{
		"operationId": operationID(r),
		"summary":     r.About,
		"tags":        []string{tag(r.Path)},
		"responses":   object{"200": success(r, s), "default": object{"$ref": "#/components/responses/Error"}},
	}
	if p := parameters(r); len(p) > 0 {
		op["parameters"] = p
	}
	switch {
	case r.Body != nil:
		op["requestBody"] = object{"content": inJSON(s.of(r.Body))}
	case r.Upload != "":
		op["requestBody"] = object{"required": true, "content": object{r.Upload: object{}}}
	}
	return op
}

// success describes the answer of a route that says yes.
func success(r rest.Route, s *schemas) object {
	if r.Stream != "" {
		return object{"description": "The archive.", "content": object{r.Stream: object{}}}
	}
	answer := object{"type": "object"}
	if r.Answer != nil {
		answer = s.of(r.Answer)
	}
	if r.Answer != nil && r.Answer.Kind() == reflect.Pointer {
		answer = object{"anyOf": []object{answer, {"type": "null"}}}
	}
	if triable(r) {
		plan := s.of(reflect.TypeFor[api.DryRun]())
		answer = object{"anyOf": []object{plan, {"type": "object", "maxProperties": 0}}}
	}
	envelope := s.of(reflect.TypeFor[api.Response]())
	out := object{
		"description": "Done; the document is in `metadata`.",
		"content":     inJSON(object{"allOf": []object{envelope, {"properties": object{"metadata": answer}}}}),
	}
	return out
}

func inJSON(schema object) object { return object{"application/json": object{"schema": schema}} }

// triable reports whether a route can be asked only to plan.
func triable(r rest.Route) bool {
	for _, q := range r.Query {
		if q.Name == "dry-run" {
			return true
		}
	}
	return false
}

func parameters(r rest.Route) []object {
	var out []object
	text := object{"type": "string"}
	if strings.Contains(r.Path, "{name}") {
		out = append(out, object{"name": "name", "in": "path", "required": true, "schema": text})
	}
	for _, q := range r.Query {
		out = append(out, object{"name": q.Name, "in": "query", "description": q.About, "schema": text})
	}
	if triable(r) {
		out = append(out, object{"name": "If-Match", "in": "header", "schema": text,
			"description": "The ETag of the configuration that was read; the answer is 412 if it was changed since."})
	}
	return out
}

// operationID makes a name of a route: GET /1.0/system/network is
// getSystemNetwork.
func operationID(r rest.Route) string {
	words := strings.FieldsFunc(strings.TrimPrefix(r.Path, "/1.0"), func(c rune) bool { return !unicode.IsLetter(c) })
	switch r.Path {
	case "/":
		words = []string{"versions"}
	case "/1.0":
		words = []string{"server"}
	}
	id := strings.ToLower(r.Method)
	for _, w := range words {
		id += strings.ToUpper(w[:1]) + w[1:]
	}
	return id
}

// tag is the part of the API that a path belongs to.
func tag(path string) string {
	part, _, _ := strings.Cut(strings.Trim(strings.TrimPrefix(path, "/1.0"), "/"), "/")
	if part == "" {
		return "server"
	}
	return part
}
