package early

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"strings"

	"github.com/incusos/incusos/internal/sys"
)

const (
	// keyPartition is where a medium has a recovery key: a partition of that name, with
	// the key as a line of text at its beginning and no file system, so that nothing has
	// to make sense of one that a stranger may have made.
	keyPartition = "/dev/disk/by-partlabel/RECOVERY_KEY"
	keyName      = "RECOVERY_KEY"
	longestKey   = 512
)

// mediumFirst returns an ask that answers the first question with the key on a medium, if
// there is one: for machines without a keyboard. Everything else is asked on the console.
func mediumFirst(ctx context.Context, host sys.Host, screen Console) func(prompt string) (string, error) {
	tried := false
	return func(prompt string) (string, error) {
		if !tried {
			tried = true
			key, err := keyOnMedium(ctx, host)
			if err != nil {
				screen.Say("the medium with the partition %s is of no use: %v", keyName, err)
			}
			if key != "" {
				screen.Say("trying the recovery key on the medium with the partition %s", keyName)
				return key, nil
			}
		}
		return screen.Ask(ctx, prompt)
	}
}

// keyOnMedium returns the line of text on such a medium; "" without one.
func keyOnMedium(ctx context.Context, host sys.Host) (string, error) {
	// A stick that was there from the beginning is known once udev has caught up; what
	// takes longer than that is asked for on the console.
	_, _ = host.Exec.Run(ctx, sys.Command("udevadm", "settle", "--timeout=10"))
	f, err := host.Files.Open(keyPartition)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close() //nolint:errcheck // only read
	b, err := io.ReadAll(io.LimitReader(f, longestKey+1))
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(b), "\x00") // what follows in a partition
	line, _, _ = strings.Cut(line, "\n")
	line = strings.TrimRight(line, "\r")
	switch {
	case len(line) > longestKey:
		return "", errors.New("its first line is too long for a key")
	case line == "":
		return "", errors.New("it begins with no line of text")
	}
	return line, nil
}
