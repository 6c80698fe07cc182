package main

import (
	"fmt"
	"reflect"
	"strings"
	"time"
)

// schemas makes JSON Schemas of Go types, with the comments of package api.
type schemas struct {
	docs       *types
	components object // those of named structs
	err        error
}

func newSchemas(docs *types) *schemas { return &schemas{docs: docs, components: make(object)} }

// of returns the schema of t, which refers to components where it can.
func (s *schemas) of(t reflect.Type) object {
	switch kind := jsonKind(t); kind {
	case "":
		return object{}
	case "time":
		return object{"type": "string", "format": "date-time"}
	case "bytes":
		return object{"type": "string", "contentEncoding": "base64"}
	case "object":
		return s.object(t)
	case "array":
		return object{"type": "array", "items": s.of(t.Elem())}
	case "integer":
		if strings.HasPrefix(t.Kind().String(), "uint") {
			return object{"type": kind, "minimum": 0}
		}
		return object{"type": kind}
	case "pointer":
		return s.of(t.Elem())
	case "string":
		return s.text(t)
	default:
		return object{"type": kind}
	}
}

// jsonKind says what a t is in JSON: "" for anything, or the name of a type of
// JSON Schema; and "time", "bytes" and "pointer" for what is more than that.
func jsonKind(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return "time"
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8:
		if t.PkgPath() == "encoding/json" { // RawMessage
			return ""
		}
		return "bytes"
	}
	switch k := t.Kind(); k {
	case reflect.Interface:
		return ""
	case reflect.Struct, reflect.Map:
		return "object"
	case reflect.Slice, reflect.Array:
		return "array"
	case reflect.Pointer:
		return "pointer"
	case reflect.Bool:
		return "boolean"
	case reflect.String:
		return "string"
	case reflect.Float32, reflect.Float64:
		return "number"
	default:
		return "integer"
	}
}

// text is the schema of a string, which may be one of a few.
func (s *schemas) text(t reflect.Type) object {
	out := object{"type": "string"}
	if t.Name() == "Secret" {
		out["format"] = "password"
	}
	if doc := s.docs.byName[t.Name()]; doc != nil && len(doc.values) > 0 {
		var words []string
		for _, v := range doc.values {
			words = append(words, v.literal)
		}
		out["enum"] = words
	}
	return out
}

// object is the schema of a map, or refers to that of a struct.
func (s *schemas) object(t reflect.Type) object {
	if t.Kind() == reflect.Map {
		return object{"type": "object", "additionalProperties": s.of(t.Elem())}
	}
	if t.Name() == "" {
		return s.properties(t, nil)
	}
	ref := object{"$ref": "#/components/schemas/" + t.Name()}
	if _, done := s.components[t.Name()]; done {
		return ref
	}
	doc := s.docs.byName[t.Name()]
	if doc == nil || !strings.HasSuffix(t.PkgPath(), "/api") {
		s.err = fmt.Errorf("package api does not have the type %s, which a route is about", t)
		return ref
	}
	s.components[t.Name()] = object{} // it may contain itself
	s.components[t.Name()] = s.properties(t, doc)
	return ref
}

func (s *schemas) properties(t reflect.Type, doc *typeDoc) object {
	texts := make(map[string]string)
	out := object{"type": "object"}
	if doc != nil {
		for _, f := range doc.fields {
			texts[f.key] = f.text
		}
		if doc.text != "" {
			out["description"] = doc.text
		}
	}
	properties := make(object)
	for _, f := range jsonFields(t) {
		schema := s.of(f.typ)
		if kind := schema["type"]; kind == "array" && !f.optional {
			schema["type"] = []string{"array", "null"} // as encoding/json has a slice without items
		}
		if text := texts[f.key]; text != "" {
			schema["description"] = text
		}
		properties[f.key] = schema
	}
	if len(properties) > 0 {
		out["properties"] = properties
	}
	return out
}

// A jsonField is a key of a struct in JSON.
type jsonField struct {
	key      string
	typ      reflect.Type
	optional bool // left out when there is nothing to say
}

// jsonFields returns the keys of a struct, embedded structs' included.
func jsonFields(t reflect.Type) []jsonField {
	var out []jsonField
	for _, f := range reflect.VisibleFields(t) {
		key, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous || !f.IsExported() || key == "-" {
			continue
		}
		if key == "" {
			key = f.Name
		}
		out = append(out, jsonField{key, f.Type, strings.Contains(options, "omit")})
	}
	return out
}
