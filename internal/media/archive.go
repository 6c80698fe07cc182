package media

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// block is the unit of a tar archive (POSIX.1-2017, pax, "ustar Interchange
// Format"): a header is one, content is padded to whole ones, two of zeros end it.
const block = 512

// head is how much of an archive is written last. Two blocks of zeros in its
// place are an archive without files.
const head = 2 * block

// archiveSize returns how many bytes an archive of entries takes.
func archiveSize(entries []entry) int64 {
	n := int64(2 * block)
	for _, e := range entries {
		n += block + (e.size+block-1)/block*block
	}
	return n
}

// checkFit reports whether an archive of entries is too large for part.
func checkFit(entries []entry, part partition) error {
	if need := archiveSize(entries); need > part.size {
		return fmt.Errorf("seed and applications take %d bytes, but partition %q holds %d; leave out applications or build the image with a larger one",
			need, part.label, part.size)
	}
	return nil
}

// writeArchive makes part hold an archive of entries and zeros after it. The
// head is written last, when all else is on disk: until then the archive is
// empty, rather than half of one.
func writeArchive(ctx context.Context, disk *os.File, part partition, entries []entry) error {
	if _, err := disk.WriteAt(make([]byte, head), part.start); err != nil {
		return fmt.Errorf("clearing the seed partition: %w", err)
	}
	w := &lateStart{disk: disk, start: part.start}
	if err := writeEntries(ctx, w, entries); err != nil {
		return err
	}
	if err := zero(ctx, disk, part.start+w.written, part.size-w.written); err != nil {
		return fmt.Errorf("clearing the rest of the seed partition: %w", err)
	}
	if err := w.finish(); err != nil {
		return fmt.Errorf("finishing the seed: %w", err)
	}
	return nil
}

func writeEntries(ctx context.Context, w io.Writer, entries []entry) error {
	tw := tar.NewWriter(w)
	for _, e := range entries {
		if err := writeEntry(ctx, tw, e); err != nil {
			return fmt.Errorf("writing %s: %w", e.name, err)
		}
	}
	return tw.Close()
}

func writeEntry(ctx context.Context, tw *tar.Writer, e entry) error {
	content, err := e.open()
	if err != nil {
		return err
	}
	defer content.Close() //nolint:errcheck // only read
	// Owner, group and date stay zero, so that the same files give the same bytes.
	err = tw.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg,
		Format:   tar.FormatUSTAR,
		Name:     e.name,
		Size:     e.size,
		Mode:     0o600,
		ModTime:  time.Unix(0, 0),
	})
	if err != nil {
		return err
	}
	return copyN(ctx, tw, content, e.size)
}

// A lateStart writes to disk from start on, but the head only in finish.
type lateStart struct {
	disk    *os.File
	start   int64
	written int64
	head    []byte
}

func (w *lateStart) Write(p []byte) (int, error) {
	held := min(head-len(w.head), len(p))
	w.head = append(w.head, p[:held]...)
	n, err := w.disk.WriteAt(p[held:], w.start+w.written+int64(held))
	w.written += int64(held + n)
	return held + n, err
}

func (w *lateStart) finish() error {
	if err := w.disk.Sync(); err != nil {
		return err
	}
	if _, err := w.disk.WriteAt(w.head, w.start); err != nil {
		return err
	}
	return w.disk.Sync()
}

// keepApplications copies the applications in the archive on disk into a file
// without a name, and returns the entries that read from it.
func keepApplications(ctx context.Context, disk *os.File, part partition) (kept []entry, spool *os.File, err error) {
	spool, err = os.CreateTemp("", "incusos-media-*")
	if err != nil {
		return nil, nil, err
	}
	if err := os.Remove(spool.Name()); err != nil {
		return nil, nil, errors.Join(err, spool.Close())
	}
	kept, err = spoolApplications(ctx, spool, io.NewSectionReader(disk, part.start, part.size))
	if err != nil {
		return nil, nil, errors.Join(err, spool.Close())
	}
	return kept, spool, nil
}

func spoolApplications(ctx context.Context, spool *os.File, archive io.Reader) ([]entry, error) {
	var kept []entry
	var at int64
	for tr := tar.NewReader(archive); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return kept, nil
		}
		if err != nil {
			return nil, errors.New("the seed partition holds something else than a seed; list the applications to have it overwritten")
		}
		if h.Typeflag != tar.TypeReg || !strings.HasPrefix(h.Name, applicationDir) {
			continue
		}
		if err := copyN(ctx, spool, tr, h.Size); err != nil {
			return nil, fmt.Errorf("reading %s: %w", h.Name, err)
		}
		content := io.NewSectionReader(spool, at, h.Size)
		kept = append(kept, entry{h.Name, h.Size, func() (io.ReadCloser, error) { return io.NopCloser(content), nil }})
		at += h.Size
	}
}
