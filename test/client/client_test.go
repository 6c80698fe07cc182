//go:build vm

// Package client_test asks everything that Debian's `incus admin os` can ask of a
// pretend machine, by HTTPS and through Debian's own incusd: both daemons are the
// real ones, and so is the client.
//
//	machine_test.go   the pretend machine, and incusd in namespaces of its own
//	commands_test.go  a case for each command, in the order of a story
//	access_test.go    who is refused
//
// Which commands there are is what the client's own help says. One without a case
// is a failure, so that a newer client cannot be overlooked.
//
// It needs root, for namespaces, and the mirror that the image comes from, for a
// tree of Debian: so it has the build tag vm, though it starts no virtual machine.
package client_test

import (
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/incusos/incusos/test/debian"
)

func TestClient(t *testing.T) {
	m := start(t)
	operator := m.operator(t)
	t.Run("every command", func(t *testing.T) { everyCommand(t, m, operator) })
	t.Run("commands that the documentation names", func(t *testing.T) { documented(t, operator) })
	t.Run("what is shown can be sent back", func(t *testing.T) { sentBack(t, operator) })
	t.Run("a document is changed in an editor", func(t *testing.T) { edited(t, operator) })
	t.Run("a question that is answered with no", func(t *testing.T) { answeredNo(t, operator) })
	t.Run("root on the socket of Incus", func(t *testing.T) { onSocket(t, m) })
	t.Run("who is not trusted", func(t *testing.T) { notTrusted(t, m, operator) })
}

func everyCommand(t *testing.T, m *machine, c debian.Client) {
	all := m.cases(t, c)
	commands, err := c.Commands(t.Context())
	must(t, err)
	t.Logf("`incus admin os` has %d commands", len(commands))
	steps := make([]debian.Step, len(all))
	for i := range all {
		steps[i] = all[i].Step
	}
	untold, unknown := debian.Uncovered(commands, steps)
	if len(untold) > 0 {
		t.Errorf("no case for %s", strings.Join(untold, ", "))
	}
	if len(unknown) > 0 {
		t.Errorf("the client has no commands for the cases %s", strings.Join(unknown, ", "))
	}
	for _, one := range all {
		t.Run(one.Do, func(t *testing.T) { m.try(t, c, one) })
	}
}

// documented expects that the pages name no commands that the client does not have.
func documented(t *testing.T, c debian.Client) {
	commands, err := c.Commands(t.Context())
	must(t, err)
	named := regexp.MustCompile(`incus admin os( [a-z][a-z-]*)+`)
	found := 0
	must(t, fs.WalkDir(os.DirFS("../../doc"), ".", func(name string, _ fs.DirEntry, err error) error {
		if err != nil || path.Ext(name) != ".md" {
			return err
		}
		text, err := os.ReadFile("../../doc/" + name)
		for _, line := range named.FindAllString(string(text), -1) {
			found++
			known := func(c string) bool {
				c = "incus admin os " + c
				return strings.HasPrefix(line+" ", c+" ") || strings.HasPrefix(c, line+" ")
			}
			if !slices.ContainsFunc(commands, known) {
				t.Errorf("doc/%s: the client has no command %q", name, line)
			}
		}
		return err
	}))
	if found == 0 {
		t.Error("the documentation names no command; want some")
	}
}

// A trial is a step with what it does to the machine.
type trial struct {
	debian.Step
	then  func(*testing.T) // looks at the machine afterwards
	tasks bool             // it goes on as a task
	goes  string           // what the machine says when it goes down for that; it is started again
}

func (m *machine) try(t *testing.T, c debian.Client, one trial) {
	if err := one.Run(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if one.tasks {
		m.idle(t)
	}
	if one.goes != "" {
		m.waitSaid(t, one.goes)
	}
	if one.then != nil {
		one.then(t)
	}
	if one.goes != "" {
		m.stopOSD(t)
		m.startOSD(t)
	}
}

// sentBack sends every document that can be edited as it was shown, with its state
// and all, as somebody does who leaves the editor without a change.
func sentBack(t *testing.T, c debian.Client) {
	for _, what := range documents() {
		t.Run(what.name, func(t *testing.T) {
			verb, rest, _ := strings.Cut(what.name, "/")
			show := append(strings.Fields("admin os "+verb+" show"), strings.Fields(rest)...)
			shown, err := c.Run(t.Context(), strings.NewReader(""), show...)
			must(t, err)
			in := shown.Out
			if shown.Code != 0 {
				in = "config: {}" // it is not there at all
			}
			edit := debian.Step{Do: strings.TrimSpace(verb + " edit " + rest), In: in, Err: what.refused}
			if err := edit.Run(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			again, err := c.Run(t.Context(), strings.NewReader(""), show...)
			must(t, err)
			if config(again.Out) != config(shown.Out) {
				t.Errorf("before it was sent back:\n%safter:\n%s", shown.Out, again.Out)
			}
		})
	}
}

// config is the part of a document that can be changed.
func config(yaml string) string {
	lines := strings.SplitAfter(yaml, "\n")
	if n := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "state:") }); n >= 0 {
		lines = lines[:n]
	}
	return strings.Join(lines, "")
}
