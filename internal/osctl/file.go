package osctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// Save writes what fill writes into a new file that only its owner can read. A
// file that is there is left alone, and half a file is removed.
func Save(ctx context.Context, name string, fill func(context.Context, io.Writer) error) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return Wrong(fmt.Errorf("%q is already there; name a file that is not", name))
	}
	if err != nil {
		return Wrong(err)
	}
	err = fill(ctx, f)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err != nil {
		err = errors.Join(err, os.Remove(name))
	}
	return err
}

// Load hands the content of a file to take.
func Load(name string, take func(io.Reader) error) error {
	f, err := os.Open(name)
	if err != nil {
		return Wrong(err)
	}
	defer f.Close()
	return take(f)
}
