package main

import (
	"errors"
	"fmt"
	"go/ast"
	"strings"
)

// A route is a line of the route table of internal/rest.
type route struct {
	method, path string
	typ          string // Go name of the document it answers with, "" for none of package api
}

// A restSource is what the source of internal/rest says.
type restSource struct {
	routes   []route
	services []string // names that /1.0/services/{name} knows
}

// readRest reads the package in dir.
func readRest(dir string) (restSource, error) {
	files, err := parseDir(dir)
	if err != nil {
		return restSource{}, err
	}
	answers := make(map[string]string) // fields and methods of Machine to the document they return
	var table *ast.FuncDecl
	var r restSource
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.TypeSpec:
				if s, ok := n.Type.(*ast.StructType); ok && n.Name.Name == "Machine" {
					machineFields(s, answers)
				}
			case *ast.FuncDecl:
				if n.Name.Name == "routes" {
					table = n
				}
				if n.Recv != nil && n.Type.Results != nil {
					answers[n.Name.Name] = document(n.Type.Results.List[0].Type)
				}
			case *ast.ValueSpec:
				if n.Names[0].Name == "serviceNames" && len(n.Values) == 1 {
					words, _ := literal(n.Values[0])
					r.services = strings.Fields(words)
				}
			}
			return true
		})
	}
	if table == nil || len(r.services) == 0 {
		return restSource{}, errors.New("internal/rest has no function routes or no constant serviceNames; adapt the generator")
	}
	r.routes, err = readTable(table, answers)
	return r, err
}

func machineFields(s *ast.StructType, answers map[string]string) {
	for _, f := range s.Fields.List {
		for _, name := range f.Names {
			answers[name.Name] = document(f.Type)
		}
	}
}

// document returns the X of func(...) (api.X, error), or "".
func document(e ast.Expr) string {
	fn, ok := e.(*ast.FuncType)
	if !ok || fn.Results == nil {
		return ""
	}
	sel, ok := fn.Results.List[0].Type.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	return sel.Sel.Name
}

// readTable reads the calls of add.
func readTable(table *ast.FuncDecl, answers map[string]string) ([]route, error) {
	var routes []route
	var err error
	ast.Inspect(table, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || !calls(call, "add") {
			return true
		}
		method, ok1 := literal(call.Args[0])
		path, ok2 := literal(call.Args[1])
		if len(call.Args) != 3 || !ok1 || !ok2 {
			err = fmt.Errorf("route %d is not add(METHOD, PATH, endpoint)", len(routes)+1)
			return false
		}
		routes = append(routes, route{method, path, answers[answerer(call.Args[2])]})
		return false
	})
	if err == nil && len(routes) == 0 {
		err = errors.New("internal/rest adds no routes; adapt the generator")
	}
	return routes, err
}

func calls(c *ast.CallExpr, method string) bool {
	sel, ok := c.Fun.(*ast.SelectorExpr)
	return ok && sel.Sel.Name == method
}

// answerer returns the N of document(m.N) and document(m.N()), or "".
func answerer(e ast.Expr) string {
	call, ok := e.(*ast.CallExpr)
	if !ok || len(call.Args) != 1 {
		return ""
	}
	if id, ok := call.Fun.(*ast.Ident); !ok || id.Name != "document" {
		return ""
	}
	arg := call.Args[0]
	if inner, ok := arg.(*ast.CallExpr); ok {
		arg = inner.Fun
	}
	if sel, ok := arg.(*ast.SelectorExpr); ok {
		return sel.Sel.Name
	}
	return ""
}
