package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/incusos/incusos/internal/rest"
)

const goldenName = "doc/reference/api.golden"

const goldenHead = `# What clients of the API rely on: every route, the keys of its query, and every
# field of its documents.
#
#   METHOD PATH                  there is such a route
#   METHOD PATH ?KEY             its query has this key
#   METHOD PATH < FIELD TYPE     the document it takes has this field; [] is each item, {} each value
#   METHOD PATH > FIELD TYPE     the document it answers with has it
#   PUT PATH < as GET            the same fields as in the answer of GET
#
# ` + "`go generate ./...`" + ` adds lines and removes none. A test fails when a line here is
# not true any more: something that clients may use has gone or is of another
# type, and machines in the field will be asked for it. If that is wanted, take
# the line out by hand, in a commit that says why, with a file in changelog.d.
`

// golden returns the list: what the code says and what was ever said before.
func golden(root string) (string, error) {
	before, err := goldenLines(root)
	if err != nil {
		return "", err
	}
	routes := rest.Routes(rest.Machine{})
	if err := endless(routes); err != nil {
		return "", err
	}
	lines := slices.Concat(before, apiLines(routes))
	slices.Sort(lines)
	return goldenHead + strings.Join(slices.Compact(lines), "\n") + "\n", nil
}

// goldenLine is a line of the list. What else a merge may leave is none.
var goldenLine = regexp.MustCompile(`^[A-Z]+ /`)

// goldenLines returns the lines of the list as it is.
func goldenLines(root string) ([]string, error) {
	b, err := os.ReadFile(filepath.Join(root, goldenName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var lines []string
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); goldenLine.MatchString(line) {
			lines = append(lines, line)
		}
	}
	return lines, nil
}

// endless refuses routes with a document in which a type contains itself: a list of
// its fields would have no end.
func endless(routes []rest.Route) error {
	for _, r := range routes {
		for _, t := range []reflect.Type{r.Body, r.Answer} {
			if within := circle(t, nil); within != nil {
				return fmt.Errorf("%s %s: the type %s contains itself, so that the list of its fields would have no end; give it a field of json.RawMessage there, or one that names the other by a key",
					r.Method, r.Path, within)
			}
		}
	}
	return nil
}

// circle returns the type in t that contains itself; nil if there is none. Above
// are the structs that t is in.
func circle(t reflect.Type, above []reflect.Type) reflect.Type {
	if t == nil || slices.Contains(above, t) {
		return t
	}
	switch kind := jsonKind(t); {
	case kind == "pointer" || kind == "array" || t.Kind() == reflect.Map:
		return circle(t.Elem(), append(slices.Clone(above), t))
	case kind == "object":
		for _, f := range jsonFields(t) {
			if within := circle(f.typ, append(slices.Clone(above), t)); within != nil {
				return within
			}
		}
	}
	return nil
}

// apiLines returns what there is to say about the routes.
func apiLines(routes []rest.Route) []string {
	answers := make(map[string]reflect.Type) // of GET, by path
	for _, r := range routes {
		if r.Method == "GET" {
			answers[r.Path] = r.Answer
		}
	}
	var lines []string
	for _, r := range routes {
		head := r.Method + " " + r.Path
		lines = append(lines, head)
		for _, q := range r.Query {
			lines = append(lines, head+" ?"+q.Name)
		}
		switch {
		case r.Upload != "":
			lines = append(lines, head+" < "+r.Upload)
		case r.Method == "PUT" && r.Body != nil && r.Body == answers[r.Path]:
			lines = append(lines, head+" < as GET")
		case r.Body != nil:
			lines = append(lines, fieldLines(head+" <", "", r.Body)...)
		}
		switch {
		case r.Stream != "":
			lines = append(lines, head+" > "+r.Stream)
		case r.Answer != nil && (r.Method == "GET" || r.Answer != r.Body):
			lines = append(lines, fieldLines(head+" >", "", r.Answer)...)
		}
	}
	return lines
}

// fieldLines returns a line for t, which is at a place in a document, and for
// all that is in it.
func fieldLines(head, place string, t reflect.Type) []string {
	kind := jsonKind(t)
	if kind == "pointer" {
		return fieldLines(head, place, t.Elem())
	}
	if kind == "" {
		kind = "anything"
	}
	lines := []string{strings.Join(strings.Fields(fmt.Sprint(head, " ", place, " ", kind)), " ")}
	switch {
	case kind == "array":
		return append(lines, fieldLines(head, place+"[]", t.Elem())...)
	case t.Kind() == reflect.Map:
		return append(lines, fieldLines(head, place+"{}", t.Elem())...)
	case kind == "object":
		for _, f := range jsonFields(t) {
			lines = append(lines, fieldLines(head, strings.TrimPrefix(place+"."+f.key, "."), f.typ)...)
		}
	}
	return lines
}
