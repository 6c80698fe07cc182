package media

import (
	"context"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// step is how much is copied before looking whether to go on.
const step = 64 << 20

// copySparse makes dst, an empty file, a copy of src in which holes stay holes.
// File systems that can share the blocks of both do (copy_file_range(2)).
func copySparse(ctx context.Context, dst, src *os.File) error {
	info, err := src.Stat()
	if err != nil {
		return err
	}
	if err := dst.Truncate(info.Size()); err != nil {
		return err
	}
	for end := int64(0); ; {
		start, err := src.Seek(end, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // nothing but a hole from here to the end
		}
		if err != nil {
			return err
		}
		if end, err = src.Seek(start, unix.SEEK_HOLE); err != nil {
			return err
		}
		if err := copyRange(ctx, dst, src, start, end); err != nil {
			return err
		}
	}
}

// copyRange copies the bytes from start to end to the same place in dst.
func copyRange(ctx context.Context, dst, src *os.File, start, end int64) error {
	for _, f := range []*os.File{dst, src} {
		if _, err := f.Seek(start, io.SeekStart); err != nil {
			return err
		}
	}
	return copyN(ctx, dst, src, end-start)
}

// copyN copies n bytes, unless ctx ends first.
func copyN(ctx context.Context, dst io.Writer, src io.Reader, n int64) error {
	for n > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		done, err := io.CopyN(dst, src, min(step, n))
		if err != nil {
			return err
		}
		n -= done
	}
	return nil
}

// zero makes the n bytes at start of f zero. It writes only where they are not,
// so that holes stay holes.
func zero(ctx context.Context, f *os.File, start, n int64) error {
	have, none := make([]byte, 1<<20), make([]byte, 1<<20)
	for end := start + n; start < end; {
		if err := ctx.Err(); err != nil {
			return err
		}
		size := min(int64(len(have)), end-start)
		if _, err := f.ReadAt(have[:size], start); err != nil {
			return err
		}
		if string(have[:size]) != string(none[:size]) {
			if _, err := f.WriteAt(none[:size], start); err != nil {
				return err
			}
		}
		start += size
	}
	return nil
}
