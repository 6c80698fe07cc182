package rest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/incusos/incusos/api"
)

// decodeConfig reads the configuration out of a document. Clients send back the
// whole document that they got: what is observed is ignored, what is unknown is
// refused.
func decodeConfig(r *http.Request, config any) error {
	var doc struct {
		Config json.RawMessage `json:"config"`
		State  json.RawMessage `json:"state"`
	}
	if err := decode(r, &doc); err != nil {
		return err
	}
	if len(doc.Config) == 0 || string(doc.Config) == "null" {
		return api.Fieldf("config", "is missing; want the whole configuration, as GET returns it")
	}
	return strict(doc.Config, config, "config")
}

// decodeOptional is decode for a body that may be left out.
func decodeOptional(r *http.Request, v any) error {
	if body, err := peek(r); err != nil || len(bytes.TrimSpace(body)) == 0 {
		return err
	}
	return decode(r, v)
}

// decode reads the body of r, a document in JSON, into v.
func decode(r *http.Request, v any) error {
	body, err := io.ReadAll(r.Body) // complete, see envelope.go
	if err != nil {
		return err
	}
	return Decode(body, v)
}

// Decode reads the body of an Action, a document in JSON, into v. What is wrong with it
// is an api.FieldError.
func Decode(body []byte, v any) error {
	if len(bytes.TrimSpace(body)) == 0 {
		return api.Fieldf("body", "is empty; want a document in JSON")
	}
	return strict(body, v, "")
}

func peek(r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	return body, err
}

// strict decodes data into v. What v has no place for, and what does not fit, is
// an api.FieldError with its path below where.
func strict(data []byte, v any, where string) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var generic any
	if err := d.Decode(&generic); err != nil {
		return badJSON(where, data, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return api.Fieldf(orBody(where), "has something after the document; want one document in JSON")
	}
	if err := fits(generic, reflect.TypeOf(v).Elem(), where); err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return api.Fieldf(orBody(where), "%v", err)
	}
	return nil
}

func badJSON(where string, data []byte, err error) error {
	if s, ok := errors.AsType[*json.SyntaxError](err); ok {
		before := data[:min(int(s.Offset), len(data))]
		line := 1 + bytes.Count(before, []byte("\n"))
		return api.Fieldf(orBody(where), "is not JSON: line %d, column %d: %v", line, len(before)-bytes.LastIndexByte(before, '\n')-1, err)
	}
	return api.Fieldf(orBody(where), "is not JSON: %v", err)
}

func orBody(where string) string {
	if where == "" {
		return "body"
	}
	return where
}

// fits reports what of v, as decoded without types, a t has no place for.
func fits(v any, t reflect.Type, where string) error {
	for t.Kind() == reflect.Pointer {
		if v == nil {
			return nil
		}
		t = t.Elem()
	}
	if _, own := reflect.New(t).Interface().(json.Unmarshaler); own || t.Kind() == reflect.Interface || v == nil {
		return nil
	}
	switch v := v.(type) {
	case map[string]any:
		return objectFits(v, t, where)
	case []any:
		if t.Kind() != reflect.Slice {
			return api.Fieldf(orBody(where), "is a list; want %s", noun(t))
		}
		for i, e := range v {
			if err := fits(e, t.Elem(), fmt.Sprintf("%s[%d]", where, i)); err != nil {
				return err
			}
		}
		return nil
	}
	return scalarFits(v, t, where)
}

func objectFits(v map[string]any, t reflect.Type, where string) error {
	if t.Kind() != reflect.Struct && t.Kind() != reflect.Map {
		return api.Fieldf(orBody(where), "is an object; want %s", noun(t))
	}
	known := make(map[string]reflect.Type)
	if t.Kind() == reflect.Struct {
		fields(t, known)
	}
	for _, key := range slices.Sorted(maps.Keys(v)) {
		ft, ok := known[key]
		if t.Kind() == reflect.Map {
			ft, ok = t.Elem(), true
		}
		path := strings.TrimPrefix(where+"."+key, ".")
		if !ok {
			return api.Fieldf(path, "is unknown; want one of %s", strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		}
		if err := fits(v[key], ft, path); err != nil {
			return err
		}
	}
	return nil
}

// fields puts the names that a JSON object of struct t may have into out.
func fields(t reflect.Type, out map[string]reflect.Type) {
	for _, f := range reflect.VisibleFields(t) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); !f.Anonymous && name != "-" {
			out[name] = f.Type
		}
	}
}

func scalarFits(v any, t reflect.Type, where string) error {
	switch v := v.(type) {
	case string:
		if t.Kind() == reflect.String || t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8 {
			return nil
		}
	case bool:
		if t.Kind() == reflect.Bool {
			return nil
		}
	case json.Number:
		probe := reflect.New(t)
		if noun(t) != "text" && json.Unmarshal([]byte(v), probe.Interface()) == nil {
			return nil
		}
	}
	return api.Fieldf(orBody(where), "is %v; want %s", quoted(v), noun(t))
}

func quoted(v any) string {
	if s, ok := v.(string); ok {
		return fmt.Sprintf("%.40q", s)
	}
	return fmt.Sprint(v)
}

// noun says what a t is for people.
func noun(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "text"
	case reflect.Slice:
		return "a list"
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.Uint, reflect.Uint64, reflect.Uint32:
		return "a whole number from 0 up"
	case reflect.Float64:
		return "a number"
	}
	return "a whole number"
}

// contains reports whether word is one of words.
func contains(words, word string) bool { return slices.Contains(strings.Fields(words), word) }
