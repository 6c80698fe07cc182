package osctl

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/incusos/incusos/api"
	"github.com/incusos/incusos/internal/sys"
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

// ReadSecret reads a line: from in, or without showing it from the terminal that in
// is.
func ReadSecret(ctx context.Context, in io.Reader, out io.Writer, what string) (api.Secret, error) {
	line, err := secretLine(ctx, in, out, what)
	if err != nil {
		return "", err
	}
	secret := strings.TrimRight(line, "\r\n")
	if secret == "" {
		return "", Wrong(fmt.Errorf("nothing was typed; want a %s", what))
	}
	return api.Secret(secret), nil
}

func secretLine(ctx context.Context, in io.Reader, out io.Writer, what string) (string, error) {
	if f, ok := in.(*os.File); ok && sys.IsTerminal(f) {
		defer fmt.Fprintln(out)
		return sys.ReadSecret(ctx, sys.NewDir("/"), []string{"/dev/tty"}, func() { fmt.Fprintf(out, "%s: ", what) })
	}
	const longest = 4096
	line, err := bufio.NewReader(io.LimitReader(in, longest)).ReadString('\n')
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return line, err
}
