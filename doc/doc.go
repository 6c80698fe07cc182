// Package doc is the documentation; it holds no code to call. The pages are
// Markdown, README.md lists them.
//
//	tutorial/   learn by doing
//	how-to/     get one thing done
//	explanation/ why things are as they are
//	reference/  every field and every route; made from the code by ./generate
//	examples/   seeds to start from
//
// Its test decodes every seed that is shown, in examples/ and in the pages, the
// way a machine does.
package doc

//go:generate go run ./generate ..
