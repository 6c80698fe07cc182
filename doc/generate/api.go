package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

const apiHead = `# API

Incus serves this API below ` + "`/os`" + ` to the clients it trusts: the address of
` + "`/1.0/system`" + ` is ` + "`https://MACHINE:8443/os/1.0/system`" + `. On the machine itself the
daemon serves it, without ` + "`/os`" + `, on the unix socket /run/incus-os/unix.socket,
for root alone. Every path that answers to GET answers to HEAD too.

This release reads the configuration and turns the machine off and on; it cannot
change the configuration yet.

Every answer is JSON in this envelope, the same as that of Incus:

`

const apiErrors = `| Status | When |
|---|---|
| 400 | the request is wrong, or ended early |
| 404 | there is no such path, application or service |
| 405 | the path does not know the method; the header Allow lists those it knows |
| 413 | the body is longer than 1 MiB |
| 500 | the machine could not do it; ` + "`error`" + ` says why |
| 501 | this machine has nothing of the kind |

`

// what says what each route does, which its code does not.
var what = map[string]string{
	"GET /":                        "The versions of the API: a list of paths.",
	"GET /1.0":                     "What the machine is and runs.",
	"GET /1.0/applications":        "What is installed: a list of paths.",
	"GET /1.0/applications/{name}": "One application.",
	"GET /1.0/services":            "The services that are there to be configured: a list of paths, empty in this release.",
	"GET /1.0/services/{name}":     "One service. None can be enabled yet: the answer is `{\"config\": {\"enabled\": false}, \"state\": {}}`.",
	"GET /1.0/system":              "The parts of the system: a list of paths.",
	"GET /1.0/system/network":      "The network: what is wanted and what there is.",
	"GET /1.0/system/security":     "Secure Boot, the TPM, and the keys to write down. The answer holds secrets.",
	"GET /1.0/system/storage":      "Drives and pools.",
	"POST /1.0/system/:poweroff":   "Turns the machine off, after the answer `{}` was sent.",
	"POST /1.0/system/:reboot":     "Restarts the machine, after the answer `{}` was sent.",
}

// apiPage returns the page of the API of the module in root.
func apiPage(root string, docs *types) (string, error) {
	rest, err := readRest(filepath.Join(root, "internal/rest"))
	if err != nil {
		return "", err
	}
	apps, err := readTypes(filepath.Join(root, "internal/apps"))
	if err != nil {
		return "", err
	}
	if err := known(rest.routes); err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString(made + apiHead)
	envelope := docs.byName["Response"]
	if envelope == nil {
		return "", errors.New("package api has no type Response")
	}
	docs.table(&b, envelope)
	b.WriteString(apiErrors)
	b.WriteString("| Method | Path | |\n|---|---|---|\n")
	for _, r := range rest.routes {
		fmt.Fprintf(&b, "| %s | [`%s`](#%s) | %s |\n", r.method, r.path, anchor(r), what[r.String()])
	}
	b.WriteString("\n")
	for _, r := range rest.routes {
		if err := describe(&b, r, rest, docs, apps); err != nil {
			return "", err
		}
	}
	return strings.TrimRight(b.String(), "\n") + "\n", nil
}

// describe writes the section of a route.
func describe(b *strings.Builder, r route, rest restSource, docs, apps *types) error {
	fmt.Fprintf(b, "## %s\n\n%s\n\n", r, what[r.String()])
	doc, from := docs.byName[r.typ], docs
	switch r.path {
	case "/1.0/applications/{name}":
		doc, from = apps.byName["Document"], apps
		if doc == nil {
			return fmt.Errorf("%s: internal/apps has no type Document", r)
		}
	case "/1.0/services/{name}":
		fmt.Fprintf(b, "Names: `%s`.\n\n", strings.Join(rest.services, "`, `"))
	}
	if r.typ != "" && doc == nil {
		return fmt.Errorf("%s answers with %s, which package api does not have", r, r.typ)
	}
	if doc != nil {
		from.section(b, doc, "", make(map[*typeDoc]string))
	}
	return nil
}

// known refuses routes that nothing is said about, and words about none.
func known(routes []route) error {
	var names []string
	for _, r := range routes {
		names = append(names, r.String())
		if what[r.String()] == "" {
			return fmt.Errorf("nothing is said about the route %s; add it to doc/generate/api.go", r)
		}
	}
	for name := range what {
		if !slices.Contains(names, name) {
			return fmt.Errorf("there is no route %s any more; take it out of doc/generate/api.go", name)
		}
	}
	return nil
}

func (r route) String() string { return r.method + " " + r.path }

// anchor is what renderers of Markdown make of the heading of a route: lower
// case, blanks as dashes, and nothing but letters, digits, dashes and "_".
func anchor(r route) string {
	return strings.Map(func(c rune) rune {
		switch {
		case c == ' ':
			return '-'
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_':
			return c
		}
		return -1
	}, strings.ToLower(r.String()))
}
