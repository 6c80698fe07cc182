package systest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/incusos/incusos/internal/sys"
)

// Drives models what wipes and encrypts whole drives: wipefs, blkdiscard and
// cryptsetup. What a drive is encrypted with lies at its beginning, as the real header
// does, so that it outlives the model.
type Drives struct {
	files sys.Dir
	mu    sync.Mutex
	busy  map[string]bool // names of opened drives that something uses
}

// luksMagic begins a drive that is encrypted; the digest of its key follows.
const luksMagic = "LUKS\xba\xbe"

// driveHead is how much of a drive's beginning tells what it holds, in bytes.
const driveHead = 4 << 10

// NewDrives adds the programs to rig.
func NewDrives(rig *Rig) *Drives {
	d := &Drives{files: rig.Host.Files, busy: make(map[string]bool)}
	rig.Programs.Model("wipefs", d.locked(d.wipefs))
	rig.Programs.Model("blkdiscard", d.locked(d.blkdiscard))
	rig.Programs.Model("cryptsetup", d.locked(d.cryptsetup))
	return d
}

func (d *Drives) locked(p Program) Program {
	return func(ctx context.Context, c sys.Cmd) ([]byte, error) {
		d.mu.Lock()
		defer d.mu.Unlock()
		return p(ctx, c)
	}
}

// Busy has something use an opened drive, by the name of its device mapping.
func (d *Drives) Busy(mapping string, busy bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.busy[mapping] = busy
}

// Reboot closes what is open.
func (d *Drives) Reboot() error { return d.files.RemoveAll("/dev/mapper") }

// Head returns how a drive begins.
func (d *Drives) Head(device string) ([]byte, error) {
	f, err := d.files.Open(d.path(device))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, driveHead)
	n, err := f.ReadAt(b, 0)
	if n == 0 && err != nil && !errors.Is(err, os.ErrClosed) {
		return b, nil //nolint:nilerr // a pretend drive that nothing was written to is empty
	}
	return b, nil
}

// path follows the names of udev.
func (d *Drives) path(device string) string {
	if to, err := d.files.Readlink(device); err == nil {
		return path.Join(path.Dir(device), to)
	}
	return device
}

func (d *Drives) write(device string, head []byte) error {
	b := make([]byte, driveHead)
	copy(b, head)
	f, err := os.OpenFile(d.files.Path(d.path(device)), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	return errors.Join(err, f.Close())
}

func (d *Drives) wipefs(_ context.Context, c sys.Cmd) ([]byte, error) {
	return nil, d.write(c.Args[len(c.Args)-1], nil)
}

// blkdiscard overwrites; a pretend drive does not know which blocks are free.
func (d *Drives) blkdiscard(_ context.Context, c sys.Cmd) ([]byte, error) {
	if !slices.Contains(c.Args, "--zeroout") {
		return nil, &sys.ExecError{Name: "blkdiscard", Code: 1, Stderr: "BLKDISCARD ioctl failed: Operation not supported"}
	}
	if i := slices.Index(c.Args, "--offset"); c.Args[i+1] != "0" {
		return nil, nil
	}
	return nil, d.write(c.Args[len(c.Args)-1], nil)
}

// cryptsetup knows `luksFormat [options] DEVICE`, `open [options] DEVICE [NAME]`,
// `close NAME` and `erase --batch-mode DEVICE`, and ends with the statuses of
// cryptsetup(8).
func (d *Drives) cryptsetup(_ context.Context, c sys.Cmd) ([]byte, error) {
	var words []string
	key := ""
	for i := 1; i < len(c.Args); i++ {
		switch a := c.Args[i]; {
		case a == "--key-file":
			key = c.Args[i+1]
			i++
		case a == "--type", a == "--pbkdf", a == "--pbkdf-force-iterations":
			i++
		case strings.HasPrefix(a, "--"):
		default:
			words = append(words, a)
		}
	}
	switch c.Args[0] {
	case "luksFormat":
		b, err := d.files.ReadFile(key)
		if err != nil {
			return nil, crypt(1, "Failed to open key file.")
		}
		return nil, d.write(words[0], []byte(luksMagic+digestOf(string(b))))
	case "erase":
		return nil, d.write(words[0], []byte(luksMagic))
	case "open":
		return nil, d.open(words, key)
	case "close":
		return nil, d.close(words[0])
	}
	return nil, fmt.Errorf("the pretend cryptsetup has no %q", c.Args[0])
}

func crypt(code int, why string) error {
	return &sys.ExecError{Name: "cryptsetup", Code: code, Stderr: why}
}

func (d *Drives) open(words []string, key string) error {
	head, err := d.Head(words[0])
	if err != nil {
		return crypt(4, "Device "+words[0]+" does not exist or access denied.")
	}
	if !bytes.HasPrefix(head, []byte(luksMagic)) {
		return crypt(1, "Device "+words[0]+" is not a valid LUKS device.")
	}
	b, err := d.files.ReadFile(key)
	if err != nil {
		return crypt(1, "Failed to open key file.")
	}
	if !bytes.HasPrefix(head[len(luksMagic):], []byte(digestOf(string(b)))) {
		return crypt(2, "No key available with this passphrase.")
	}
	if len(words) < 2 {
		return nil // only tested
	}
	return d.files.WriteFile("/dev/mapper/"+words[1], nil, 0o600)
}

func (d *Drives) close(name string) error {
	if d.busy[name] {
		return crypt(5, "Device "+name+" is still in use.")
	}
	return d.files.Remove("/dev/mapper/" + name)
}
