package main

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/incusos/incusos/internal/rest"
)

const apiHead = `# API

Incus serves this API below ` + "`/os`" + ` to the clients it trusts: the address of
` + "`/1.0/system`" + ` is ` + "`https://MACHINE:8443/os/1.0/system`" + `. On the machine itself the
daemon serves it, without ` + "`/os`" + `, on the unix socket /run/incus-os/unix.socket,
for root alone. Every path that answers to GET answers to HEAD too.

A PUT of a configuration takes ` + "`?dry-run`" + `, which answers with what the change
would do and changes nothing, and ` + "`?confirmation_timeout=2m`" + `, which undoes the change
unless ` + "`:confirm`" + ` follows in time. GET answers with an ETag, and ` + "`If-Match`" + ` refuses
to change anything else than what was read.

Every answer is JSON in this envelope, the same as that of Incus:

`

const apiErrors = `| Status | When |
|---|---|
| 400 | the request is wrong, or ended early |
| 404 | there is no such path, application, service or task |
| 405 | the path does not know the method; the header Allow lists those it knows |
| 409 | not while things are as they are, such as another change on trial |
| 412 | it was changed since it was read |
| 413 | the body is longer than 1 MiB |
| 500 | the machine could not do it; ` + "`error`" + ` says why |
| 501 | this release or this machine does not do that |
| 503 | not now, and it is worth trying again |

`

// apiPage returns the page of the API of the module in root.
func apiPage(docs *types) (string, error) {
	routes := rest.Routes(rest.Machine{})
	var b strings.Builder
	b.WriteString(made + apiHead)
	envelope := docs.byName["Response"]
	if envelope == nil {
		return "", errors.New("package api has no type Response")
	}
	docs.table(&b, envelope)
	b.WriteString(apiErrors)
	b.WriteString("| Method | Path | |\n|---|---|---|\n")
	for _, r := range routes {
		fmt.Fprintf(&b, "| %s | [`%s`](#%s) | %s |\n", r.Method, r.Path, anchor(r), r.About)
	}
	b.WriteString("\n")
	for _, r := range routes {
		if err := describe(&b, r, docs); err != nil {
			return "", err
		}
	}
	return strings.TrimRight(b.String(), "\n") + "\n", nil
}

// describe writes the section of a route.
func describe(b *strings.Builder, r rest.Route, docs *types) error {
	fmt.Fprintf(b, "## %s %s\n\n%s\n\n", r.Method, r.Path, r.About)
	for _, q := range r.Query {
		fmt.Fprintf(b, "- `?%s`: %s\n", q.Name, q.About)
	}
	if len(r.Query) > 0 {
		b.WriteString("\n")
	}
	if r.Upload != "" {
		fmt.Fprintf(b, "The body is `%s`.\n\n", r.Upload)
	}
	if r.Stream != "" {
		fmt.Fprintf(b, "The answer is `%s`.\n\n", r.Stream)
	}
	t, what := r.Answer, ""
	if r.Body != nil {
		t, what = r.Body, "The body: "
	}
	doc, err := document(t, docs)
	if doc == nil || err != nil {
		return err
	}
	if r.Method == "PUT" {
		fmt.Fprintf(b, "The document is the same as that of GET.\n\n")
		return nil
	}
	b.WriteString(what)
	docs.section(b, doc, "", make(map[*typeDoc]string))
	return nil
}

// document returns what there is to say about a type of package api; nil for the
// types of Go itself.
func document(t reflect.Type, docs *types) (*typeDoc, error) {
	for t != nil && (t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice) {
		t = t.Elem()
	}
	if t == nil || t.PkgPath() == "" || !strings.HasSuffix(t.PkgPath(), "/api") {
		return nil, nil
	}
	doc := docs.byName[t.Name()]
	if doc == nil {
		return nil, fmt.Errorf("package api does not have the type %s, which a route is about", t)
	}
	return doc, nil
}

// anchor is what renderers of Markdown make of the heading of a route: lower
// case, blanks as dashes, and nothing but letters, digits, dashes and "_".
func anchor(r rest.Route) string {
	return strings.Map(func(c rune) rune {
		switch {
		case c == ' ':
			return '-'
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_':
			return c
		}
		return -1
	}, strings.ToLower(r.Method+" "+r.Path))
}
