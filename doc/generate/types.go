package main

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A typeDoc is what a type says about itself.
type typeDoc struct {
	name   string
	text   string  // its comment, as sentences about the thing
	fields []field // of a struct, embedded structs' included
	values []value // of a type with constants
	is     string  // of another type than a struct: its underlying one
}

// A field is one key of a document.
type field struct {
	key  string
	typ  ast.Expr
	text string
}

// A value is one that a text field may have.
type value struct{ literal, text string }

// types holds the types of a package by their Go names.
type types struct {
	byName map[string]*typeDoc
	lists  map[string][]string // functions that return a list of words
}

// readTypes reads the types of the package in dir.
func readTypes(dir string) (*types, error) {
	files, err := parseDir(dir)
	if err != nil {
		return nil, err
	}
	t := &types{byName: make(map[string]*typeDoc), lists: make(map[string][]string)}
	for _, f := range files {
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				t.addList(d)
			case *ast.GenDecl:
				t.addTypes(d)
			}
		}
	}
	for _, f := range files {
		t.addConstants(f)
	}
	return t, t.finish(files)
}

// parseDir parses the files of a package but its tests, in the order of names.
func parseDir(dir string) ([]*ast.File, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	fset := token.NewFileSet()
	var files []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s: %w", dir, fs.ErrNotExist)
	}
	return files, nil
}

// addList keeps what a function returns that does nothing but return words.
func (t *types) addList(d *ast.FuncDecl) {
	if d.Recv != nil || d.Body == nil || len(d.Body.List) != 1 {
		return
	}
	ret, ok := d.Body.List[0].(*ast.ReturnStmt)
	if !ok || len(ret.Results) != 1 {
		return
	}
	list, ok := ret.Results[0].(*ast.CompositeLit)
	if !ok {
		return
	}
	for _, e := range list.Elts {
		if word, ok := literal(e); ok {
			t.lists[d.Name.Name] = append(t.lists[d.Name.Name], word)
		}
	}
}

func (t *types) addTypes(d *ast.GenDecl) {
	for _, s := range d.Specs {
		spec, ok := s.(*ast.TypeSpec)
		if !ok {
			continue
		}
		comment := d.Doc
		if spec.Doc != nil {
			comment = spec.Doc
		}
		doc := &typeDoc{name: spec.Name.Name, text: about(spec.Name.Name, comment)}
		if id, ok := spec.Type.(*ast.Ident); ok {
			doc.is = id.Name
		}
		t.byName[doc.name] = doc
	}
}

// addConstants gives types the values that constants of theirs have.
func (t *types) addConstants(f *ast.File) {
	for _, d := range f.Decls {
		gen, ok := d.(*ast.GenDecl)
		if !ok || gen.Tok != token.CONST {
			continue
		}
		for _, s := range gen.Specs {
			spec := s.(*ast.ValueSpec)
			id, ok := spec.Type.(*ast.Ident)
			if !ok || t.byName[id.Name] == nil || len(spec.Values) != 1 {
				continue
			}
			if word, ok := literal(spec.Values[0]); ok {
				doc := t.byName[id.Name]
				doc.values = append(doc.values, value{word, forReaders(oneLine(cmp.Or(spec.Comment.Text(), spec.Doc.Text())))})
			}
		}
	}
}

// finish gives structs their fields, once all types are known.
func (t *types) finish(files []*ast.File) error {
	structs := make(map[string]*ast.StructType)
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			if spec, ok := n.(*ast.TypeSpec); ok {
				if s, ok := spec.Type.(*ast.StructType); ok {
					structs[spec.Name.Name] = s
				}
			}
			return true
		})
	}
	for name, s := range structs {
		doc := t.byName[name]
		if doc == nil {
			continue
		}
		keys := make(map[string]string)
		var err error
		if doc.fields, err = t.fields(s, structs, keys); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		doc.text = inKeys(doc.text, keys)
		for i := range doc.fields {
			doc.fields[i].text = t.spellOut(inKeys(doc.fields[i].text, keys))
		}
	}
	return nil
}

// fields returns the keys of a struct. Embedded structs count as part of it,
// as they do in JSON. What Go calls a field is put into keys.
func (t *types) fields(s *ast.StructType, structs map[string]*ast.StructType, keys map[string]string) ([]field, error) {
	var out []field
	for _, f := range s.Fields.List {
		if len(f.Names) == 0 {
			id, ok := f.Type.(*ast.Ident)
			if !ok || structs[id.Name] == nil {
				return nil, fmt.Errorf("embeds %T, which is no struct of its package", f.Type)
			}
			inner, err := t.fields(structs[id.Name], structs, keys)
			if err != nil {
				return nil, err
			}
			out = append(out, inner...)
			continue
		}
		key := jsonKey(f)
		if key == "" || key == "-" {
			continue
		}
		text := oneLine(cmp.Or(f.Comment.Text(), f.Doc.Text()))
		keys[f.Names[0].Name] = key
		out = append(out, field{key, f.Type, forReaders(about(f.Names[0].Name, comment(text)))})
	}
	return out, nil
}

func jsonKey(f *ast.Field) string {
	if f.Tag == nil {
		return ""
	}
	tag, err := strconv.Unquote(f.Tag.Value)
	if err != nil {
		return ""
	}
	key, _, _ := strings.Cut(reflect.StructTag(tag).Get("json"), ",")
	return key
}

// forReaders puts words for those who see the JSON in place of words for those
// who see the Go code.
func forReaders(text string) string {
	if rest, ok := strings.CutPrefix(text, "nil: "); ok {
		return "absent: " + rest
	}
	return strings.TrimPrefix(text, "ours: ")
}

// subject is how a Go comment begins.
var subject = regexp.MustCompile(`^(?:An? )?([A-Z]\w*) (is |lists |are )?`)

// about returns the comment of a name as text about the thing: "A Disk selects
// a disk." becomes "Selects a disk."
func about(name string, c *ast.CommentGroup) string {
	text := oneLine(c.Text())
	found := subject.FindStringSubmatchIndex(text)
	if found == nil || text[found[2]:found[3]] != name {
		return text
	}
	rest := text[found[1]:]
	if found[4] >= 0 && text[found[4]:found[5]] == "lists " {
		rest = "Lists " + rest
	}
	return strings.ToUpper(rest[:1]) + rest[1:]
}

func comment(text string) *ast.CommentGroup {
	return &ast.CommentGroup{List: []*ast.Comment{{Text: "// " + text}}}
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

var goName = regexp.MustCompile(`\b[A-Z]\w+\b`)

// inKeys replaces Go's names of fields by their keys, but at the start of a
// sentence, where a word is more likely a word.
func inKeys(text string, keys map[string]string) string {
	var b strings.Builder
	end := 0
	for _, at := range goName.FindAllStringIndex(text, -1) {
		key, ok := keys[text[at[0]:at[1]]]
		if !ok || at[0] == 0 || strings.HasSuffix(text[:at[0]], ". ") {
			continue
		}
		b.WriteString(text[end:at[0]] + "`" + key + "`")
		end = at[1]
	}
	return b.String() + text[end:]
}

// spellOut replaces the name of a list of words by the words.
func (t *types) spellOut(text string) string {
	return goName.ReplaceAllStringFunc(text, func(name string) string {
		if t.lists[name] == nil {
			return name
		}
		return "`" + strings.Join(t.lists[name], "`, `") + "`"
	})
}

func literal(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(lit.Value)
	return s, err == nil
}

// word says what kind of value a Go type is in JSON and YAML.
func (t *types) word(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		switch doc := t.byName[e.Name]; {
		case e.Name == "string" || doc != nil && doc.is == "string":
			return "text"
		case e.Name == "bool":
			return "true or false"
		case e.Name == "any":
			return "anything"
		case strings.Contains(e.Name, "int"):
			return "whole number"
		case e.Name == "float64":
			return "number"
		}
	case *ast.StarExpr:
		return t.word(e.X)
	case *ast.ArrayType:
		return "list of " + plural(t.word(e.Elt))
	case *ast.MapType:
		return "mapping of " + plural(t.word(e.Value))
	case *ast.SelectorExpr:
		if e.Sel.Name == "Time" {
			return "time" // RFC 3339
		}
		return "anything" // json.RawMessage
	}
	return "mapping"
}

func plural(s string) string {
	switch s {
	case "text", "anything", "true or false":
		return s
	}
	return s + "s"
}

// named returns the type of the package that is in e: that of a field, of the
// items of a list or of the values of a mapping.
func (t *types) named(e ast.Expr) *typeDoc {
	switch e := e.(type) {
	case *ast.Ident:
		return t.byName[e.Name]
	case *ast.StarExpr:
		return t.named(e.X)
	case *ast.ArrayType:
		return t.named(e.Elt)
	case *ast.MapType:
		return t.named(e.Value)
	}
	return nil
}

// section writes a type and the types below it. Path is what leads to it in
// the document, "" at the top; seen has the paths of the types before it.
func (t *types) section(b *strings.Builder, doc *typeDoc, path string, seen map[*typeDoc]string) {
	if path != "" {
		fmt.Fprintf(b, "### `%s`\n\n", path)
	}
	if first, again := seen[doc]; again {
		fmt.Fprintf(b, "The same fields as `%s`.\n\n", first)
		return
	}
	seen[doc] = path
	if doc.text != "" {
		fmt.Fprintf(b, "%s\n\n", doc.text)
	}
	t.table(b, doc)
	for _, f := range doc.fields {
		if below := t.named(f.typ); below != nil && len(below.fields) > 0 {
			t.section(b, below, join(path, f), seen)
		}
	}
}

func (t *types) table(b *strings.Builder, doc *typeDoc) {
	b.WriteString("| Field | Type | Meaning |\n|---|---|---|\n")
	for _, f := range doc.fields {
		text := f.text
		switch below := t.named(f.typ); {
		case below != nil && len(below.values) > 0:
			text = strings.TrimPrefix(strings.TrimSuffix(text, ".")+"; "+choices(below.values), "; ")
		case text == "" && below != nil && len(below.fields) > 0:
			text = "see below"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", f.key, t.word(f.typ), strings.ReplaceAll(text, "|", `\|`))
	}
	b.WriteString("\n")
}

func choices(values []value) string {
	var out []string
	for _, v := range values {
		out = append(out, strings.TrimSuffix(fmt.Sprintf("`%s` (%s)", v.literal, v.text), " ()"))
	}
	return "one of " + strings.Join(out, ", ")
}

func join(path string, f field) string {
	key := f.key
	e := f.typ
	if star, ok := e.(*ast.StarExpr); ok {
		e = star.X
	}
	switch e.(type) {
	case *ast.ArrayType:
		key += "[]"
	case *ast.MapType:
		key += ".NAME"
	}
	return strings.Join(slices.DeleteFunc([]string{path, key}, func(s string) bool { return s == "" }), ".")
}
