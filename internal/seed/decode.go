package seed

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/incusos/incusos/api"
)

// A mistake is something in a document that its writer has to change.
type mistake struct {
	line, column int // from 1
	text         string
}

func (m *mistake) Error() string { return fmt.Sprintf("%d:%d: %s", m.line, m.column, m.text) }

func mistakef(p *token.Position, format string, args ...any) error {
	return &mistake{p.Line, p.Column, fmt.Sprintf(format, args...)}
}

// decode turns a document in YAML 1.2, of which JSON is a part, into a T. The
// text is parsed for its positions, checked against the json tags of T, and
// then put through encoding/json, so that a document means the same in a seed
// and in the API. Anchors, aliases, merge keys and tags are refused: they are
// the part of YAML that surprises, and a short text could stand for a huge one.
// An empty document is a T without anything set.
func decode[T any](data []byte) (*T, error) {
	doc := new(T)
	body, err := parse(bytes.TrimPrefix(data, []byte("\ufeff")))
	if err != nil {
		return nil, err
	}
	c := checker{places: map[string]*token.Position{"": {Line: 1, Column: 1}}}
	if body != nil {
		v, err := c.value(body, reflect.TypeFor[T](), "")
		if err != nil {
			return nil, err
		}
		if err := remarshal(v, doc); err != nil {
			return nil, err
		}
	}
	if v, ok := any(doc).(interface{ Validate() error }); ok {
		return doc, c.locate(v.Validate())
	}
	return doc, nil
}

func remarshal(v, doc any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber() // in Incus' own document a number keeps all its digits
	return d.Decode(doc)
}

// parse returns the content of the only document in data, or nil if it has none.
func parse(data []byte) (ast.Node, error) {
	if !utf8.Valid(data) || bytes.IndexByte(data, 0) >= 0 {
		return nil, errors.New("is not text; want YAML or JSON in UTF-8")
	}
	if err := plain(lexer.Tokenize(string(data))); err != nil {
		return nil, err
	}
	file, err := parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey()) // the checker has better words for those
	if at, ok := errors.AsType[yaml.Error](err); ok && at.GetToken() != nil {
		return nil, mistakef(at.GetToken().Position, "%s", at.GetMessage())
	}
	if err != nil {
		return nil, err
	}
	var body ast.Node
	for i, d := range file.Docs {
		if i > 0 {
			return nil, mistakef(d.Start.Position, "a second document starts here; want only one in a file")
		}
		body = d.Body
	}
	if _, ok := body.(*ast.CommentGroupNode); ok {
		return nil, nil
	}
	return body, nil
}

// maxDepth is how deep brackets and dashes may nest. The parser recurses.
const maxDepth = 64

// plain refuses what the parser would take and this package does not.
func plain(tokens token.Tokens) error {
	brackets, dashes, line := 0, 0, 0
	for _, t := range tokens {
		if t.Position.Line != line {
			dashes, line = 0, t.Position.Line
		}
		switch t.Type {
		case token.AnchorType, token.AliasType, token.TagType, token.MergeKeyType, token.MappingKeyType, token.DirectiveType:
			return mistakef(t.Position, "%q: anchors, aliases, tags, merge keys, directives and complex keys are not allowed; write the value out, or quote the text", t.Value)
		case token.MappingStartType, token.SequenceStartType:
			brackets++
		case token.MappingEndType, token.SequenceEndType:
			brackets--
		case token.SequenceEntryType:
			dashes++
		}
		if brackets > maxDepth || dashes > maxDepth {
			return mistakef(t.Position, "nests too deep; want %d levels at most", maxDepth)
		}
	}
	return nil
}

// A checker compares a document with a type and notes where its fields are.
type checker struct {
	places map[string]*token.Position // by JSON path
}

// value returns what n says as encoding/json would have it, if a t can hold it.
func (c checker) value(n ast.Node, t reflect.Type, path string) (any, error) {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	at := start(n)
	c.places[path] = at
	switch n := n.(type) {
	case *ast.MappingNode:
		return c.mapping(n, t, path)
	case *ast.SequenceNode:
		return c.sequence(n, t, path)
	}
	v, is := scalar(n)
	if is == "" {
		return nil, mistakef(at, "%s is not understood; want %s", n.GetToken().Value, wanted(t))
	}
	switch {
	case t.Kind() == reflect.Interface, t.Kind().String() == is:
		return v, nil
	case is == "null":
		return nil, mistakef(at, "has no value; want %s, or leave the key out", wanted(t))
	case t.Kind() == reflect.String:
		return nil, mistakef(at, "%s is no text; want it in quotes: \"%s\"", n.GetToken().Value, n.GetToken().Value)
	}
	return nil, mistakef(at, "%q is no %s; want %s", n.GetToken().Value, noun(t), wanted(t))
}

// start returns where a value begins; the token of a block mapping is its
// first colon.
func start(n ast.Node) *token.Position {
	if m, ok := n.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		return m.Values[0].Key.GetToken().Position
	}
	return n.GetToken().Position
}

// scalar returns the value of a node that has no parts, and the kind of Go
// value it is: "string", "int", "float64", "bool", "null", or "" for none.
func scalar(n ast.Node) (value any, kind string) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, "string"
	case *ast.LiteralNode:
		return n.Value.Value, "string"
	case *ast.IntegerNode:
		if u, ok := n.Value.(uint64); ok && u>>53 != 0 {
			return n.Value, "" // JSON does not carry it safely
		}
		return n.Value, "int"
	case *ast.FloatNode:
		return n.Value, "float64"
	case *ast.BoolNode:
		return n.Value, "bool"
	case *ast.NullNode:
		return nil, "null"
	}
	return nil, ""
}

func (c checker) mapping(n *ast.MappingNode, t reflect.Type, path string) (any, error) {
	open := t.Kind() == reflect.Interface || t.Kind() == reflect.Map
	if !open && t.Kind() != reflect.Struct {
		return nil, mistakef(start(n), "a mapping is no %s; want %s", noun(t), wanted(t))
	}
	var names []string
	types := make(map[string]reflect.Type)
	if !open {
		names = fields(t, types)
	}
	out := make(map[string]any, len(n.Values))
	for _, v := range n.Values {
		key, at := keyText(v.Key), v.Key.GetToken().Position
		if _, twice := out[key]; twice {
			return nil, mistakef(at, "%q is set twice; keep one", key)
		}
		ft, known := types[key]
		if open {
			ft, known = reflect.TypeFor[any](), true
		}
		if !known {
			return nil, mistakef(at, "unknown field %q; %s", key, advice(key, names))
		}
		value, err := c.value(v.Value, ft, join(path, key))
		if err != nil {
			return nil, err
		}
		out[key] = value
	}
	return out, nil
}

func (c checker) sequence(n *ast.SequenceNode, t reflect.Type, path string) (any, error) {
	item := reflect.TypeFor[any]()
	switch t.Kind() {
	case reflect.Interface:
	case reflect.Slice:
		item = t.Elem()
	default:
		return nil, mistakef(start(n), "a list is no %s; want %s", noun(t), wanted(t))
	}
	out := make([]any, 0, len(n.Values))
	for i, v := range n.Values {
		value, err := c.value(v, item, fmt.Sprintf("%s[%d]", path, i))
		if err != nil {
			return nil, err
		}
		out = append(out, value)
	}
	return out, nil
}

// locate turns the FieldError of a Validate method into a mistake at the
// field, or at the nearest thing around it that is there.
func (c checker) locate(err error) error {
	fe, ok := errors.AsType[*api.FieldError](err)
	if !ok {
		return err
	}
	path := fe.Field
	for c.places[path] == nil {
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return mistakef(c.places[path], "%v", fe)
}

// fields returns the names that a JSON object of struct t may have, in order,
// and puts their types into types. Embedded structs count as part of t.
func fields(t reflect.Type, types map[string]reflect.Type) []string {
	var names []string
	for _, f := range reflect.VisibleFields(t) {
		if f.Anonymous {
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		names, types[name] = append(names, name), f.Type
	}
	return names
}

func keyText(k ast.MapKeyNode) string {
	if s, ok := k.(*ast.StringNode); ok {
		return s.Value
	}
	return k.GetToken().Value
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func noun(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "truth value"
	case reflect.Int:
		return "number"
	case reflect.Slice:
		return "list"
	case reflect.Struct, reflect.Map:
		return "mapping"
	}
	return "text"
}

func wanted(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "a whole number"
	case reflect.Slice:
		return "a list"
	case reflect.Struct:
		return "a mapping of " + strings.Join(fields(t, make(map[string]reflect.Type)), ", ")
	case reflect.Map:
		return "a mapping"
	case reflect.String:
		return "text"
	}
	return "a value"
}

// advice names the known word nearest to a misspelt one, or all there are.
func advice(word string, known []string) string {
	nearest := slices.MinFunc(known, func(a, b string) int { return distance(word, a) - distance(word, b) })
	if distance(word, nearest) <= min(2, len(nearest)/2) {
		return fmt.Sprintf("did you mean %q?", nearest)
	}
	return "want one of " + strings.Join(known, ", ")
}

// distance is how many letters to insert, remove or replace to make a from b
// (Levenshtein's). A word much longer than any of ours is just far away.
func distance(a, b string) int {
	if len(a) > 64 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
