// Generate makes the pages in doc/reference from the code: the types of package
// api with their comments, and the route table of internal/rest. It runs by
// `go generate ./...`, and its test fails when a page is out of date.
//
//	main.go     which pages there are, and writing them
//	types.go    what the types of a package say about themselves
//	seed.go     the page of the seed
//	api.go      the page of the API
//	openapi.go  the API for programs, in OpenAPI 3.1; schema.go has its types
//	golden.go   the list of what clients rely on
//
// Comments are read from the source of package api, everything else about a
// route from the table that also serves it. The page of the program incusos is
// made beside the program, by cmd/incusos.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

// made is the first line of every page.
const made = "<!-- Made from the code by `go generate ./...`; do not edit. -->\n\n"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "generate: cannot make the reference:", err)
		os.Exit(1)
	}
}

// run writes the pages of the module in the directory it is given.
func run(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("want the root of the module, not %d arguments", len(args))
	}
	all, err := pages(args[0])
	if err != nil {
		return err
	}
	for name, text := range all {
		if err := os.WriteFile(filepath.Join(args[0], name), []byte(text), 0o644); err != nil { //nolint:gosec // a page
			return err
		}
	}
	return nil
}

// pages returns the text of every page by its name below root.
func pages(root string) (map[string]string, error) {
	docs, err := readTypes(filepath.Join(root, "api"))
	if err != nil {
		return nil, err
	}
	seed, err := seedPage(docs)
	if err != nil {
		return nil, err
	}
	api, err := apiPage(docs)
	if err != nil {
		return nil, err
	}
	description, err := openAPI(docs)
	if err != nil {
		return nil, err
	}
	list, err := golden(root)
	if err != nil {
		return nil, err
	}
	return map[string]string{
		"doc/reference/seed.md": seed, "doc/reference/api.md": api,
		"doc/reference/openapi.json": description, goldenName: list,
	}, nil
}
