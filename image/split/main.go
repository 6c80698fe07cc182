// Split makes an initrd of a cpio archive, cut by package initrd, each archive
// compressed with the zstd program of the tools tree, since the level below it that Go
// has would make a kernel image a megabyte larger. mkosi runs it when it has made
// image/mkosi.images/initrd.
//
//	split ARCHIVE INITRD
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"

	"github.com/incusos/incusos/internal/initrd"
	"github.com/incusos/incusos/internal/sys"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: split ARCHIVE INITRD")
		os.Exit(2)
	}
	if err := split(context.Background(), sys.Real().Exec, os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "split:", err)
		os.Exit(1)
	}
}

func split(ctx context.Context, exec sys.Runner, from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	archives, err := initrd.Split(b)
	if err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	out, err := initrd.Pack(archives, func(b []byte) ([]byte, error) { return compress(ctx, exec, b) })
	if err != nil {
		return fmt.Errorf("compressing %s: %w", from, err)
	}
	fmt.Printf("%s: %d archives, %d bytes of %d\n", to, len(archives), len(out), len(b))
	return os.WriteFile(to, out, 0o644) //nolint:gosec // not a secret
}

// compress compresses an archive into a frame that says how much is in it, so that the
// kernel takes no more memory for it than that. One thread: several would cut it.
func compress(ctx context.Context, exec sys.Runner, b []byte) ([]byte, error) {
	c := sys.Command("zstd", "-19", "--single-thread", "--quiet", "--stdout", "--stream-size="+strconv.Itoa(len(b)))
	c.Stdin = bytes.NewReader(b)
	return exec.Run(ctx, c)
}
