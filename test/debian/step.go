package debian

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// A Step is one command of `incus admin os`, and what has to come of it.
type Step struct {
	Do   string // the command with its arguments
	Data string // for its flag --data; "" for none
	In   string // its standard input, which is no terminal

	Out string // a pattern (multi-line) that finds something in what it prints; "" if that is nothing
	Err string // part of what it says after "Error: "; "" if it ends well
}

// Args are the arguments of the incus command.
func (s Step) Args() []string {
	args := append([]string{"admin", "os"}, strings.Fields(s.Do)...)
	if s.Data != "" {
		args = append(args, "--data", s.Data)
	}
	return args
}

// Run runs the step, and reports where what came of it is something else.
func (s Step) Run(ctx context.Context, c Client) error {
	r, err := c.Run(ctx, strings.NewReader(s.In), s.Args()...)
	if err != nil {
		return err
	}
	if err := s.check(r); err != nil {
		return fmt.Errorf("`incus admin os %s`: %w\nexit status %d\n%s%s", s.Do, err, r.Code, r.Out, r.Err)
	}
	return nil
}

// saysError finds the last words of a command that fails.
var saysError = regexp.MustCompile(`(?m)^Error: (.*)$`)

func (s Step) check(r Result) error {
	said := ""
	if words := saysError.FindStringSubmatch(r.Err); words != nil {
		said = words[1]
	}
	switch {
	case s.Err == "" && (r.Code != 0 || said != ""):
		return errors.New("it failed")
	case s.Err != "" && r.Code == 0:
		return fmt.Errorf("it did not fail, want %q", s.Err)
	case !strings.Contains(said, s.Err) || r.Code > 1:
		return fmt.Errorf("it says %q, want %q with status 1", said, s.Err)
	}
	if s.Out == "" {
		if strings.TrimSpace(r.Out) != "" {
			return errors.New("it printed something, want nothing")
		}
		return nil
	}
	pattern, err := regexp.Compile("(?m)" + s.Out)
	if err == nil && !pattern.MatchString(r.Out) {
		err = fmt.Errorf("want %q in what it prints", s.Out)
	}
	return err
}
