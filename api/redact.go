package api

import (
	"encoding/json"
	"reflect"
	"strings"
)

// Redact returns v as JSON would have it, with every Secret in it replaced: for
// logs, plans and bundles. Secrets are known by their type, so that a new one
// cannot be forgotten.
func Redact(v any) any {
	if v == nil {
		return nil
	}
	return redact(reflect.ValueOf(v))
}

func redact(v reflect.Value) any {
	if v.Type() == reflect.TypeFor[Secret]() {
		if v.Len() == 0 {
			return ""
		}
		return redacted
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return nil
		}
		return redact(v.Elem())
	case reflect.Struct:
		if _, own := v.Interface().(json.Marshaler); !own {
			return redactStruct(v)
		}
	case reflect.Map:
		out := make(map[string]any, v.Len())
		for _, key := range v.MapKeys() {
			out[key.String()] = redact(v.MapIndex(key))
		}
		return out
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return v.Interface()
		}
		out := make([]any, v.Len())
		for i := range out {
			out[i] = redact(v.Index(i))
		}
		return out
	}
	return v.Interface()
}

func redactStruct(v reflect.Value) map[string]any {
	out := make(map[string]any)
	for _, f := range reflect.VisibleFields(v.Type()) {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		value, err := v.FieldByIndexErr(f.Index)
		if f.Anonymous || !f.IsExported() || name == "-" || err != nil {
			continue
		}
		if name == "" {
			name = f.Name
		}
		if strings.HasPrefix(options, "omit") && value.IsZero() {
			continue
		}
		out[name] = redact(value)
	}
	return out
}
