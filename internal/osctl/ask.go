package osctl

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Ask asks whether to do something. An error is a no; without anybody who could
// answer it is one at once.
func Ask(in io.Reader, out io.Writer, somebody bool, what string) error {
	if !somebody {
		return Wrong(fmt.Errorf("nobody is there to ask whether to %s; use --force to do it without asking", what))
	}
	fmt.Fprintf(out, "Really %s? [y/N] ", what)
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	return Wrong(errors.New("the answer was no"))
}
