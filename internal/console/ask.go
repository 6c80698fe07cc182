package console

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/incusos/incusos/internal/sys"
)

// ErrNobodyToAsk reports that no console of the machine can be typed on.
var ErrNobodyToAsk = errors.New("no console of this machine can be typed on; attach a keyboard and a screen, or a serial line")

// Ask shows prompt, of which the last line is what to type, and returns the
// first line typed on any console of the machine. Nothing typed is shown.
func (c *Console) Ask(ctx context.Context, prompt string) (string, error) {
	lines := strings.Split(strings.TrimSpace(prompt), "\n")
	line, err := sys.ReadSecret(ctx, c.files, names(c.files), func() { c.prompt(lines) })
	if errors.Is(err, sys.ErrNoTerminal) {
		return "", fmt.Errorf("%w (%w)", ErrNobodyToAsk, err)
	}
	return line, err
}

func (c *Console) prompt(lines []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tell(lines...)
	c.view.failure, c.view.page = lines, nil
	c.redraw()
}
