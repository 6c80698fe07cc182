package apps

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/incusos/incusos/api"
)

// maxEntries bounds the time that a hostile archive costs.
const maxEntries = 1 << 20

// An unpacker puts the entries of an archive below a directory, which holds
// nothing yet. It trusts neither names nor sizes.
type unpacker struct {
	root *os.Root
	room uint64 // how much may be written
	own  bool   // owners are set, for which one has to be root
	dirs []*tar.Header
}

// unpack reads a tar archive in gzip to its end: neither a cut upload nor a cut
// archive is taken for a whole one.
func (u *unpacker) unpack(r io.Reader) error {
	z, err := gzip.NewReader(r)
	if err != nil {
		return badArchive(err, "it is not compressed with gzip")
	}
	last := &tail{r: z}
	t := tar.NewReader(last)
	for range maxEntries {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return errors.Join(finish(last), u.finishDirs())
		}
		if err != nil {
			return badArchive(err, "what is compressed is no tar archive")
		}
		if err := u.entry(h, t); err != nil {
			return badArchive(err, "%q cannot be unpacked", h.Name)
		}
	}
	return api.Errorf(api.Invalid, "the archive has more than %d entries", maxEntries)
}

// finish reads what is after the last entry, which has gzip check its sum, and
// looks for the mark at the end of tar archives.
func finish(last *tail) error {
	if _, err := io.Copy(io.Discard, last); err != nil {
		return badArchive(err, "its end is damaged")
	}
	if last.seen < len(last.b) || !bytes.Equal(last.b[:], make([]byte, len(last.b))) {
		return api.Errorf(api.Invalid, "the archive ends early: the mark of its end is missing; send it again")
	}
	return nil
}

// badArchive says what is wrong with an archive, unless it is something else that
// went wrong.
func badArchive(err error, format string, args ...any) error {
	if _, ok := errors.AsType[*api.Error](err); ok {
		return err
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return api.Errorf(api.Invalid, "the archive ends early; send it again")
	}
	damage := errors.Is(err, gzip.ErrHeader) || errors.Is(err, gzip.ErrChecksum) || errors.Is(err, tar.ErrHeader)
	if damage {
		return api.Errorf(api.Invalid, "the archive cannot be read: "+format+": %v", append(args, err)...)
	}
	return fmt.Errorf("unpacking: "+format+": %w", append(args, err)...)
}

// A tail is a reader that remembers what it read last.
type tail struct {
	r    io.Reader
	b    [1024]byte // two blocks of zeros end a tar archive
	seen int        // how much was read, as far as it matters
}

func (t *tail) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	if n >= len(t.b) {
		copy(t.b[:], p[n-len(t.b):n])
	} else {
		copy(t.b[:], t.b[n:])
		copy(t.b[len(t.b)-n:], p[:n])
	}
	t.seen = min(t.seen+n, len(t.b))
	return n, err
}

func (u *unpacker) entry(h *tar.Header, r io.Reader) error {
	name := path.Clean(h.Name)
	if name == "." && h.Typeflag == tar.TypeDir {
		return nil
	}
	if !filepath.IsLocal(name) || strings.Contains(h.Name, "\\") {
		return api.Errorf(api.Invalid, "the archive has an entry %q, which leads out of it", h.Name)
	}
	if dir := path.Dir(name); dir != "." {
		if err := u.root.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return u.dir(name, h)
	case tar.TypeReg:
		return u.file(name, h, r)
	case tar.TypeSymlink:
		return u.symlink(name, h)
	}
	return api.Errorf(api.Invalid, "the archive has an entry %q that is neither a file nor a directory nor a symlink", h.Name)
}

func (u *unpacker) dir(name string, h *tar.Header) error {
	if err := u.root.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	u.dirs = append(u.dirs, h)
	return nil
}

// finishDirs gives directories their modes once everything is in them.
func (u *unpacker) finishDirs() error {
	for _, h := range u.dirs {
		if err := u.belong(path.Clean(h.Name), h); err != nil {
			return err
		}
	}
	return nil
}

func (u *unpacker) file(name string, h *tar.Header, r io.Reader) error {
	if uint64(h.Size) > u.room { //nolint:gosec // archive/tar refuses negative sizes
		return api.Errorf(api.Invalid, "there is no room for what is in the archive; %q alone has %d bytes", h.Name, h.Size)
	}
	u.room -= uint64(h.Size) //nolint:gosec // as above
	f, err := u.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return api.Errorf(api.Invalid, "the archive has %q twice", h.Name)
	}
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return u.belong(name, h)
}

// symlink makes a link that stays inside the directory of Incus. Nothing follows
// it here: os.Root refuses those that would lead out.
func (u *unpacker) symlink(name string, h *tar.Header) error {
	target := h.Linkname
	if !path.IsAbs(target) {
		target = path.Join(incusDir, path.Dir(name), target)
	}
	if !strings.HasPrefix(path.Clean(target), incusDir+"/") {
		return api.Errorf(api.Invalid, "the archive has a link %q to %q, which is outside of %s", h.Name, h.Linkname, incusDir)
	}
	return u.root.Symlink(h.Linkname, name)
}

// belong gives a file or directory the owner and mode it had. Bits that let
// programs run as somebody else are not among them.
func (u *unpacker) belong(name string, h *tar.Header) error {
	if u.own {
		if err := u.root.Chown(name, h.Uid, h.Gid); err != nil {
			return err
		}
	}
	return u.root.Chmod(name, h.FileInfo().Mode().Perm())
}
