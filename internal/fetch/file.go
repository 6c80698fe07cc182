package fetch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/incusos/incusos/internal/repo"
)

// Metadata returns a small file whose length is not known. It is a repo.Fetch.
func (s *Server) Metadata(ctx context.Context, name string, limit int64) (b []byte, err error) {
	err = s.again(ctx, name, func() (int64, error) {
		return 0, s.get(ctx, name, 0, -1, func(r io.Reader) (err error) {
			b, err = io.ReadAll(io.LimitReader(r, limit+1))
			if err == nil && int64(len(b)) > limit {
				return errStopped{fmt.Errorf("it has more than %d bytes", limit)}
			}
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	return b, nil
}

// File returns a file of a release, verified. It fails if the file has more than
// limit bytes.
func (s *Server) File(ctx context.Context, f repo.File, limit int64) ([]byte, error) {
	if f.Length > limit {
		return nil, fmt.Errorf("fetching %s: it has %d bytes; want at most %d", f.Name(), f.Length, limit)
	}
	var b bytes.Buffer
	if err := s.Stream(ctx, f, &b); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// Stream writes a file of a release to w. What was written counts for nothing if
// it returns an error: the hash is known at the end only.
func (s *Server) Stream(ctx context.Context, f repo.File, w io.Writer) error {
	h := sha256.New()
	var at int64
	err := s.again(ctx, f.Name(), func() (int64, error) {
		if at == f.Length {
			return 0, nil // nothing to ask for
		}
		before := at
		err := s.get(ctx, f.Name(), at, f.Length-at, func(r io.Reader) error {
			n, err := io.Copy(local{io.MultiWriter(h, w)}, io.LimitReader(r, f.Length-at))
			at += n
			if err == nil && at < f.Length {
				return io.ErrUnexpectedEOF
			}
			return err
		})
		return at - before, err
	})
	if err != nil {
		return err
	}
	if got := [32]byte(h.Sum(nil)); got != f.SHA256 {
		return fmt.Errorf("fetching %s: what the server sends has SHA-256 %x; it is damaged or forged", f.Name(), got)
	}
	return nil
}

// A local writer fails for good: asking the server again does not help.
type local struct{ io.Writer }

func (w local) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	if err != nil {
		return n, errStopped{err}
	}
	return n, nil
}

// errDamaged reports blocks that are not what the index says.
var errDamaged = errors.New("what the server sends is damaged or forged")
