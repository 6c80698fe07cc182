package debian

import (
	"context"
	"fmt"
	"strings"
)

// Commands returns what `incus admin os` can be told, such as "system kernel
// show", by its own help.
func (c Client) Commands(ctx context.Context) ([]string, error) {
	r, err := c.Run(ctx, strings.NewReader(""), "admin", "os", "--sub-commands", "--help")
	if err != nil {
		return nil, err
	}
	all := leaves(r.Out)
	if r.Code != 0 || len(all) == 0 {
		return nil, fmt.Errorf("the help of `incus admin os` names no commands; it ended with status %d and printed:\n%s%s", r.Code, r.Out, r.Err)
	}
	return all, nil
}

// leaves returns the commands in a help text that have none below them. A command
// stands two columns right of the one that it belongs to.
func leaves(help string) []string {
	_, list, _ := strings.Cut(help, "\nAvailable Commands:\n")
	list, _, _ = strings.Cut(list, "\n\n")
	var all, path []string
	for line := range strings.Lines(list) {
		words := strings.Fields(line)
		depth := (len(line) - len(strings.TrimLeft(line, " "))) / 2
		if len(words) == 0 || depth == 0 {
			continue
		}
		if depth > len(path) && len(all) > 0 { // the one before has some below it
			all = all[:len(all)-1]
		}
		path = append(path[:min(depth-1, len(path))], words[0])
		all = append(all, strings.Join(path, " "))
	}
	return all
}

// Uncovered returns the commands that no step runs, and the steps that run none
// of them.
func Uncovered(commands []string, steps []Step) (untold, unknown []string) {
	told := make(map[string]bool)
	for _, s := range steps {
		known := false
		for _, c := range commands {
			if s.Do == c || strings.HasPrefix(s.Do, c+" ") {
				told[c], known = true, true
			}
		}
		if !known {
			unknown = append(unknown, s.Do)
		}
	}
	for _, c := range commands {
		if !told[c] {
			untold = append(untold, c)
		}
	}
	return untold, unknown
}
