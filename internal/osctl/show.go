package osctl

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/goccy/go-yaml"
)

// A Format is how things are shown.
type Format string

const (
	Table Format = "table" // for people
	JSON  Format = "json"
	YAML  Format = "yaml"
)

// Formats are the words for all of them.
func Formats() []string { return []string{string(Table), string(JSON), string(YAML)} }

// Validate reports a word that is no format.
func (f Format) Validate() error {
	switch f {
	case Table, JSON, YAML:
		return nil
	}
	return Wrong(fmt.Errorf("--format %q is unknown; want one of %s", string(f), strings.Join(Formats(), ", ")))
}

// A Printer shows what a machine says.
type Printer struct {
	Out    io.Writer
	Format Format
}

// Value shows v as JSON has it; as a table, a line for each field.
func (p Printer) Value(v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return p.document(data, func() error { return p.fields(data) })
}

// Rows shows v, or a table of it: a head, and a row for each item.
func (p Printer) Rows(v any, head string, rows [][]string) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return p.document(data, func() error { return p.table(head, rows) })
}

func (p Printer) document(data []byte, table func() error) error {
	switch p.Format {
	case JSON:
		var b bytes.Buffer
		if err := json.Indent(&b, data, "", "  "); err != nil {
			return err
		}
		b.WriteByte('\n')
		_, err := p.Out.Write(b.Bytes())
		return err
	case YAML:
		out, err := yaml.JSONToYAML(data)
		if err != nil {
			return err
		}
		_, err = p.Out.Write(out)
		return err
	}
	return table()
}

// table shows rows below the words of head, in columns.
func (p Printer) table(head string, rows [][]string) error {
	w := tabwriter.NewWriter(p.Out, 0, 0, 2, ' ', 0)
	if head != "" {
		fmt.Fprintln(w, strings.Join(strings.Split(strings.ToUpper(head), "|"), "\t"))
	}
	for _, r := range rows {
		for i := range r {
			r[i] = visible(r[i])
		}
		fmt.Fprintln(w, strings.TrimRight(strings.Join(r, "\t"), "\t"))
	}
	return w.Flush()
}

// visible replaces what would move a terminal's cursor: texts come from logs and
// from hardware.
func visible(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f || c >= 0x80 && c < 0xa0 {
			return ' '
		}
		return c
	}, s)
}

// fields shows a document as one line for each field that says something.
func (p Printer) fields(data []byte) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var rows [][]string
	if err := flatten(d, "", &rows); err != nil {
		return err
	}
	return p.table("", rows)
}

// flatten appends the fields of the next value of d, in their order. A list of
// plain values is one field.
func flatten(d *json.Decoder, path string, rows *[][]string) error {
	token, err := d.Token()
	if err != nil {
		return err
	}
	switch token {
	case json.Delim('{'):
		return flattenObject(d, path, rows)
	case json.Delim('['):
		return flattenList(d, path, rows)
	case nil, "":
		return nil
	}
	*rows = append(*rows, []string{path, fmt.Sprint(token)})
	return nil
}

func flattenObject(d *json.Decoder, path string, rows *[][]string) error {
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return err
		}
		if err := flatten(d, strings.TrimPrefix(path+"."+fmt.Sprint(key), "."), rows); err != nil {
			return err
		}
	}
	_, err := d.Token()
	return err
}

func flattenList(d *json.Decoder, path string, rows *[][]string) error {
	var plain []string
	for i := 0; d.More(); i++ {
		var item [][]string
		where := fmt.Sprintf("%s[%d]", path, i)
		if err := flatten(d, where, &item); err != nil {
			return err
		}
		if len(item) == 1 && item[0][0] == where {
			plain = append(plain, item[0][1])
			continue
		}
		*rows = append(*rows, item...)
	}
	if len(plain) > 0 {
		*rows = append(*rows, []string{path, strings.Join(plain, ", ")})
	}
	_, err := d.Token()
	return err
}
