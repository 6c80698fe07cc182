package store

import "reflect"

// merge returns after with what old has and before has not: the fields of a
// newer release. Old is the file's configuration, before the part of it that
// this release understood, and after what takes that part's place. All three
// are JSON values as decoded without types; none is changed.
func merge(old, before, after any) any {
	switch after := after.(type) {
	case map[string]any:
		o, isObject := old.(map[string]any)
		b, wasObject := before.(map[string]any)
		if isObject && wasObject {
			return mergeObject(o, b, after)
		}
	case []any:
		o, isArray := old.([]any)
		b, wasArray := before.([]any)
		if isArray && wasArray && len(o) == len(b) {
			return mergeArray(o, b, after)
		}
	}
	return after
}

func mergeObject(old, before, after map[string]any) map[string]any {
	out := make(map[string]any, len(after))
	for k, v := range after {
		out[k] = merge(old[k], before[k], v)
	}
	for k, v := range old {
		_, understood := before[k]
		_, set := after[k]
		if !understood && !set {
			out[k] = v
		}
	}
	return out
}

// mergeArray finds for each element the one it was before, since elements come,
// go and move.
func mergeArray(old, before, after []any) []any {
	out := make([]any, len(after))
	for i, v := range after {
		out[i] = v
		for j := range before {
			if same(before[j], v) {
				out[i] = merge(old[j], before[j], v)
				break
			}
		}
	}
	return out
}

// same reports whether a and b are the same element of a list: objects that
// have a name go by it, everything else by its content.
func same(a, b any) bool {
	x, _ := a.(map[string]any)
	y, _ := b.(map[string]any)
	if x["name"] != nil && y["name"] != nil {
		return x["name"] == y["name"]
	}
	return reflect.DeepEqual(a, b)
}
